# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[tensorflow]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that answers questions from texts in TensorFlow: KerasHub, the loop written out.

    python run_qa.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train-v2.0.json --validation_file dev-v2.0.json --version_2_with_negative \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, exact match and F1, the answers in
`eval_predictions.json` and `eval_nbest_predictions.json`, and `training_curve.png`. `--do_predict` writes
those to the questions of `--test_file`.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from triptych import require

require(">=0.2,<0.3", "tensorflow", "keras_hub")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import answer_spans, passages
from triptych.metrics import answer_scores
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.tensorflow.arguments import TrainingArguments
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

import tensorflow as tf

from triptych.tensorflow import devices, models, optimization, saving


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


def summed_loss(model, batch, label_smoothing=0.0, training=False, seed=None):
    """The mean of the cross-entropies of start and end, summed over the windows, and the logits
    (rows, length, 2). Both are among the tokens that are there: how far a batch is padded changes nothing."""
    logits = model(batch, training=training, seed=seed)
    is_there = batch["attention_mask"][:, :, None] == 1
    log_probabilities = tf.nn.log_softmax(tf.where(is_there, logits, -1e9), axis=1)
    targets = tf.stack([batch["start_positions"], batch["end_positions"]], axis=1)
    by_side = tf.transpose(log_probabilities, [0, 2, 1])
    of_targets = tf.gather(by_side, tf.maximum(targets, 0), batch_dims=2)
    of_all = tf.reduce_sum(tf.where(is_there, log_probabilities, 0.0), axis=1)
    of_all /= tf.maximum(1.0, tf.reduce_sum(tf.cast(is_there, of_all.dtype), axis=1))
    losses = (label_smoothing - 1) * of_targets - label_smoothing * of_all
    return tf.reduce_sum(tf.where(targets != -100, losses, 0.0)) / 2, logits


def answers(model, batch, outputs):
    """For each row (length, 4): the logits of start and end of each token, and the characters where answers
    that begin or end there do. Of these the best spans are kept, see `answer_spans.best`."""
    characters = tf.stack([batch["starts"], batch["ends"]], axis=2)
    return tf.concat([outputs, tf.cast(characters, outputs.dtype)], axis=2)


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
    model = models.load(model_args, data_args, args, config, "ForQuestionAnswering", world)
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
    with world.strategy.scope():
        optimizer = optimization.optimizer(model, args)
        sums = devices.zeros_like(model.trainable_variables)
    loss_scale = optimization.LossScale(args.fp16, training.state)
    save_checkpoint = partial(saving.save_checkpoint, training, model, None, optimizer, tokenizer)
    save_result = partial(saving.save_result, training, model, None, tokenizer)

    @world.program
    def add_gradients(batch, targets, scale, seed):
        """A batch's part of the step's mean loss; its gradients are added to those of the batches before."""
        dropout = {"training": True, "seed": devices.own_seed(seed)}
        with tf.GradientTape() as tape:
            loss, _ = summed_loss(model, batch, args.label_smoothing_factor, **dropout)
            loss = loss / targets
            scaled_loss = loss * scale
        gradients = tape.gradient(scaled_loss, model.trainable_variables)
        for total, gradient in zip(sums, gradients, strict=True):
            total.assign_add(gradient)
        return devices.sum_over_devices(loss)

    @world.program
    def update(learning_rate, scale):
        """Changes the variables by the added gradients, and returns the norm that these had."""
        gradients = devices.sum_over_devices([total / scale for total in sums])
        gradients, norm = optimization.clip_by_global_norm(gradients, args.max_grad_norm)
        optimizer.learning_rate.assign(learning_rate)
        optimizer.apply(gradients, model.trainable_variables)
        for total in sums:
            total.assign(tf.zeros_like(total))
        return norm

    @world.program
    def evaluation_step(batch, wants_answers):
        """A batch's summed loss, and an answer for each row if wanted."""
        loss, outputs = summed_loss(model, batch)
        found = to_answers(model, batch, outputs) if wants_answers else ()
        return devices.sum_over_devices(loss), found

    def train_step(batches, learning_rate, step):
        """One optimizer step. Its loss is a mean over the targets of all batches and devices."""
        targets, tokens = sum(map(count_targets, batches)), sum(map(batching.tokens, batches))
        loss = 0.0
        for number, batch in enumerate(batches):
            # Dropout is a function of (seed, step, batch), so that no generator state need be saved.
            seed = (args.seed + 1_000_003 * step + 7919 * number) % 2**31
            loss += add_gradients(batch, float(training.divisor(targets)), loss_scale.value, seed)
        grad_norm = update(learning_rate, loss_scale.value)
        loss_scale.update(math.isfinite(grad_norm))
        return loss, grad_norm, tokens

    def evaluate(split, prefix):
        """Metrics of all rows of a split, and an answer for each row in order."""
        evaluation = Evaluation(prefix, training)
        for rows, batch in evaluation.batches(features[split], to_batch, TARGETS):
            loss, found = evaluation_step(batch, evaluation.wants_answers)
            evaluation.add(rows, loss, count_targets(batch), world.gather(found))
        return evaluation.result(to_scores, raw[split], whole=True)

    # ------------------------------------------------------------------------- Train (the same in every task)
    all_metrics = {}
    if args.do_train:
        saving.restore(training, model, optimizer)
        steps = training.steps(features["train"], to_batch, TARGETS)
        with training.stoppable(then=save_checkpoint):
            while not training.ended():
                if not training.evaluation_due():  # else a signal has cut an evaluation short
                    learning_rate = training.learning_rate
                    loss, grad_norm, tokens = train_step(next(steps), learning_rate, training.step)
                    training.stepped(loss, learning_rate, grad_norm, tokens)
                is_best = False
                if training.evaluation_due():
                    values, _ = evaluate("validation", "eval")
                    is_best = training.evaluated(values)
                if training.saves(is_best):
                    save_checkpoint()
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
