# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that tags words (names, parts of speech, chunks) in PyTorch, with the Trainer.

    python run_ner.py --model_name_or_path google-bert/bert-base-cased \\
        --train_file train.conll --validation_file validation.conll \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, precision, recall and F1 of entities,
and of each kind of them, `confusion_matrix.png` and `training_curve.png`. `--do_predict` writes those of
`--test_file` with their places in its texts.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "torch", "accelerate")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import tag_schema, windows
from triptych.metrics import tags
from triptych.models import configs, encoders, tokenizers
from triptych.output import pictures, results, tagged
from triptych.pytorch.trainer_arguments import TrainerArguments

TASK = "token-classification"
TARGETS = ("labels", "words")  # arrays of a batch that count for nothing where they are -100


@dataclass
class TokenClassificationArguments(arguments.TaggingArguments):
    """Token classification"""

    label_all_tokens: bool = flag(False, "train on all tokens of a word, not on its first alone")
    pad_to_max_length: bool = flag(False, "pad batches to whole windows instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, TokenClassificationArguments, TrainerArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification

from triptych.pytorch import devices, models
from triptych.pytorch.trainer import Trainer


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


def summed_loss(model, batch, label_smoothing=0.0):
    """Cross-entropy summed over the labelled tokens, and the logits (rows, length, tags)."""
    inputs = {name: tensor for name, tensor in batch.items() if name not in TARGETS}
    logits = model(**inputs).logits.float()
    every = logits.flatten(0, 1), batch["labels"].flatten()
    return cross_entropy(*every, reduction="sum", label_smoothing=label_smoothing), logits


def answers(model, batch, outputs):
    """For each row (length, 1 + tags): number of the word that begins there, and each tag's probability."""
    return torch.cat([batch["words"][:, :, None], outputs.softmax(dim=2)], dim=2).numpy(force=True)


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
    world = devices.of_trainer(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args, words=True)
    config = configs.load(model_args, data_args, tokenizer)
    schema = tag_schema.settle(config, raw, columns, data_args)
    model = models.load(model_args, data_args, args, config, AutoModelForTokenClassification)
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
    size = model.num_parameters()
    training = run.start(model_args, data_args, args, raw, features, world, size, repository)

    # ------------------------------------------------------------------------- Train (the same in every task)
    trainer = Trainer(
        training=training,
        world=world,
        model=model,
        processing_class=tokenizer,
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
