# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[flax]", "jinja2>=3.1.2,<4"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Train a model that restores corrupted texts in JAX: flax.nnx, optax, the loop written out.

    python run_denoising.py --model_name_or_path google/t5-v1_1-small --train_file "texts/*.txt" \\
        --validation_split_percentage 5 --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, perplexity and accuracy, and
`training_curve.png`. `--do_predict` corrupts each row of `--test_file`, and writes to `predictions.tsv` how
well it was restored; with `--max_new_tokens` it fills the holes of rows: `generated_predictions.txt`.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "jax", "flax", "optax")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import corruption
from triptych.flax.arguments import TrainingArguments
from triptych.metrics import perplexity
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
from triptych.run.evaluation import Evaluation

TASK = "text2text-generation"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class DenoisingArguments(arguments.CorruptionArguments):
    """Denoising"""

    pad_to_max_length: bool = flag(False, "pad batches to the longest possible rows instead of their own")


ARGUMENTS = (arguments.ModelArguments, DenoisingArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import devices, models, optimization, saving
from triptych.flax.generation import generate


def preprocess(rows, columns, tokenizer, data_args):
    """Texts as tokens, and where their sentences begin."""
    return corruption.tokenized(rows, columns, tokenizer, data_args)


def collate(rows, draws, tokenizer, config, noise, data_args):
    """One batch of padded arrays from features by row, corrupted as `draws` say; the decoder reads the labels
    shifted to the right. Rows with holes to be filled have one target that does not count, and the decoder's
    start.
    """
    input_length = noise.input_length if data_args.pad_to_max_length else None
    target_length = noise.target_length if data_args.pad_to_max_length else None
    if is_corrupted := corruption.STARTS in rows:
        texts, labels = corruption.corrupted(rows, draws, noise)
    else:
        texts, labels = rows["input_ids"], [[-100]] * len(rows["input_ids"])
    labels = batching.pad(labels, -100, target_length)
    before = np.where(labels == -100, tokenizer.pad_token_id, labels)[:, :-1]
    batch = {
        "input_ids": batching.pad(texts, tokenizer.pad_token_id, input_length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in texts], 0, input_length),
        "decoder_input_ids": np.insert(before, 0, config.decoder_start_token_id, axis=1),
        "labels": labels,
    }
    start = np.full(len(texts), config.decoder_start_token_id)
    return batch if is_corrupted else batch | {decoding.START: start}


def count_targets(batch):
    """How many targets the loss of a batch is summed over: tokens to be written."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, rngs=None):
    """Cross-entropy summed over the target tokens; for `answers` that of each and the likeliest tokens."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    logits, labels = model(**inputs, rngs=rngs), batch["labels"]
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)  # no place is, at -100
    of_labels = log_probabilities.sum(axis=-1, where=is_label)
    losses = (1 - label_smoothing) * of_labels + label_smoothing * log_probabilities.mean(axis=-1)
    losses = jnp.where(labels != -100, -losses, 0)
    return losses.sum(), (losses, logits.argmax(axis=-1))


def answers(model, batch, outputs, search):
    """For each row (3): nats, how many tokens were the likeliest, and how many there were to be written; for
    rows with holes generated token ids."""
    if decoding.START in batch:
        return generate(model, batch, search)
    (losses, likeliest), labels = outputs, batch["labels"]
    columns = losses, likeliest == labels, labels != -100
    return jnp.stack([column.astype(jnp.float32).sum(axis=1) for column in columns], axis=1)


def score(answers, rows, data_args):
    """Perplexity and accuracy; nothing of filled holes."""
    return {} if data_args.fills(rows) else perplexity.score(answers, rows)


def write_answers(output_dir, prefix, values, answers, rows, columns, tokenizer, noise, data_args):
    """The metrics; of a prediction how well each row of the file was restored, or the row with its holes
    filled."""
    results.save_metrics(output_dir, prefix, values)
    if data_args.fills(rows):
        texts = corruption.filled(answers, rows[columns["text"]], tokenizer, noise)
        results.save_predictions(output_dir, data.by_source(texts, rows))
    elif prefix.startswith("predict"):
        results.save_table(output_dir, perplexity.table(answers, rows, decimals=7), "predictions.tsv")


def add_gradients(graphdef, label_smoothing, parameters, buffers, sums, batch, targets, dropout_key):
    """`sums` of the batches before, with this batch's part of the step's mean loss and its gradients."""

    def mean_loss(parameters):
        model = nnx.merge(graphdef, parameters, buffers)
        loss, _ = summed_loss(model, batch, label_smoothing, nnx.Rngs(dropout=dropout_key))
        return loss / targets

    return jax.tree.map(jnp.add, sums, jax.value_and_grad(mean_loss)(parameters))


def update(optimizer, max_grad_norm, parameters, optimizer_state, gradients, learning_rate):
    """New parameters and state of the optimizer, and the norm that the gradients had."""
    gradients, norm = optimization.clip_by_global_norm(gradients, max_grad_norm)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
    return jax.tree.map(lambda p, u: p - learning_rate * u, parameters, updates), optimizer_state, norm


