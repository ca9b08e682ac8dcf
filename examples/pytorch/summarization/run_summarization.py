# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]", "rouge-score>=0.1.2,<0.2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a sequence-to-sequence model for summarization in PyTorch, with the Hugging Face Trainer.

    python run_summarization.py --model_name_or_path google-t5/t5-small \\
        --source_prefix "summarize: " --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --predict_with_generate --output_dir out

The output folder then holds the model, `eval_results.json` with loss and ROUGE, and `training_curve.png`.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "torch", "accelerate", "rouge_score")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, metrics, run
from triptych.arguments import flag
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
from triptych.pytorch.trainer_arguments import TrainerArguments

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


ARGUMENTS = (arguments.ModelArguments, SummarizationArguments, TrainerArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM

from triptych.pytorch import devices, models
from triptych.pytorch.generation import generate
from triptych.pytorch.trainer import Trainer


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
    world = devices.of_trainer(args)
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
