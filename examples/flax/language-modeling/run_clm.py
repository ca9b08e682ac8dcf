# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[flax]", "jinja2>=3.1.2,<4"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Train a model that continues texts in JAX: flax.nnx, optax, the loop written out.

    python run_clm.py --model_name_or_path HuggingFaceTB/SmolLM2-135M --train_file "src/**/*.py" \\
        --validation_split_percentage 5 --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, perplexity and bits per byte, and
`training_curve.png`. `--do_predict` writes the perplexity of each row of `--test_file` to `predictions.tsv`;
with `--max_new_tokens` it writes how each goes on to `generated_predictions.txt`.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "jax", "flax", "optax")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import documents, packing
from triptych.flax.arguments import TrainingArguments
from triptych.metrics import perplexity
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
from triptych.run.evaluation import Evaluation

TASK = "text-generation"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class LanguageModelingArguments(arguments.CausalArguments):
    """Language modeling"""

    pad_to_max_length: bool = flag(False, "pad batches to whole blocks instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, LanguageModelingArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import devices, models, optimization, saving
from triptych.flax.generation import generate


def preprocess(rows, columns, tokenizer, data_args):
    """Documents of tokens, and what follows each token."""
    return documents.tokenized(rows, columns, tokenizer, data_args)


def collate(rows, draws, longest, data_args):
    """One batch of arrays (rows, length) from features by row: token ids; `position_ids`, which begin anew
    with each document; `labels`, behind each token the one to predict, -100 where there is none; and
    `attention_mask`, where there are tokens: the model needs none. Prompts to be continued have `drawn`,
    numbers by which tokens are sampled.
    """
    length = longest if data_args.pad_to_max_length else None
    batch = {
        "input_ids": batching.pad(rows["input_ids"], 0, length),
        "position_ids": batching.pad(packing.positions(rows), 0, length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, length),
        "labels": batching.pad(rows["labels"], -100, length),
    }
    are_prompts = packing.PIECES not in rows
    return batch | (decoding.drawn(draws, data_args.max_new_tokens) if are_prompts else {})


def count_targets(batch):
    """How many targets the loss of a batch is summed over: tokens to predict."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, rngs=None):
    """Cross-entropy summed over the tokens to predict; for `answers` of each, with the likeliest tokens."""
    logits = model(batch["input_ids"], batch["position_ids"], rngs=rngs)
    log_probabilities, labels = jax.nn.log_softmax(logits.astype(jnp.float32)), batch["labels"]
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)  # no token is, at -100
    of_labels = log_probabilities.sum(axis=-1, where=is_label)
    losses = (1 - label_smoothing) * of_labels + label_smoothing * log_probabilities.mean(axis=-1)
    losses = jnp.where(labels != -100, -losses, 0)
    return losses.sum(), (losses, logits.argmax(axis=-1))


def answers(model, batch, outputs, search):
    """For each row (length, 4): nats, whether the token was the likeliest, whether there was one to predict,
    and its position, of which the sums of each document are kept; for prompts the tokens that follow."""
    if decoding.DRAWN in batch:
        return generate(model, batch, search)
    (losses, likeliest), labels = outputs, batch["labels"]
    columns = losses, likeliest == labels, labels != -100, batch["position_ids"]
    return jnp.stack([column.astype(jnp.float32) for column in columns], axis=2)


def score(answers, rows, data_args):
    """Perplexity, accuracy and bits per byte; nothing of prompts."""
    return {} if data_args.continues(rows) else perplexity.score(answers, rows)


def write_answers(output_dir, prefix, values, answers, rows, tokenizer, data_args):
    """The metrics, and those of each source; of a prediction how well each row of the file was foreseen, or
    how it goes on."""
    sources = {} if data_args.continues(rows) else perplexity.by_source(answers, rows)
    results.save_metrics(output_dir, prefix, values | ({f"{prefix}_by_source": sources} if sources else {}))
    if data_args.continues(rows):
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        results.save_predictions(output_dir, data.by_source(texts, rows))
    elif prefix.startswith("predict"):
        results.save_table(output_dir, perplexity.table(answers, rows), "predictions.tsv")


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
    tokenizer = tokenizers.load(model_args)
    config = configs.load(model_args, data_args, tokenizer)
    longest = packing.block_size(config, data_args)
    model = models.load(model_args, data_args, args, config, "ForCausalLM")
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    generation_config, search = decoding.of_run(model_args, data_args, config, tokenizer)
    loss_unit = "nats per token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    whole = data.features(raw, to_features, columns, data_args)
    whole = documents.with_holes(whole, tokenizer, data_args, args.data_seed)
    features, raw = packing.pack(whole, longest, config, data_args), documents.with_bytes(raw, whole)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, longest=longest, data_args=data_args)
    to_answers = partial(answers, search=search)
    to_scores = partial(score, data_args=data_args)
    to_files = partial(write_answers, tokenizer=tokenizer, data_args=data_args)
    size = models.count_parameters(model)
    training = run.start(model_args, data_args, args, raw, features, world, size, repository)

    # -------------------------------------------------------------------------------------------------- Steps
    shapes = devices.Shapes(TARGETS, 0, config, args)
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
