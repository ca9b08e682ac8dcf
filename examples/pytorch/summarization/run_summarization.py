"""Fine-tune a sequence-to-sequence model for summarization in PyTorch, with the Hugging Face Trainer.

    python run_summarization.py --model_name_or_path google-t5/t5-small \\
        --source_prefix "summarize: " --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --predict_with_generate --output_dir out

The output folder then holds the model, `eval_results.json` with loss and ROUGE, and `training_curve.png`.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require("0.1.0", "torch", "accelerate", "rouge_score")  # before what may be missing

import numpy as np

from triptych import arguments, batching, command_line, data, hub
from triptych.output import checkpoints
from triptych import metrics, run, schedule
from triptych.models import configs
from triptych.output import results
from triptych.arguments import flag
from triptych.pytorch.trainer_arguments import TrainerArguments


@dataclass
class SummarizationArguments(arguments.DataArguments):
    """Summarization"""

    text_column: str | None = flag(None, "column of the texts (default: known, or found by its name)")
    summary_column: str | None = flag(None, "column of the summaries, likewise")
    source_prefix: str = flag("", 'put before every text; T5 was pretrained with "summarize: "')
    max_source_length: int = flag(1024, "cut texts to this many tokens")
    max_target_length: int = flag(128, "cut summaries to this many tokens in training")
    val_max_target_length: int | None = flag(None, "longest generated summary (default: --max_target_length)")
    pad_to_max_length: bool = flag(False, "pad batches to the maximum lengths instead of their longest rows")
    ignore_pad_token_for_loss: bool = flag(True, "leave padding of the summaries out of the loss")
    num_beams: int | None = flag(None, "beams of the search in generation (default: as the checkpoint says)")
    lang: str | None = flag(None, "language code of texts and summaries, for multilingual models")
    forced_bos_token: str | None = flag(None, "first generated token of such a model (default: --lang)")
    resize_position_embeddings: bool = flag(False, "enlarge a position table that is shorter than the texts")

    predicted_roles = ("summary",)

    def wanted_columns(self) -> dict[str, str | None]:
        return {"text": self.text_column, "summary": self.summary_column}


ARGUMENTS = (arguments.ModelArguments, SummarizationArguments, TrainerArguments)
if __name__ == "__main__":
    command_line.parse(*ARGUMENTS, description=__doc__)  # answers -h and wrong input before slow imports

from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM

from triptych.pytorch import models
from triptych.pytorch.trainer import Trainer


def preprocess(rows, tokenizer, names, args):
    """Token ids of texts and summaries; prediction needs no summaries."""
    texts = [args.source_prefix + text for text in rows[names["text"]]]
    tokens = {"input_ids": tokenizer(texts, max_length=args.max_source_length, truncation=True)["input_ids"]}
    if names.get("summary") in rows:
        labels = tokenizer(
            text_target=rows[names["summary"]], max_length=args.max_target_length, truncation=True
        )
        tokens["labels"] = labels["input_ids"]
    return tokens


def collate(rows, tokenizer, config, args):
    """One batch of padded arrays from token ids by row; the decoder reads the labels shifted to the right."""
    source_length = args.max_source_length if args.pad_to_max_length else None
    target_length = args.max_target_length if args.pad_to_max_length else None
    batch = {
        "input_ids": batching.pad(rows["input_ids"], tokenizer.pad_token_id, source_length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, source_length),
    }
    if "labels" in rows:
        labels = batching.pad(rows["labels"], tokenizer.pad_token_id, target_length)
        batch["decoder_input_ids"] = np.insert(labels[:, :-1], 0, config.decoder_start_token_id, axis=1)
        label_padding = -100 if args.ignore_pad_token_for_loss else tokenizer.pad_token_id
        batch["labels"] = batching.pad(rows["labels"], label_padding, target_length)
    return batch


def score(predictions, references, tokenizer):
    """ROUGE F-measures in percent, and the mean number of generated tokens."""
    rouge = metrics.load("rouge").compute(predictions=predictions, references=references)
    lengths = [len(ids) for ids in tokenizer(predictions)["input_ids"]]
    return {**{name: 100 * value for name, value in rouge.items()}, "gen_len": float(np.mean(lengths))}


def token_loss(logits, labels, label_smoothing=0.0):
    """Cross-entropy summed over the target tokens; the optimizer step divides it once by their number."""
    return cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=label_smoothing
    )


def main():
    # ---------------------------------------------------------------------------------------------- Arguments
    model_args, data_args, args = command_line.parse(*ARGUMENTS, description=__doc__)
    models.require_precision(args, args.device)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, names = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = configs.load_tokenizer(model_args)
    config = configs.load_config(model_args, tokenizer)
    model = models.load(AutoModelForSeq2SeqLM, model_args, config, args)
    generation = configs.generation_arguments(tokenizer, data_args)
    models.require_positions(model, data_args)
    checkpoints.require_space(args.output_dir, model.num_parameters(), args)
    places = {"devices": args.world_size, "process": args.process_index, "processes": args.world_size}
    state = run.start(model_args, data_args, args, raw, device=args.device.type, **places)

    # ------------------------------------------------------------------------------------------------- Tokens
    tokenize = partial(preprocess, tokenizer=tokenizer, names=names, args=data_args)
    tokenized = data.tokenize(raw, tokenize, names, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, args=data_args)
    plan = schedule.plan(args, data.count(tokenized.get("train")), args.world_size)

    def score_rows(split, generated):
        predictions = tokenizer.batch_decode(generated, skip_special_tokens=True)
        if names.get("summary") not in raw[split].column_names:
            return predictions, {}
        return predictions, score(predictions, raw[split][names["summary"]], tokenizer)

    # -------------------------------------------------------------------------------------------------- Train
    trainer = Trainer(
        model=model,
        args=args,
        repository=repository,
        summed_loss=token_loss,
        collate=to_batch,
        train_dataset=tokenized.get("train"),
        eval_dataset=tokenized.get("validation"),
        processing_class=tokenizer,
        generation=generation,
        compute_metrics=lambda generated: score_rows("validation", generated)[1],
    )
    all_metrics = {}
    if args.do_train:
        all_metrics |= trainer.train_to_the_end(plan, state)
        results.save_training(args.output_dir, all_metrics, state.summary(plan, args))

    # ----------------------------------------------------------------------------------------------- Evaluate
    if args.do_eval:
        values = trainer.evaluate()
        all_metrics |= values
        results.save_metrics(args.output_dir, "eval", values)

    # ------------------------------------------------------------------------------------------------ Predict
    if args.do_predict:
        values, generated = trainer.run_rows(tokenized["test"], "predict", generate=True)
        predictions, found = score_rows("test", generated)
        values |= results.prefixed("predict", found)
        all_metrics |= values
        results.save_metrics(args.output_dir, "predict", values)
        results.save_predictions(args.output_dir, predictions)

    # -------------------------------------------------------------------------------------------------- Share
    hub.save_card(args, model_args, data_args, "summarization", all_metrics, repository)
    run.finish(args, all_metrics)
    hub.push(repository)


if __name__ == "__main__":
    run.main(main)
