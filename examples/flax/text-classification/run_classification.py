# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[flax]", "scikit-learn>=1.6,<2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that classifies or scores texts in JAX: flax.nnx, optax, the loop written out.

    python run_classification.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, accuracy and the scores of each label,
`confusion_matrix.png` and `training_curve.png`. `--task_name mrpc` and the like do a task of GLUE.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "jax", "flax", "optax", "sklearn")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, metrics, run
from triptych.arguments import flag
from triptych.data import glue, label_schema
from triptych.data.columns import text_roles
from triptych.flax.arguments import TrainingArguments
from triptych.metrics.labels import by_label, names_for
from triptych.models import configs, encoders, tokenizers
from triptych.output import pictures, results
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

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import devices, models, optimization, saving


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


def summed_loss(model, batch, label_smoothing=0.0, rngs=None):
    """Summed over targets, cross-entropy of a row's label, or of each of several, or the squared error; and
    the logits (rows, labels)."""
    inputs = {name: array for name, array in batch.items() if name != "labels"}
    logits, labels = model(**inputs, rngs=rngs), batch["labels"]
    if jnp.issubdtype(labels.dtype, jnp.integer):
        log_probabilities = jax.nn.log_softmax(logits)
        of_labels = jnp.take_along_axis(log_probabilities, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
        losses = (label_smoothing - 1) * of_labels - label_smoothing * log_probabilities.mean(axis=1)
    elif labels.ndim == 1:
        losses = (logits[:, 0] - labels) ** 2
    else:
        smooth = labels * (1 - label_smoothing) + label_smoothing / 2
        losses = jnp.logaddexp(0, logits) - smooth * logits
    return jnp.where(labels != -100, losses, 0).sum(), logits


def answers(model, batch, outputs, problem_type):
    """For each row the probability of each label, or the value of a regression."""
    if problem_type == label_schema.REGRESSION:
        return outputs[:, 0]
    return jax.nn.sigmoid(outputs) if problem_type == label_schema.MULTI else jax.nn.softmax(outputs)


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
    schema = label_schema.settle(config, raw, columns.get("label"), data_args, args)
    model = models.load(model_args, data_args, args, config, "ForSequenceClassification")
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
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
