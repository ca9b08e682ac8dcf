# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[tensorflow]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that tags words in TensorFlow: KerasHub, the loop written out.

    python run_ner.py --model_name_or_path google-bert/bert-base-cased \\
        --train_file train.conll --validation_file validation.conll \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, precision, recall and F1 of entities,
and of each kind of them, `confusion_matrix.png` and `training_curve.png`. `--do_predict` writes those of
`--test_file` with their places in its texts.
"""

import math
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "tensorflow", "keras_hub")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import tag_schema, windows
from triptych.metrics import tags
from triptych.models import configs, encoders, tokenizers
from triptych.output import pictures, results, tagged
from triptych.tensorflow.arguments import TrainingArguments
from triptych.run.evaluation import Evaluation

TASK = "token-classification"
TARGETS = ("labels", "words")  # arrays of a batch that count for nothing where they are -100


@dataclass
class TokenClassificationArguments(arguments.TaggingArguments):
    """Token classification"""

    label_all_tokens: bool = flag(False, "train on all tokens of a word, not on its first alone")
    pad_to_max_length: bool = flag(False, "pad batches to whole windows instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, TokenClassificationArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import tensorflow as tf

from triptych.tensorflow import devices, models, optimization, saving


def preprocess(rows, columns, tokenizer, schema, longest, data_args):
    """Token ids of words, and targets, in windows: long rows have several. Prediction needs no tags."""
    words, known = rows[columns["tokens"]], columns.get("tags") in rows
    numbers = schema.encode(rows[columns["tags"]]) if known else None
    return windows.cut(words, numbers, tokenizer, data_args, longest, schema.inside)


def collate(rows, draws, tokenizer, config, longest, data_args):
    """One batch of padded arrays from features by row: what the model reads, the labels, and at the first
    token of a word the word's number in its row; all int64 (rows, length).

    Labels and numbers are -100 where there are none. `draws` is for tasks that draw at random.
    """
    length = longest if data_args.pad_to_max_length else None
    batch = encoders.inputs(rows, tokenizer, config, length)
    return batch | {name: batching.pad(rows[name], -100, length) for name in TARGETS}


def count_targets(batch):
    """How many targets the loss of a batch is summed over: labelled tokens."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, training=False, seed=None):
    """Cross-entropy summed over the labelled tokens, and the logits (rows, length, tags)."""
    logits, labels = model(batch, training=training, seed=seed), batch["labels"]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    of_all_tags = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
    losses = (1 - label_smoothing) * losses + label_smoothing * of_all_tags
    return tf.reduce_sum(tf.where(labels != -100, losses, 0.0)), logits


def answers(model, batch, outputs):
    """For each row (length, 1 + tags): number of the word that begins there, and each tag's probability."""
    words = tf.cast(batch["words"], outputs.dtype)[:, :, None]
    return tf.concat([words, tf.nn.softmax(outputs)], axis=2)


def score(answers, rows, columns, schema):
    """Precision, recall and F1 of entities and accuracy of words, for the rows that have tags."""
    return tags.score(schema.scored(answers, rows, columns["tokens"]), schema)


def write_answers(output_dir, prefix, values, answers, rows, columns, schema, data_args):
    """The metrics and, where tags are known, those of each label; of an evaluation the confusion matrix; of a
    prediction the tags of rows, words with their tags, and entities with their places in the texts."""
    scored = schema.scored(answers, rows, columns["tokens"])
    scores = tags.by_label(scored, schema) if data_args.return_entity_level_metrics else {}
    results.save_metrics(output_dir, prefix, values | ({f"{prefix}_by_label": scores} if scores else {}))
    if prefix == "eval":
        pictures.save_confusion(output_dir, tags.confusion(scored, schema), unit="words")
    if prefix.startswith("predict"):
        found = tagged.of_answers(answers, rows, columns, schema)
        lines = data.by_source(tagged.tag_lines(found), rows)
        results.save_predictions(output_dir, lines, "predictions.txt")
        results.save_predictions(output_dir, tagged.conll_lines(found), "predictions.conll")
        if schema.marks_entities:
            lines = tagged.entity_lines(found, schema.scheme)
            results.save_predictions(output_dir, lines, "entities.jsonl")


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args, words=True)
    config = configs.load(model_args, data_args, tokenizer)
    schema = tag_schema.settle(config, raw, columns, data_args)
    model = models.load(model_args, data_args, args, config, "ForTokenClassification", world)
    longest = windows.max_length(tokenizer, config, data_args)
    loss_unit = schema.loss_unit

    # ------------------------------------------------------------------------------------------------- Inputs
    given = {"tokenizer": tokenizer, "longest": longest, "data_args": data_args}
    to_features = partial(preprocess, columns=columns, schema=schema, **given)
    features = data.features(raw, to_features, columns, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, config=config, **given)
    to_answers = answers
    to_scores = partial(score, columns=columns, schema=schema)
    to_files = partial(write_answers, columns=columns, schema=schema, data_args=data_args)
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
