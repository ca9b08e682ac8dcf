# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[flax]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that answers questions from texts in JAX: flax.nnx, optax, the loop written out.

    python run_qa.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train-v2.0.json --validation_file dev-v2.0.json --version_2_with_negative \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, exact match and F1, the answers in
`eval_predictions.json` and `eval_nbest_predictions.json`, and `training_curve.png`. `--do_predict` writes
those to the questions of `--test_file`.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from triptych import require

require(">=0.2,<0.3", "jax", "flax", "optax")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import answer_spans, passages
from triptych.flax.arguments import TrainingArguments
from triptych.metrics import answer_scores
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.run.evaluation import Evaluation

TASK = "question-answering"
# Arrays of a batch that count for nothing where they are -100
TARGETS = ("start_positions", "end_positions", "starts", "ends")


@dataclass
class QuestionAnsweringArguments(arguments.QuestionArguments):
    """Question answering"""

    pad_to_max_length: bool = flag(False, "pad batches to whole windows instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, QuestionAnsweringArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import devices, models, optimization, saving


def preprocess(rows, columns, tokenizer, longest, data_args):
    """Token ids of questions with contexts in windows, and where answers may and do begin and end."""
    answers = rows.get(columns.get("answers"))
    return passages.cut(rows["question"], rows["context"], answers, tokenizer, data_args, longest)


def collate(rows, draws, tokenizer, config, longest, data_args):
    """One batch of arrays from features by row: what the model reads; `start_positions` and `end_positions`,
    int64 (rows,), the tokens where the answer begins and ends; `starts` and `ends`, int64 (rows, length), the
    characters where one would that begins or ends at a token.

    They are -100 where there are none. `draws` is for tasks that draw at random.
    """
    length = longest if data_args.pad_to_max_length else None
    batch = encoders.inputs(rows, tokenizer, config, length)
    batch |= {name: np.array(rows[name], np.int64) for name in ("start_positions", "end_positions")}
    return batch | {name: batching.pad(rows[name], -100, length) for name in ("starts", "ends")}


def count_targets(batch):
    """How many targets the loss of a batch is summed over: windows whose answers are known."""
    return int((batch["start_positions"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, rngs=None):
    """The mean of the cross-entropies of start and end, summed over the windows, and the logits
    (rows, length, 2). Both are among the tokens that are there: how far a batch is padded changes nothing."""
    inputs = {name: array for name, array in batch.items() if name not in TARGETS}
    logits = model(**inputs, rngs=rngs)
    is_there = batch["attention_mask"][:, :, None] == 1
    log_probabilities = jax.nn.log_softmax(jnp.where(is_there, logits, -1e9), axis=1)
    targets = jnp.stack([batch["start_positions"], batch["end_positions"]], axis=1)
    of_targets = jnp.take_along_axis(log_probabilities, jnp.maximum(targets, 0)[:, None], axis=1)[:, 0]
    of_all = (log_probabilities * is_there).sum(axis=1) / jnp.maximum(1, is_there.sum(axis=1))
    losses = (label_smoothing - 1) * of_targets - label_smoothing * of_all
    return jnp.where(targets != -100, losses, 0).sum() / 2, logits


def answers(model, batch, outputs):
    """For each row (length, 4): the logits of start and end of each token, and the characters where answers
    that begin or end there do. Of these the best spans are kept, see `answer_spans.best`."""
    return jnp.concatenate([outputs, batch["starts"][:, :, None], batch["ends"][:, :, None]], axis=2)


def score(answers, rows, reading):
    """Exact match and F1, for the rows whose answers are known."""
    return answer_scores.score(answers, rows, reading)


def write_answers(output_dir, prefix, values, answers, rows, reading):
    """The metrics and, by the ids of the rows, their answers, the best candidates for these with places in
    the context and probabilities, and how much higher no answer scores than the best."""
    results.save_metrics(output_dir, prefix, values)
    found = reading.rows(answers, rows)
    results.save_by_id(output_dir, {row.id: row.text for row in found}, f"{prefix}_predictions.json")
    candidates = {row.id: [one._asdict() for one in row.candidates] for row in found}
    results.save_by_id(output_dir, candidates, f"{prefix}_nbest_predictions.json")
    if reading.may_lack:
        results.save_by_id(output_dir, {row.id: row.null_odds for row in found}, f"{prefix}_null_odds.json")
    if prefix == "eval":
        answer_spans.keep_threshold(output_dir, reading)


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
    tokenizer = tokenizers.load(model_args, offsets=True)
    config = configs.load(model_args, data_args, tokenizer)
    reading = answer_spans.settle(config, raw, data_args)
    longest = passages.max_length(tokenizer, config, data_args)
    passages.require_room(raw, tokenizer, longest, data_args)
    model = models.load(model_args, data_args, args, config, "ForQuestionAnswering")
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    loss_unit = reading.loss_unit

    # ------------------------------------------------------------------------------------------------- Inputs
    given = {"tokenizer": tokenizer, "longest": longest, "data_args": data_args}
    to_features = partial(preprocess, columns=columns, **given)
    features = data.features(raw, to_features, columns, data_args)
    passages.tell_answers_outside(raw, features)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, config=config, **given)
    to_answers = answers
    to_scores = partial(score, reading=reading)
    to_files = partial(write_answers, reading=reading)
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
