# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[flax]", "jinja2>=3.1.2,<4"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Train a model that finds hidden tokens in JAX: flax.nnx, optax, the loop written out.

    python run_mlm.py --model_name_or_path answerdotai/ModernBERT-base --train_file "docs/**/*.md" \\
        --validation_split_percentage 5 --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, perplexity and accuracy, and
`training_curve.png`. `--do_predict` writes the five likeliest tokens for each mask token of `--test_file` to
`predictions.tsv`.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "jax", "flax", "optax")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import masking
from triptych.flax.arguments import TrainingArguments
from triptych.metrics import fillings
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.run.evaluation import Evaluation

TASK = "fill-mask"
TARGETS = ("labels", "places")  # arrays of a batch that count for nothing where they are -100


@dataclass
class MaskedLanguageModelingArguments(arguments.MaskingArguments):
    """Masked language modeling"""

    pad_to_max_length: bool = flag(False, "pad batches to whole sequences instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, MaskedLanguageModelingArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from triptych.flax import devices, models, optimization, saving


def preprocess(rows, columns, tokenizer, data_args):
    """Texts of tokens, and where words begin."""
    return masking.tokenized(rows, columns, tokenizer, data_args)


def collate(rows, draws, tokenizer, vocabulary, config, longest, data_args):
    """One batch of padded int64 arrays from features by row: what the model reads, (rows, length), with
    hidden tokens; and of these `places` and `labels`, (rows, hidden), -100 where there are no more. Rows to
    predict have `given`, (rows,): 1 where a row's own mask tokens are to be filled, of which no label is
    known. `draws` decides what is hidden, anew in each epoch.
    """
    length = longest if data_args.pad_to_max_length else None
    batch = encoders.inputs(rows, tokenizer, config, length)
    masked = masking.mask(batch["input_ids"], rows, draws, vocabulary, data_args)
    given = {masking.GIVEN: np.array(rows[masking.GIVEN])} if masking.GIVEN in rows else {}
    return batch | masked._asdict() | given


def count_targets(batch):
    """How many targets the loss of a batch is summed over: hidden tokens."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, rngs=None):
    """Cross-entropy summed over the hidden tokens; for `answers` that of each, and the logits (rows, hidden,
    vocabulary): the head is computed there alone."""
    unread = ("labels", masking.GIVEN)
    inputs = {name: array for name, array in batch.items() if name not in unread}
    logits, labels = model(**inputs, rngs=rngs), batch["labels"]
    log_probabilities = jax.nn.log_softmax(logits)
    of_labels = jnp.take_along_axis(log_probabilities, jnp.maximum(labels, 0)[:, :, None], axis=2)[:, :, 0]
    losses = (label_smoothing - 1) * of_labels - label_smoothing * log_probabilities.mean(axis=2)
    losses = jnp.where(labels != -100, losses, 0)
    return losses.sum(), (losses, logits)


def answers(model, batch, outputs):
    """For each row (hidden, 4): place, label, nats, whether the label was the likeliest; of rows to predict
    behind these the likeliest tokens, and their probabilities."""
    (losses, logits), labels = outputs, batch["labels"]
    found = jnp.stack([batch["places"], labels, losses, logits.argmax(axis=-1) == labels], axis=2)
    if masking.GIVEN in batch:
        best = jax.lax.top_k(jax.nn.softmax(logits), min(fillings.BEST, logits.shape[-1]))
        found = jnp.concatenate([found, best[1], best[0]], axis=2)
    return found


def score(answers, rows):
    """Perplexity and accuracy."""
    return fillings.score(answers)


def write_answers(output_dir, prefix, values, answers, rows, tokenizer):
    """The metrics, and of a prediction the likeliest tokens for each place."""
    results.save_metrics(output_dir, prefix, values)
    if prefix.startswith("predict"):
        results.save_table(output_dir, fillings.table(answers, rows, tokenizer), "predictions.tsv")


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
    tokenizer = tokenizers.load(model_args, words=bool(data_args.words_column))
    config = configs.load(model_args, data_args, tokenizer)
    longest = masking.max_length(config, data_args)
    model = models.load(model_args, data_args, args, config, "ForMaskedLM")
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    loss_unit = "nats per masked token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    texts = data.features(raw, to_features, columns, data_args)
    features = masking.sequences(texts, tokenizer, longest, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    given = {"tokenizer": tokenizer, "vocabulary": masking.vocabulary(tokenizer), "data_args": data_args}
    to_batch = partial(collate, config=config, longest=longest, **given)
    to_answers, to_scores = answers, score
    to_files = partial(write_answers, tokenizer=tokenizer)
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
        saving.save_checkpoint(training, model, config, None, optimizer_state, tokenizer)

    def save_result():
        model = nnx.merge(graphdef, parameters, buffers)
        saving.save_result(training, model, config, None, tokenizer)

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
