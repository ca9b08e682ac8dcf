# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]", "jinja2>=3.1.2,<4"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Train a model that continues texts in PyTorch: the loop on Accelerate.

    python run_clm_no_trainer.py --model_name_or_path HuggingFaceTB/SmolLM2-135M --train_file "src/**/*.py" \\
        --validation_split_percentage 5 --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, perplexity and bits per byte, and
`training_curve.png`. `--do_predict` writes the perplexity of each row of `--test_file` to `predictions.tsv`;
with `--max_new_tokens` it writes how each goes on to `generated_predictions.txt`.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "torch", "accelerate")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import documents, packing
from triptych.metrics import perplexity
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
from triptych.pytorch.arguments import TrainingArguments
from triptych.run.evaluation import Evaluation

TASK = "text-generation"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class LanguageModelingArguments(arguments.CausalArguments):
    """Language modeling"""

    pad_to_max_length: bool = flag(False, "pad batches to whole blocks instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, LanguageModelingArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from triptych.pytorch import devices, models, optimization, saving
from triptych.pytorch.generation import generate


def preprocess(rows, columns, tokenizer, data_args):
    """Documents of tokens, and what follows each token."""
    return documents.tokenized(rows, columns, tokenizer, data_args)


def collate(rows, draws, longest, data_args):
    """One batch of arrays (rows, length) from features by row: token ids; `position_ids`, which begin anew
    with each document; `labels`, behind each token the one to predict, -100 where there is none; and
    `attention_mask`, where there are tokens: the model needs none. Prompts to be continued have `drawn`,
    numbers by which tokens are sampled.
    """
    length = longest if data_args.pad_to_max_length else None
    batch = {
        "input_ids": batching.pad(rows["input_ids"], 0, length),
        "position_ids": batching.pad(packing.positions(rows), 0, length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, length),
        "labels": batching.pad(rows["labels"], -100, length),
    }
    are_prompts = packing.PIECES not in rows
    return batch | (decoding.drawn(draws, data_args.max_new_tokens) if are_prompts else {})


def count_targets(batch):
    """How many targets the loss of a batch is summed over: tokens to predict."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0):
    """Cross-entropy summed over the tokens to predict; for `answers` that of each and the likeliest tokens.

    It is by their positions that transformers keeps documents apart, and only without a mask and a cache.
    """
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    logits, labels = model(**inputs, use_cache=False).logits.float(), batch["labels"]
    losses = cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return losses.sum(), (losses.view_as(labels), logits.argmax(dim=-1))


def answers(model, batch, outputs, generation):
    """For each row (length, 4): nats, whether the token was the likeliest, whether there was one to predict,
    and its position, of which the sums of each document are kept; for prompts the tokens that follow."""
    if decoding.DRAWN in batch:
        return generate(model, batch, generation)
    (losses, likeliest), labels = outputs, batch["labels"]
    columns = losses, likeliest == labels, labels != -100, batch["position_ids"]
    return torch.stack([column.float() for column in columns], dim=2).numpy(force=True)


def score(answers, rows, data_args):
    """Perplexity, accuracy and bits per byte; nothing of prompts."""
    return {} if data_args.continues(rows) else perplexity.score(answers, rows)


def write_answers(output_dir, prefix, values, answers, rows, tokenizer, data_args):
    """The metrics, and those of each source; of a prediction how well each row of the file was foreseen, or
    how it goes on."""
    sources = {} if data_args.continues(rows) else perplexity.by_source(answers, rows)
    results.save_metrics(output_dir, prefix, values | ({f"{prefix}_by_source": sources} if sources else {}))
    if data_args.continues(rows):
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        results.save_predictions(output_dir, data.by_source(texts, rows))
    elif prefix.startswith("predict"):
        results.save_table(output_dir, perplexity.table(answers, rows), "predictions.tsv")


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world, accelerator = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args)
    config = configs.load(model_args, data_args, tokenizer)
    longest = packing.block_size(config, data_args)
    model = models.load(model_args, data_args, args, config, AutoModelForCausalLM)
    generation = decoding.arguments(tokenizer, data_args, config)
    loss_unit = "nats per token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    whole = data.features(raw, to_features, columns, data_args)
    whole = documents.with_holes(whole, tokenizer, data_args, args.data_seed)
    features, raw = packing.pack(whole, longest, config, data_args), documents.with_bytes(raw, whole)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, longest=longest, data_args=data_args)
    to_answers = partial(answers, generation=generation)
    to_scores = partial(score, data_args=data_args)
    to_files = partial(write_answers, tokenizer=tokenizer, data_args=data_args)
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
