# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[flax]", "scikit-learn>=1.6,<2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that classifies pictures in JAX: flax.nnx, optax, the loop written out.

    python run_image_classification.py --model_name_or_path google/vit-base-patch16-224-in21k \\
        --train_dir photos/train --validation_dir photos/validation \\
        --do_train --do_eval --output_dir out

A folder holds a folder of pictures for each class. The output folder then holds the model,
`eval_results.json` with loss, accuracy and the scores of each label, `confusion_matrix.png`, `samples.png`
with the pictures that it got wrong, and `training_curve.png`.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "jax", "flax", "optax", "sklearn")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, metrics, run
from triptych.arguments import flag
from triptych.data import label_schema
from triptych.flax.arguments import TrainingArguments
from triptych.images import batches, mixing, processors
from triptych.metrics.labels import by_label, names_for, top_accuracy
from triptych.models import configs
from triptych.output import pictures, results, sheets
from triptych.run.evaluation import Evaluation

TASK = "image-classification"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class ClassificationArguments(arguments.PictureArguments, arguments.LabelledArguments):
    """Image classification"""

    mixup_alpha: float = flag(0.0, "blend training pictures with others, by shares drawn from Beta(a, a)")
    cutmix_alpha: float = flag(0.0, "put parts of other pictures into training pictures, likewise")

    scores = (*arguments.LabelledArguments.scores, "top5_accuracy")

    def wanted_columns(self) -> dict[str, str | None]:
        return {**super().wanted_columns(), "label": self.label_column_name}

    def problems(self) -> list[str]:
        return super().problems() + mixing.problems(self)


ARGUMENTS = (arguments.PictureModelArguments, ClassificationArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import devices, models, optimization, saving


def preprocess(rows, schema):
    """Targets; prediction needs no labels. Pictures are decoded in `collate`."""
    return {"labels": schema.encode(rows[schema.column])} if schema.column in rows else {}


def collate(rows, draws, processor, config, data_args, partners):
    """One batch from features by row: pictures as the model sees them, and labels.

    `pixel_values` are float32 (rows, channels, height, width). Labels are int64 (rows,), of several a row
    float32 (rows, labels), of a regression float32 (rows,); those of rows without any, or with a broken
    picture, do not count. `partners` are the rows that training pictures are mixed with.
    """
    pixels, readable = batches.pixel_values(rows, draws, processor, data_args)
    several = config.problem_type == label_schema.MULTI
    unknown = [-100] * config.num_labels if several else -100
    labels = rows.get("labels", [unknown] * len(pixels))
    labels = np.array(labels, np.int64 if config.problem_type == label_schema.SINGLE else np.float32)
    labels[~readable] = -100
    batch = {"pixel_values": pixels, "labels": labels}
    return mixing.mixed(batch, draws, partners, processor, config.num_labels, data_args)


def count_targets(batch):
    """How many targets the loss of a batch is summed over: rows, or labels where a row may have several."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, rngs=None):
    """Summed over targets, cross-entropy of a row's label, or of each of several, or the squared error; and
    the logits (rows, labels). A mixed picture has several labels, each with a weight."""
    logits, labels = model(pixel_values=batch["pixel_values"], rngs=rngs), batch["labels"]
    if jnp.issubdtype(labels.dtype, jnp.integer):
        weights = batch.get("label_weights", jax.nn.one_hot(labels, logits.shape[1]))
        smooth = weights * (1 - label_smoothing) + label_smoothing / logits.shape[1]
        losses = -(smooth * jax.nn.log_softmax(logits)).sum(axis=1)
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
    return found | top_accuracy(schema, answers, rows)


def write_answers(output_dir, prefix, values, answers, rows, schema, columns):
    """The metrics and, where labels are known, the scores of each; some of the pictures with what was said of
    them; of an evaluation the confusion matrix, and of a prediction a table of its rows."""
    scores = by_label(schema.scored(answers, rows), schema.names)
    results.save_metrics(output_dir, prefix, values | ({f"{prefix}_by_label": scores} if scores else {}))
    if prefix == "eval":
        pictures.save_confusion(output_dir, scores)
    if prefix.startswith("predict"):
        table = sheets.with_names(schema.table(answers, rows[data.NUMBER]), rows, columns["image"])
        results.save_table(output_dir, table, f"{prefix.replace('predict', 'predictions')}.tsv")
    sheets.save(output_dir, prefix, answers, rows, columns["image"], schema)


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
    config = configs.load(model_args, data_args)
    processor = processors.load(model_args, data_args, config)
    schema = label_schema.settle(config, raw, columns.get("label"), data_args, args)
    model = models.load(model_args, data_args, args, config, "ForImageClassification")
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    metric_names = names_for(schema.problem_type, data_args.metric_name, args)
    loss_unit = schema.loss_unit

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, schema=schema)
    features = data.features(raw, to_features, columns, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(
        collate, processor=processor, config=config, data_args=data_args, partners=features.get("train")
    )
    to_answers = partial(answers, problem_type=schema.problem_type)
    to_scores = partial(score, schema=schema, metric_names=metric_names)
    to_files = partial(write_answers, schema=schema, columns=columns)
    size = models.count_parameters(model)
    training = run.start(model_args, data_args, args, raw, features, world, size, repository)

    # -------------------------------------------------------------------------------------------------- Steps
    shapes = devices.Shapes(TARGETS, None, config, args)
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
        saving.save_checkpoint(training, model, config, None, optimizer_state, processor)

    def save_result():
        model = nnx.merge(graphdef, parameters, buffers)
        saving.save_result(training, model, config, None, processor)

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