def evaluation_step(graphdef, parameters, buffers, batch):
    """A batch's summed loss, and what `answers` reads."""
    return summed_loss(nnx.merge(graphdef, parameters, buffers), batch)


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args, offsets=data_args.permutes())
    config = configs.load(model_args, data_args, tokenizer)
    noise = corruption.of_run(config, tokenizer, data_args)
    generation_config, search = decoding.of_run(model_args, data_args, config, tokenizer)
    model = models.load(model_args, data_args, args, config, "ForConditionalGeneration")
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    loss_unit = "nats per token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    whole = data.features(raw, to_features, columns, data_args)
    features = corruption.blocks(whole, noise, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, noise=noise, data_args=data_args)
    to_answers = partial(answers, search=search)
    to_scores = partial(score, data_args=data_args)
    to_files = partial(write_answers, columns=columns, tokenizer=tokenizer, noise=noise, data_args=data_args)
    size = models.count_parameters(model)
    training = run.start(model_args, data_args, args, raw, features, world, size, repository)

    # -------------------------------------------------------------------------------------------------- Steps
    shapes = devices.Shapes(TARGETS, tokenizer.pad_token_id, config, args)
    optimizer = optimization.optimizer(args)
    parameters = devices.place_parameters(parameters, world, args.fsdp)
    optimizer_state = jax.jit(optimizer.init)(parameters)
    no_gradients = jax.jit(lambda parameters: (jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters)))
    add = partial(add_gradients, graphdef, args.label_smoothing_factor)
    add = jax.jit(add, donate_argnames="sums")
    change = partial(update, optimizer, args.max_grad_norm)
    change = jax.jit(change, donate_argnames=("parameters", "optimizer_state"))
    evaluate_batch = jax.jit(partial(evaluation_step, graphdef))

    def train_step(parameters, optimizer_state, batches, learning_rate, step):
        """One optimizer step. Its loss is a mean over the targets of all batches and processes."""
        counts = sum(map(count_targets, batches)), sum(map(batching.tokens, batches))
        targets, tokens = world.sum(counts)
        # Dropout is a function of (seed, step), so that no generator state need be saved.
        keys = jax.random.split(jax.random.fold_in(jax.random.key(args.seed), step), len(batches))
        sums = no_gradients(parameters)
        for key, batch in zip(keys, batches, strict=True):
            placed = world.place(batch, args.per_device_train_batch_size, shapes)
            sums = add(parameters, buffers, sums, placed, training.divisor(targets), key)
        loss, gradients = sums
        parameters, optimizer_state, norm = change(parameters, optimizer_state, gradients, learning_rate)
        return parameters, optimizer_state, float(loss), float(norm), tokens

    def evaluate(split, prefix):
        """Metrics of all rows of a split, and an answer for each row in order."""
        model = nnx.merge(graphdef, parameters, buffers)
        evaluation = Evaluation(prefix, training)
        for rows, batch in evaluation.batches(features[split], to_batch, TARGETS):
            placed, found = world.place(batch, args.per_device_eval_batch_size, shapes), None
            loss, outputs = evaluate_batch(parameters, buffers, placed)
            if evaluation.wants_answers:
                found = world.own_rows(to_answers(model, placed, outputs), len(rows))
            # Each process has the loss of all rows.
            evaluation.add(rows, float(loss) / world.processes, count_targets(batch), found)
        return evaluation.result(to_scores, raw[split])

    def save_checkpoint():
        model = nnx.merge(graphdef, parameters, buffers)
        saving.save_checkpoint(training, model, config, generation_config, optimizer_state, tokenizer)

    def save_result():
        model = nnx.merge(graphdef, parameters, buffers)
        saving.save_result(training, model, config, generation_config, tokenizer)

    # ------------------------------------------------------------------------- Train (the same in every task)
    all_metrics = {}
    if args.do_train:
        parameters, optimizer_state = saving.restore(training, parameters, optimizer_state)
        steps = training.steps(features["train"], to_batch, TARGETS)
        with training.stoppable(then=save_checkpoint) as bar, devices.announced_compilation(bar.status):
            while not training.ended():
                if not training.evaluation_due():  # else a signal has cut an evaluation short
                    learning_rate = training.learning_rate
                    parameters, optimizer_state, loss, grad_norm, tokens = train_step(
                        parameters, optimizer_state, next(steps), learning_rate, training.step
                    )
                    training.stepped(loss, learning_rate, grad_norm, tokens)
                is_best = False
                if training.evaluation_due():
                    values, _ = evaluate("validation", "eval")
                    is_best = training.evaluated(values)
                if training.saves(is_best):
                    save_checkpoint()
        parameters = saving.best(training, parameters)
        save_result()
        all_metrics |= training.finish(loss_unit)

    # ---------------------------------------------------------------------- Evaluate (the same in every task)
    if args.do_eval:
        for split, prefix in data.parts(raw, "validation", "eval"):
            values, found = evaluate(split, prefix)
            all_metrics |= values
            to_files(args.output_dir, prefix, values, found, raw[split])

    # ----------------------------------------------------------------------- Predict (the same in every task)
    if args.do_predict:
        for split, prefix in data.parts(raw, "test", "predict"):
            values, found = evaluate(split, prefix)
            all_metrics |= values
            to_files(args.output_dir, prefix, values, found, raw[split])

    # ------------------------------------------------------------------------- Share (the same in every task)
    run.finish(model_args, data_args, TASK, all_metrics, training)


if __name__ == "__main__":
    run.main(main, *parsed)
