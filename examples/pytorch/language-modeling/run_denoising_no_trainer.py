# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]", "jinja2>=3.1.2,<4"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Train a model that restores corrupted texts in PyTorch, the loop written out on Accelerate.

    python run_denoising_no_trainer.py --model_name_or_path google/t5-v1_1-small --train_file "texts/*.txt" \\
        --validation_split_percentage 5 --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, perplexity and accuracy, and
`training_curve.png`. `--do_predict` corrupts each row of `--test_file`, and writes to `predictions.tsv` how
well it was restored; with `--max_new_tokens` it fills the holes of rows: `generated_predictions.txt`.
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
from triptych.data import corruption
from triptych.metrics import perplexity
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
from triptych.pytorch.arguments import TrainingArguments
from triptych.run.evaluation import Evaluation

TASK = "text2text-generation"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class DenoisingArguments(arguments.CorruptionArguments):
    """Denoising"""

    pad_to_max_length: bool = flag(False, "pad batches to the longest possible rows instead of their own")


ARGUMENTS = (arguments.ModelArguments, DenoisingArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM

from triptych.pytorch import devices, models, optimization, saving
from triptych.pytorch.generation import generate


def preprocess(rows, columns, tokenizer, data_args):
    """Texts as tokens, and where their sentences begin."""
    return corruption.tokenized(rows, columns, tokenizer, data_args)


def collate(rows, draws, tokenizer, config, noise, data_args):
    """One batch of padded arrays from features by row, corrupted as `draws` say; the decoder reads the labels
    shifted to the right. Rows with holes to be filled have one target that does not count, and the decoder's
    start.
    """
    input_length = noise.input_length if data_args.pad_to_max_length else None
    target_length = noise.target_length if data_args.pad_to_max_length else None
    if is_corrupted := corruption.STARTS in rows:
        texts, labels = corruption.corrupted(rows, draws, noise)
    else:
        texts, labels = rows["input_ids"], [[-100]] * len(rows["input_ids"])
    labels = batching.pad(labels, -100, target_length)
    before = np.where(labels == -100, tokenizer.pad_token_id, labels)[:, :-1]
    batch = {
        "input_ids": batching.pad(texts, tokenizer.pad_token_id, input_length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in texts], 0, input_length),
        "decoder_input_ids": np.insert(before, 0, config.decoder_start_token_id, axis=1),
        "labels": labels,
    }
    start = np.full(len(texts), config.decoder_start_token_id)
    return batch if is_corrupted else batch | {decoding.START: start}


def count_targets(batch):
    """How many targets the loss of a batch is summed over: tokens to be written."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0):
    """Cross-entropy summed over the target tokens; for `answers` that of each and the likeliest tokens."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    logits, labels = model(**inputs).logits.float(), batch["labels"]
    losses = cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return losses.sum(), (losses.view_as(labels), logits.argmax(dim=-1))


def answers(model, batch, outputs, generation):
    """For each row (3): nats, how many tokens were the likeliest, and how many there were to be written; for
    rows with holes generated token ids."""
    if decoding.START in batch:
        return generate(model, batch, generation)
    (losses, likeliest), labels = outputs, batch["labels"]
    columns = losses, likeliest == labels, labels != -100
    return torch.stack([column.float().sum(dim=1) for column in columns], dim=1).numpy(force=True)


def score(answers, rows, data_args):
    """Perplexity and accuracy; nothing of filled holes."""
    return {} if data_args.fills(rows) else perplexity.score(answers, rows)


def write_answers(output_dir, prefix, values, answers, rows, columns, tokenizer, noise, data_args):
    """The metrics; of a prediction how well each row of the file was restored, or the row with its holes
    filled."""
    results.save_metrics(output_dir, prefix, values)
    if data_args.fills(rows):
        texts = corruption.filled(answers, rows[columns["text"]], tokenizer, noise)
        results.save_predictions(output_dir, data.by_source(texts, rows))
    elif prefix.startswith("predict"):
        results.save_table(output_dir, perplexity.table(answers, rows, decimals=7), "predictions.tsv")


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world, accelerator = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args, offsets=data_args.permutes())
    config = configs.load(model_args, data_args, tokenizer)
    noise = corruption.of_run(config, tokenizer, data_args)
    model = models.load(model_args, data_args, args, config, AutoModelForSeq2SeqLM)
    generation = decoding.arguments(tokenizer, data_args, config)
    loss_unit = "nats per token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    whole = data.features(raw, to_features, columns, data_args)
    features = corruption.blocks(whole, noise, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, noise=noise, data_args=data_args)
    to_answers = partial(answers, generation=generation)
    to_scores = partial(score, data_args=data_args)
    to_files = partial(write_answers, columns=columns, tokenizer=tokenizer, noise=noise, data_args=data_args)
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
