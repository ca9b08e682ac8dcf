# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a model that picks the right one of several choices in PyTorch: the loop
written out, on Accelerate.

    python run_multiple_choice_no_trainer.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

Rows may have different numbers of choices. The output folder then holds the model, `eval_results.json` with
loss and accuracy, and `training_curve.png`; `--do_predict` writes the choice of each row of `--test_file`.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "torch", "accelerate")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import choices
from triptych.metrics import choice_scores
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.pytorch.arguments import TrainingArguments
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

import torch
from transformers import AutoModelForMultipleChoice

from triptych.pytorch import devices, models, optimization, saving


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


def summed_loss(model, batch, label_smoothing=0.0):
    """Cross-entropy of each row's right choice among its own, summed, and the logits (rows, choices)."""
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "is_choice")}
    labels, is_choice = batch["labels"], batch["is_choice"]
    logits = model(**inputs).logits.float().masked_fill(is_choice == 0, -1e9)
    log_probabilities = logits.log_softmax(dim=1)
    of_labels = log_probabilities.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    of_all = (log_probabilities * is_choice).sum(dim=1) / is_choice.sum(dim=1)
    losses = (label_smoothing - 1) * of_labels - label_smoothing * of_all
    return losses[labels != -100].sum(), logits


def answers(model, batch, outputs):
    """For each row the probability of each choice."""
    return outputs.softmax(dim=1).tolist()


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
    world, accelerator = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args)
    config = configs.load(model_args, data_args, tokenizer)
    schema = choices.settle(raw, columns)
    model = models.load(model_args, data_args, args, config, AutoModelForMultipleChoice)
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
