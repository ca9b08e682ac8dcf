# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]", "rouge-score>=0.1.2,<0.2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a sequence-to-sequence model for summarization in PyTorch: the loop written out, on Accelerate.

    python run_summarization_no_trainer.py --model_name_or_path google-t5/t5-small \\
        --source_prefix "summarize: " --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --predict_with_generate --output_dir out

The output folder then holds the model, `eval_results.json` with loss and ROUGE, and `training_curve.png`.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "torch", "accelerate", "rouge_score")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, metrics, run
from triptych.arguments import flag
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
from triptych.pytorch.arguments import TrainingArguments
from triptych.run.evaluation import Evaluation

TASK = "summarization"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class SummarizationArguments(arguments.Seq2SeqArguments):
    """Summarization"""

    text_column: str | None = flag(None, "column of the texts (default: known, or found by its name)")
    summary_column: str | None = flag(None, "column of the summaries, likewise")
    lang: str | None = flag(None, "language code of texts and summaries, for multilingual models")

    predicted_roles = ("summary",)
    scores = ("rouge1", "rouge2", "rougeL", "rougeLsum", "gen_len")

    def wanted_columns(self) -> dict[str, str | None]:
        return {"text": self.text_column, "summary": self.summary_column}


ARGUMENTS = (arguments.ModelArguments, SummarizationArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM

from triptych.pytorch import devices, models, optimization, saving
from triptych.pytorch.generation import generate


def preprocess(rows, columns, tokenizer, data_args):
    """Token ids of texts and summaries; prediction needs no summaries."""
    texts = [data_args.source_prefix + text for text in rows[columns["text"]]]
    features = tokenizer(texts, max_length=data_args.max_source_length, truncation=True)
    features = {"input_ids": features["input_ids"]}
    if columns.get("summary") in rows:
        summaries, longest = rows[columns["summary"]], data_args.max_target_length
        labels = tokenizer(text_target=summaries, max_length=longest, truncation=True)
        features["labels"] = labels["input_ids"]
    return features


def collate(rows, draws, tokenizer, config, data_args):
    """One batch of padded arrays from features by row; the decoder reads the labels shifted to the right.

    Rows without a summary have one target that does not count. `draws` is for tasks that draw at random.
    """
    source_length = data_args.max_source_length if data_args.pad_to_max_length else None
    target_length = data_args.max_target_length if data_args.pad_to_max_length else None
    counts_padding = "labels" in rows and not data_args.ignore_pad_token_for_loss
    label_padding = tokenizer.pad_token_id if counts_padding else -100
    labels = rows.get("labels", [[-100]] * len(rows["input_ids"]))
    labels = batching.pad(labels, label_padding, target_length)
    before = np.where(labels == -100, tokenizer.pad_token_id, labels)[:, :-1]
    return {
        "input_ids": batching.pad(rows["input_ids"], tokenizer.pad_token_id, source_length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, source_length),
        "decoder_input_ids": np.insert(before, 0, config.decoder_start_token_id, axis=1),
        "labels": labels,
    }


def count_targets(batch):
    """How many targets the loss of a batch is summed over: tokens of the summaries."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0):
    """Cross-entropy summed over the target tokens, and no outputs: answers are generated."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    logits, labels = model(**inputs).logits.float().flatten(0, 1), batch["labels"].flatten()
    return cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing), None


def answers(model, batch, outputs, generation):
    """Generated token ids, a list for each row."""
    return generate(model, batch, generation)


def score(answers, rows, columns, tokenizer):
    """ROUGE F-measures in percent, and the mean number of generated tokens; nothing without summaries."""
    if columns.get("summary") not in rows.column_names:
        return {}
    predictions = tokenizer.batch_decode(answers, skip_special_tokens=True)
    rouge = metrics.load("rouge").compute(predictions=predictions, references=rows[columns["summary"]])
    lengths = decoding.lengths(answers, tokenizer)
    return {**{name: 100 * value for name, value in rouge.items()}, "gen_len": float(np.mean(lengths))}


def write_answers(output_dir, prefix, values, answers, rows, tokenizer):
    """The metrics, and of a prediction a line for each row of the file, empty where its text is."""
    results.save_metrics(output_dir, prefix, values)
    if prefix.startswith("predict"):
        predictions = tokenizer.batch_decode(answers, skip_special_tokens=True)
        results.save_predictions(output_dir, data.by_source(predictions, rows))


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world, accelerator = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args)
    config = configs.load(model_args, data_args, tokenizer)
    model = models.load(model_args, data_args, args, config, AutoModelForSeq2SeqLM)
    generation = decoding.arguments(tokenizer, data_args, config)
    loss_unit = "nats per token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    features = data.features(raw, to_features, columns, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, data_args=data_args)
    to_answers = partial(answers, generation=generation)
    to_scores = partial(score, columns=columns, tokenizer=tokenizer)
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
