# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that answers questions from texts in PyTorch, with the Trainer.

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

require(">=0.2,<0.3", "torch", "accelerate")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import answer_spans, passages
from triptych.metrics import answer_scores
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.pytorch.trainer_arguments import TrainerArguments

TASK = "question-answering"
# Arrays of a batch that count for nothing where they are -100
TARGETS = ("start_positions", "end_positions", "starts", "ends")


@dataclass
class QuestionAnsweringArguments(arguments.QuestionArguments):
    """Question answering"""

    pad_to_max_length: bool = flag(False, "pad batches to whole windows instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, QuestionAnsweringArguments, TrainerArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import torch
from transformers import AutoModelForQuestionAnswering

from triptych.pytorch import devices, models
from triptych.pytorch.trainer import Trainer


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


def summed_loss(model, batch, label_smoothing=0.0):
    """The mean of the cross-entropies of start and end, summed over the windows, and the logits
    (rows, length, 2). Both are among the tokens that are there: how far a batch is padded changes nothing."""
    inputs = {name: tensor for name, tensor in batch.items() if name not in TARGETS}
    outputs = model(**inputs)
    logits = torch.stack([outputs.start_logits, outputs.end_logits], dim=2).float()
    is_there = batch["attention_mask"][:, :, None] == 1
    log_probabilities = logits.masked_fill(~is_there, -1e9).log_softmax(dim=1)
    targets = torch.stack([batch["start_positions"], batch["end_positions"]], dim=1)
    of_targets = log_probabilities.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    of_all = (log_probabilities * is_there).sum(dim=1) / is_there.sum(dim=1)
    losses = (label_smoothing - 1) * of_targets - label_smoothing * of_all
    return losses[targets != -100].sum() / 2, logits


def answers(model, batch, outputs):
    """For each row (length, 4): the logits of start and end of each token, and the characters where answers
    that begin or end there do. Of these the best spans are kept, see `answer_spans.best`."""
    return torch.cat([outputs, batch["starts"][:, :, None], batch["ends"][:, :, None]], dim=2).numpy(
        force=True
    )


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
    world = devices.of_trainer(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args, offsets=True)
    config = configs.load(model_args, data_args, tokenizer)
    reading = answer_spans.settle(config, raw, data_args)
    longest = passages.max_length(tokenizer, config, data_args)
    passages.require_room(raw, tokenizer, longest, data_args)
    model = models.load(model_args, data_args, args, config, AutoModelForQuestionAnswering)
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
