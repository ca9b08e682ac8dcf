# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that answers questions from texts in PyTorch: the loop on Accelerate.

    python run_qa_no_trainer.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train-v2.0.json --validation_file dev-v2.0.json --version_2_with_negative \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, exact match and F1, the answers in
`eval_predictions.json` and `eval_nbest_predictions.json`, and `training_curve.png`. `--do_predict` writes
those to the questions of `--test_file`.
"""

import math
from contextlib import nullcontext
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
from triptych.pytorch.arguments import TrainingArguments
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

import torch
from transformers import AutoModelForQuestionAnswering

from triptych.pytorch import devices, models, optimization, saving


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
    world, accelerator = devices.start(args)
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

    # -------------------------------------------------------------------------------------------------- Steps
    model, plain_model = devices.wrap(model, accelerator, world)
    optimizer = accelerator.prepare_optimizer(optimization.optimizer(plain_model, args))
    save_checkpoint = partial(saving.save_checkpoint, training, plain_model, optimizer, tokenizer)
    save_result = partial(saving.save_result, training, plain_model, tokenizer)

    def train_step(batches, learning_rate, step):
        """One optimizer step. Its loss is a mean over the targets of all batches and processes."""
        model.train()
        optimization.begin_step(optimizer, learning_rate, args.seed, step, world.process)
        counts = sum(map(count_targets, batches)), sum(map(batching.tokens, batches))
        targets, tokens = map(int, world.sum(counts))
        step_loss = 0.0
        for number, batch in enumerate(batches, start=1):
            # The last backward pass averages the gradients of all of them over the processes.
            with accelerator.no_sync(model) if number < len(batches) else nullcontext():
                loss, _ = summed_loss(model, world.put(batch), args.label_smoothing_factor)
                loss = loss / training.divisor(targets)
                accelerator.backward(loss * world.processes)
            step_loss += loss.detach()
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        (loss,) = world.sum([step_loss])
        return loss, devices.whole(grad_norm).item(), tokens

    @torch.no_grad()
    @devices.gathered(plain_model)
    def evaluate(split, prefix):
        """Metrics of all rows of a split, and an answer for each row in order."""
        plain_model.eval()
        evaluation = Evaluation(prefix, training)
        for rows, batch in evaluation.batches(features[split], to_batch, TARGETS):
            placed = world.put(batch)
            loss, outputs = summed_loss(plain_model, placed)
            found = to_answers(plain_model, placed, outputs) if evaluation.wants_answers else None
            evaluation.add(rows, loss.item(), count_targets(batch), found)
        return evaluation.result(to_scores, raw[split])

    # ------------------------------------------------------------------------- Train (the same in every task)
    all_metrics = {}
    if args.do_train:
        saving.restore(training, plain_model, optimizer)
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
