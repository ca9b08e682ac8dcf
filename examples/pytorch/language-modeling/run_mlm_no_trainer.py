# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]", "jinja2>=3.1.2,<4"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Train a model that finds hidden tokens in PyTorch: the loop written out, on Accelerate.

    python run_mlm_no_trainer.py --model_name_or_path answerdotai/ModernBERT-base \\
        --train_file "docs/**/*.md" --validation_split_percentage 5 --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, perplexity and accuracy, and
`training_curve.png`. `--do_predict` writes the five likeliest tokens for each mask token of `--test_file` to
`predictions.tsv`.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "torch", "accelerate")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import masking
from triptych.metrics import fillings
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.pytorch.arguments import TrainingArguments
from triptych.run.evaluation import Evaluation

TASK = "fill-mask"
TARGETS = ("labels", "places")  # arrays of a batch that count for nothing where they are -100


@dataclass
class MaskedLanguageModelingArguments(arguments.MaskingArguments):
    """Masked language modeling"""

    pad_to_max_length: bool = flag(False, "pad batches to whole sequences instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, MaskedLanguageModelingArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM

from triptych.pytorch import devices, models, optimization, places, saving


def preprocess(rows, columns, tokenizer, data_args):
    """Texts of tokens, and where words begin."""
    return masking.tokenized(rows, columns, tokenizer, data_args)


def collate(rows, draws, tokenizer, vocabulary, config, longest, data_args):
    """One batch of padded int64 arrays from features by row: what the model reads, (rows, length), with
    hidden tokens; and of these `places` and `labels`, (rows, hidden), -100 where there are no more. Rows to
    predict have `given`, (rows,): 1 where a row's own mask tokens are to be filled, of which no label is
    known. `draws` decides what is hidden, anew in each epoch.
    """
    length = longest if data_args.pad_to_max_length else None
    batch = encoders.inputs(rows, tokenizer, config, length)
    masked = masking.mask(batch["input_ids"], rows, draws, vocabulary, data_args)
    given = {masking.GIVEN: np.array(rows[masking.GIVEN])} if masking.GIVEN in rows else {}
    return batch | masked._asdict() | given


def count_targets(batch):
    """How many targets the loss of a batch is summed over: hidden tokens."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0):
    """Cross-entropy summed over the hidden tokens; for `answers` that of each, and the logits (rows, hidden,
    vocabulary): the head is computed there alone."""
    unread = ("labels", masking.GIVEN)
    inputs = {name: array for name, array in batch.items() if name not in unread}
    logits, labels = model(**inputs).logits.float(), batch["labels"]
    losses = cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return losses.sum(), (losses.view_as(labels), logits)


def answers(model, batch, outputs):
    """For each row (hidden, 4): place, label, nats, whether the label was the likeliest; of rows to predict
    behind these the likeliest tokens, and their probabilities."""
    (losses, logits), labels = outputs, batch["labels"]
    columns = [batch["places"], labels, losses, logits.argmax(dim=-1) == labels]
    found = torch.stack([column.float() for column in columns], dim=2)
    if masking.GIVEN in batch:
        best = logits.softmax(dim=-1).topk(min(fillings.BEST, logits.shape[-1]))
        found = torch.cat([found, best.indices.float(), best.values], dim=2)
    return found.numpy(force=True)


def score(answers, rows):
    """Perplexity and accuracy."""
    return fillings.score(answers)


def write_answers(output_dir, prefix, values, answers, rows, tokenizer):
    """The metrics, and of a prediction the likeliest tokens for each place."""
    results.save_metrics(output_dir, prefix, values)
    if prefix.startswith("predict"):
        results.save_table(output_dir, fillings.table(answers, rows, tokenizer), "predictions.tsv")


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world, accelerator = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args, words=bool(data_args.words_column))
    config = configs.load(model_args, data_args, tokenizer)
    longest = masking.max_length(config, data_args)
    model = models.load(model_args, data_args, args, config, AutoModelForMaskedLM)
    model = places.with_places(model)
    loss_unit = "nats per masked token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    texts = data.features(raw, to_features, columns, data_args)
    features = masking.sequences(texts, tokenizer, longest, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    given = {"tokenizer": tokenizer, "vocabulary": masking.vocabulary(tokenizer), "data_args": data_args}
    to_batch = partial(collate, config=config, longest=longest, **given)
    to_answers, to_scores = answers, score
    to_files = partial(write_answers, tokenizer=tokenizer)
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
