# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[flax]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that picks the right one of several choices in JAX: flax.nnx, optax, the
loop written out.

    python run_multiple_choice.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

Rows may have different numbers of choices. The output folder then holds the model, `eval_results.json` with
loss and accuracy, and `training_curve.png`; `--do_predict` writes the choice of each row of `--test_file`.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "jax", "flax", "optax")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import choices
from triptych.flax.arguments import TrainingArguments
from triptych.metrics import choice_scores
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.run.evaluation import Evaluation

TASK = "multiple-choice"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class MultipleChoiceArguments(arguments.ChoiceArguments):
    """Multiple choice"""

    pad_to_max_length: bool = flag(False, "pad batches to --max_seq_length instead of their longest choices")


ARGUMENTS = (arguments.ModelArguments, MultipleChoiceArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import devices, models, optimization, saving


def preprocess(rows, columns, tokenizer, schema, longest, data_args):
    """Token ids of each choice behind context and question, of which the context alone is cut; and the place
    of the right one. Prediction needs no labels."""
    features = choices.tokenize(rows, tokenizer, longest)
    if schema.column in rows:
        features["labels"] = schema.encode(rows[schema.column])
    return features


def collate(rows, draws, tokenizer, config, longest, data_args):
    """One batch of padded arrays from features by row: what the model reads, int64 (rows, choices, length);
    `is_choice`, float32 (rows, choices), 0 where a row has fewer; and labels, int64 (rows,).

    Labels of rows without any do not count. `draws` is for tasks that draw at random.
    """
    length = longest if data_args.pad_to_max_length else None
    batch = encoders.inputs_of_choices(rows, tokenizer, config, length)
    batch["labels"] = np.array(rows.get("labels", [-100] * len(rows["input_ids"])), np.int64)
    return batch


def count_targets(batch):
    """How many targets the loss of a batch is summed over: rows with a label."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, rngs=None):
    """Cross-entropy of each row's right choice among its own, summed, and the logits (rows, choices)."""
    inputs = {name: array for name, array in batch.items() if name not in ("labels", "is_choice")}
    labels, is_choice = batch["labels"], batch["is_choice"]
    logits = jnp.where(is_choice == 0, -1e9, model(**inputs, rngs=rngs))
    log_probabilities = jax.nn.log_softmax(logits)
    of_labels = jnp.take_along_axis(log_probabilities, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
    # Rows that a batch was filled up with have no choices.
    of_all = (log_probabilities * is_choice).sum(axis=1) / jnp.maximum(1, is_choice.sum(axis=1))
    losses = (label_smoothing - 1) * of_labels - label_smoothing * of_all
    return jnp.where(labels != -100, losses, 0).sum(), logits


def answers(model, batch, outputs):
    """For each row the probability of each choice."""
    return jax.nn.softmax(outputs)


def score(answers, rows, schema):
    """The accuracy of the rows that have labels; nothing without any."""
    return choice_scores.score(schema.scored(answers, rows))


def write_answers(output_dir, prefix, values, answers, rows, schema):
    """The metrics and, where rows have different numbers of choices, those of each number; of a prediction a
    table of the rows' choices."""
    scores = choice_scores.by_number(schema.scored(answers, rows))
    results.save_metrics(output_dir, prefix, values | ({f"{prefix}_by_choices": scores} if scores else {}))
    if prefix.startswith("predict"):
        table = schema.table(answers, rows)
        results.save_table(output_dir, table, f"{prefix.replace('predict', 'predictions')}.tsv")


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
    schema = choices.settle(raw, columns)
    model = models.load(model_args, data_args, args, config, "ForMultipleChoice")
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    longest = choices.max_length(config, data_args)
    loss_unit = schema.loss_unit

    # ------------------------------------------------------------------------------------------------- Inputs
    given = {"tokenizer": tokenizer, "longest": longest, "data_args": data_args}
    to_features = partial(preprocess, columns=columns, schema=schema, **given)
    features = data.features(raw, to_features, columns, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, config=config, **given)
    to_answers = answers
    to_scores = partial(score, schema=schema)
    to_files = partial(write_answers, schema=schema)
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
