"""Fine-tuning with transformers' Trainer as its course teaches and its most used scripts do: the Trainer's
defaults, each batch padded to its longest row. Only the order of the rows is ours, so that both compute the
same batches; when things happen is noted by `marks`.

    python stock_trainer.py --task summarization|text-classification --model FOLDER --train train.jsonl \\
        --validation validation.jsonl --train_rows 1000 --eval_rows 100 --epochs 1 --output_dir out [--bf16]
"""

import argparse
import json

import numpy as np
import torch
from datasets import Dataset
from marks import note
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from triptych import metrics
from triptych.batching import order

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--task", choices=("summarization", "text-classification"), required=True)
for name in ("--model", "--train", "--validation", "--output_dir"):
    parser.add_argument(name, required=True)
for name in ("--train_rows", "--eval_rows", "--epochs"):
    parser.add_argument(name, type=int, required=True)
parser.add_argument("--label", default="topic", help="column of the labels")
parser.add_argument("--max_length", type=int, default=512)
parser.add_argument("--max_target_length", type=int, default=32)
parser.add_argument("--bf16", action="store_true")


class NoteSteps(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        note("step")


def read(path, number, names):
    with open(path) as file:
        rows = [json.loads(line) for _, line in zip(range(number), file, strict=False)]
    return Dataset.from_list([{name: row[name] for name in names} for row in rows])


def main():
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    summarizes = args.task == "summarization"
    target = "summary" if summarizes else args.label
    train, validation = (
        read(path, number, ("text", target))
        for path, number in ((args.train, args.train_rows), (args.validation, args.eval_rows))
    )
    settings = {
        "output_dir": args.output_dir,
        "num_train_epochs": args.epochs,
        "save_strategy": "no",
        "report_to": "none",
        "train_sampling_strategy": "sequential",
        "bf16": args.bf16,
        "use_cpu": not torch.accelerator.is_available(),
    }
    if summarizes:
        model = AutoModelForSeq2SeqLM.from_pretrained(args.model)
        collator, kind = DataCollatorForSeq2Seq(tokenizer, model=model), Seq2SeqTrainer
        arguments = Seq2SeqTrainingArguments(
            **settings, predict_with_generate=True, generation_max_length=args.max_target_length
        )
        ids = None
    else:
        model = AutoModelForSequenceClassification.from_pretrained(args.model)
        collator, kind = DataCollatorWithPadding(tokenizer), Trainer
        arguments, ids = TrainingArguments(**settings), model.config.label2id

    def tokenize(rows):
        tokens = tokenizer(rows["text"], max_length=args.max_length, truncation=True)
        if summarizes:
            labels = tokenizer(text_target=rows[target], max_length=args.max_target_length, truncation=True)
            return {**tokens, "labels": labels["input_ids"]}
        return {**tokens, "labels": [ids[label] for label in rows[target]]}

    def compute_metrics(output):
        found = np.where(output.predictions != -100, output.predictions, tokenizer.pad_token_id)
        wanted = np.where(output.label_ids != -100, output.label_ids, tokenizer.pad_token_id)
        texts = (tokenizer.batch_decode(each, skip_special_tokens=True) for each in (found, wanted))
        return metrics.load("rouge").compute(predictions=next(texts), references=next(texts))

    def accuracy(output):
        return {"accuracy": float((output.predictions.argmax(axis=1) == output.label_ids).mean())}

    train = train.map(tokenize, batched=True, remove_columns=train.column_names)
    train = train.select(order.epoch_order(arguments.seed, 0, len(train)))
    validation = validation.map(tokenize, batched=True, remove_columns=validation.column_names)
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collator,
        processing_class=tokenizer,
        compute_metrics=compute_metrics if summarizes else accuracy,
        callbacks=[NoteSteps()],
    )
    note("first batch")
    trainer.train()
    note("evaluation begins")
    output = trainer.evaluate()
    note("evaluation ends", loss=output["eval_loss"])


if __name__ == "__main__":
    main()
