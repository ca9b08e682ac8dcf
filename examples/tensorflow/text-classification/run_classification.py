# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[tensorflow]", "scikit-learn>=1.6,<2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that classifies or scores texts in TensorFlow: KerasHub, the loop written out.

    python run_classification.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, accuracy and the scores of each label,
`confusion_matrix.png` and `training_curve.png`. `--task_name mrpc` and the like do a task of GLUE.
"""

import math
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "tensorflow", "keras_hub", "sklearn")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, metrics, run
from triptych.arguments import flag
from triptych.data import glue, label_schema
from triptych.data.columns import text_roles
from triptych.metrics.labels import by_label, names_for
from triptych.models import configs, encoders, tokenizers
from triptych.output import pictures, results
from triptych.tensorflow.arguments import TrainingArguments
from triptych.run.evaluation import Evaluation

TASK = "text-classification"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class ClassificationArguments(arguments.LabelArguments):
    """Text classification"""

    task_name: str | None = flag(None, "GLUE task, which says dataset, columns, metrics", tuple(glue.TASKS))
    text_column_names: str | None = flag(None, "column of the texts, or two for pairs: premise,hypothesis")
    max_seq_length: int = flag(128, "cut texts to this many tokens")
    pad_to_max_length: bool = flag(False, "pad batches to --max_seq_length instead of their longest rows")

    def __post_init__(self):
        glue.fill_in(self)

    def wanted_columns(self) -> dict[str, str | None]:
        texts = text_roles(self.text_column_names, self.text_column_delimiter)
        return {**texts, "label": self.label_column_name}


ARGUMENTS = (arguments.ModelArguments, ClassificationArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import tensorflow as tf

from triptych.tensorflow import devices, models, optimization, saving


def preprocess(rows, columns, tokenizer, schema, data_args):
    """Token ids of texts or pairs of texts, and targets; prediction needs no labels."""
    texts = [rows[columns[role]] for role in ("text", "text_pair") if role in columns]
    encoded = tokenizer(*texts, max_length=data_args.max_seq_length, truncation=True)
    features = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    if schema.column in rows:
        features["labels"] = schema.encode(rows[schema.column])
    return features


def collate(rows, draws, tokenizer, config, data_args):
    """One batch of padded arrays from features by row: what the model reads, and labels.

    Labels are int64 (rows,), of several a row float32 (rows, labels), of a regression float32 (rows,); those
    of rows without any do not count. `draws` is for tasks that draw at random.
    """
    length = data_args.max_seq_length if data_args.pad_to_max_length else None
    batch = encoders.inputs(rows, tokenizer, config, length)
    several = config.problem_type == label_schema.MULTI
    unknown = [-100] * config.num_labels if several else -100
    labels = rows.get("labels", [unknown] * len(rows["input_ids"]))
    batch["labels"] = np.array(labels, np.int64 if config.problem_type == label_schema.SINGLE else np.float32)
    return batch


def count_targets(batch):
    """How many targets the loss of a batch is summed over: rows, or labels where a row may have several."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, training=False, seed=None):
    """Summed over targets, cross-entropy of a row's label, or of each of several, or the squared error; and
    the logits (rows, labels)."""
    logits, labels = model(batch, training=training, seed=seed), batch["labels"]
    if labels.dtype.is_integer:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        of_all_labels = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * of_all_labels
    elif labels.shape.rank == 1:
        losses = (logits[:, 0] - labels) ** 2
    else:
        smooth = labels * (1 - label_smoothing) + label_smoothing / 2
        losses = tf.nn.sigmoid_cross_entropy_with_logits(smooth, logits)
    return tf.reduce_sum(tf.where(labels != -100, losses, 0.0)), logits


def answers(model, batch, outputs, problem_type):
    """For each row the probability of each label, or the value of a regression."""
    if problem_type == label_schema.REGRESSION:
        return outputs[:, 0]
    return tf.sigmoid(outputs) if problem_type == label_schema.MULTI else tf.nn.softmax(outputs)


def score(answers, rows, schema, metric_names):
    """The metrics of those names, of the rows that have labels; nothing without any."""
    if (scored := schema.scored(answers, rows)) is None:
        return {}
    (predictions, references), found = scored, {}
    for name in metric_names:
        found |= metrics.load(name).compute(predictions=predictions, references=references)
    return found


def write_answers(output_dir, prefix, values, answers, rows, schema):
    """The metrics and, where labels are known, the scores of each; of an evaluation the confusion matrix, and
    of a prediction a table of its rows."""
    scores = by_label(schema.scored(answers, rows), schema.names)
    results.save_metrics(output_dir, prefix, values | ({f"{prefix}_by_label": scores} if scores else {}))
    if prefix == "eval":
        pictures.save_confusion(output_dir, scores)
    if prefix.startswith("predict"):
        table = schema.table(answers, rows[data.NUMBER])
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
    schema = label_schema.settle(config, raw, columns.get("label"), data_args, args)
    model = models.load(model_args, data_args, args, config, "ForSequenceClassification", world)
    metric_names = names_for(schema.problem_type, data_args.metric_name, args)
    loss_unit = schema.loss_unit

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(
        preprocess, columns=columns, tokenizer=tokenizer, schema=schema, data_args=data_args
    )
    features = data.features(raw, to_features, columns, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, data_args=data_args)
    to_answers = partial(answers, problem_type=schema.problem_type)
    to_scores = partial(score, schema=schema, metric_names=metric_names)
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
