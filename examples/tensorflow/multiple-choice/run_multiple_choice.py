# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[tensorflow]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that picks the right one of several choices in TensorFlow: KerasHub, the
loop written out.

    python run_multiple_choice.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

Rows may have different numbers of choices. The output folder then holds the model, `eval_results.json` with
loss and accuracy, and `training_curve.png`; `--do_predict` writes the choice of each row of `--test_file`.
"""

import math
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "tensorflow", "keras_hub")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import choices
from triptych.metrics import choice_scores
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.tensorflow.arguments import TrainingArguments
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

import tensorflow as tf

from triptych.tensorflow import devices, models, optimization, saving


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


def summed_loss(model, batch, label_smoothing=0.0, training=False, seed=None):
    """Cross-entropy of each row's right choice among its own, summed, and the logits (rows, choices)."""
    labels, is_choice = batch["labels"], batch["is_choice"]
    logits = tf.where(is_choice == 0, -1e9, model(batch, training=training, seed=seed))
    log_probabilities = tf.nn.log_softmax(logits)
    of_labels = tf.gather(log_probabilities, tf.maximum(labels, 0), axis=1, batch_dims=1)
    of_all = tf.reduce_sum(log_probabilities * is_choice, axis=1) / tf.reduce_sum(is_choice, axis=1)
    losses = (label_smoothing - 1) * of_labels - label_smoothing * of_all
    return tf.reduce_sum(tf.where(labels != -100, losses, 0.0)), logits


def answers(model, batch, outputs):
    """For each row the probability of each choice."""
    return tf.nn.softmax(outputs)


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
    model = models.load(model_args, data_args, args, config, "ForMultipleChoice", world)
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
