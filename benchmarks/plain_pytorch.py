"""Fine-tuning T5 for summarization the plain way of PyTorch: transformers' Seq2SeqTrainer, rows padded to the
maximum length. Compared with our scripts; when things happen is noted by `marks`.

    python plain_pytorch.py --model FOLDER --train train.jsonl --validation validation.jsonl \\
        --train_rows 1000 --eval_rows 100 --epochs 2 --output_dir out
"""

import argparse
import json

import numpy as np
import torch
from datasets import Dataset
from marks import note
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from triptych import metrics

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("--model", "--train", "--validation", "--output_dir"):
    parser.add_argument(name, required=True)
for name in ("--train_rows", "--eval_rows", "--epochs"):
    parser.add_argument(name, type=int, required=True)
parser.add_argument("--batch_size", type=int, default=8)
parser.add_argument("--learning_rate", type=float, default=5e-5)
parser.add_argument("--max_source_length", type=int, default=512)
parser.add_argument("--max_target_length", type=int, default=32)


class NoteSteps(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        note("step")


def main():
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSeq2SeqLM.from_pretrained(args.model)

    # Data. The collator alone would pad the labels to the length of the texts, if told to pad to a maximum.
    def tokenize(rows):
        padded = {"padding": "max_length", "truncation": True}
        tokens = tokenizer(rows["text"], max_length=args.max_source_length, **padded)
        labels = tokenizer(text_target=rows["summary"], max_length=args.max_target_length, **padded)
        tokens["labels"] = [
            [token if token != tokenizer.pad_token_id else -100 for token in row]
            for row in labels["input_ids"]
        ]
        return tokens

    def read(path, number):
        with open(path) as file:
            rows = [json.loads(line) for _, line in zip(range(number), file, strict=False)]
        return Dataset.from_list([{"text": row["text"], "summary": row["summary"]} for row in rows])

    train, validation = read(args.train, args.train_rows), read(args.validation, args.eval_rows)
    references = validation["summary"]
    train = train.map(tokenize, batched=True, remove_columns=train.column_names)
    validation = validation.map(tokenize, batched=True, remove_columns=validation.column_names)

    # Training
    training_args = Seq2SeqTrainingArguments(
        output_dir=args.output_dir,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        predict_with_generate=True,
        generation_max_length=args.max_target_length,
        generation_num_beams=1,
        save_strategy="no",
        report_to="none",
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
        callbacks=[NoteSteps()],
    )
    note("first batch")
    trainer.train()

    note("save begins")
    trainer.save_model()
    note("save ends")

    # Evaluation: `evaluate` would generate only to compute metrics at once. Its loss is the mean of batches.
    note("evaluation begins")
    output = trainer.predict(validation, metric_key_prefix="eval")
    note("evaluation ends", loss=output.metrics["eval_loss"])
    generated = np.where(output.predictions != -100, output.predictions, tokenizer.pad_token_id)
    predictions = tokenizer.batch_decode(generated, skip_special_tokens=True)
    rouge = metrics.load("rouge").compute(predictions=predictions, references=references)
    print(json.dumps({"eval_loss": output.metrics["eval_loss"], **rouge}))


if __name__ == "__main__":
    main()
