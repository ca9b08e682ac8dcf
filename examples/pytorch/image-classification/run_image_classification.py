# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]", "scikit-learn>=1.6,<2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that classifies pictures in PyTorch, with the Hugging Face Trainer.

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

require(">=0.2,<0.3", "torch", "accelerate", "sklearn")  # before imports that may fail

import numpy as np

from triptych import arguments, command_line, data, hub, metrics, run
from triptych.arguments import flag
from triptych.data import label_schema
from triptych.images import batches, mixing, processors
from triptych.metrics.labels import by_label, names_for, top_accuracy
from triptych.models import configs
from triptych.output import pictures, results, sheets
from triptych.pytorch.trainer_arguments import TrainerArguments

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


ARGUMENTS = (arguments.PictureModelArguments, ClassificationArguments, TrainerArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModelForImageClassification

from triptych.pytorch import devices, models
from triptych.pytorch.trainer import Trainer


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


def summed_loss(model, batch, label_smoothing=0.0):
    """Summed over targets, cross-entropy of a row's label, or of each of several, or the squared error; and
    the logits (rows, labels). A mixed picture has several labels, each with a weight."""
    logits, labels = model(pixel_values=batch["pixel_values"]).logits.float(), batch["labels"]
    if "label_weights" in batch:
        losses = cross_entropy(
            logits, batch["label_weights"], reduction="none", label_smoothing=label_smoothing
        )
    elif not labels.is_floating_point():
        losses = cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    elif labels.dim() == 1:
        losses = (logits[:, 0] - labels) ** 2
    else:
        smooth = labels * (1 - label_smoothing) + label_smoothing / 2
        losses = binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    return losses[labels != -100].sum(), logits


def answers(model, batch, outputs, problem_type):
    """For each row the probability of each label, or the value of a regression."""
    if problem_type == label_schema.REGRESSION:
        return outputs[:, 0].tolist()
    several = problem_type == label_schema.MULTI
    return (outputs.sigmoid() if several else outputs.softmax(dim=1)).tolist()


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


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world = devices.of_trainer(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    config = configs.load(model_args, data_args)
    processor = processors.load(model_args, data_args, config)
    schema = label_schema.settle(config, raw, columns.get("label"), data_args, args)
    model = models.load(model_args, data_args, args, config, AutoModelForImageClassification)
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
    size = model.num_parameters()
    training = run.start(model_args, data_args, args, raw, features, world, size, repository)

    # ------------------------------------------------------------------------- Train (the same in every task)
    trainer = Trainer(
        training=training,
        world=world,
        model=model,
        processing_class=processor,
        raw=raw,
        features=features,
        collate=to_batch,
        targets=TARGETS,
        count_targets=count_targets,
        summed_loss=summed_loss,
        answers=to_answers,
        score=to_scores,
    )
    evaluate, all_metrics = trainer.evaluate_split, {}
    if args.do_train:
        trainer.train_to_the_end()
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
