"""Fine-tunes a model that classifies texts, with the Trainer of transformers 4.57.6: BERT and its kind.

    python run_classification_pytorch.py --model_name_or_path folder --train_file train.jsonl \
        --validation_file validation.jsonl --label_column_name topic --output_dir out

The files hold `text` and the label. The output folder gets model.safetensors, configuration, tokenizer and
eval_results.json. See README.md: folders of this machine alone, and only such as you trust.
"""

import argparse

import local_folders  # first: it keeps the library from the hub

WEIGHTS = ("model.safetensors",)
if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--label_column_name", default="label", help="(%(default)s)")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a text (%(default)s)")
    args, train_rows, validation_rows = local_folders.parse(parser, WEIGHTS, ("text",))

from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def accuracy(predicted):
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def main(args, train_rows, validation_rows):
    set_seed(args.seed)
    config = local_folders.with_labels(AutoConfig, args, train_rows, validation_rows)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    if local_folders.has_weights(args.model_name_or_path, WEIGHTS):
        # No pickle is opened.
        options = {"config": config, "use_safetensors": True}
        model = AutoModelForSequenceClassification.from_pretrained(args.model_name_or_path, **options)
    else:
        model = AutoModelForSequenceClassification.from_config(config)

    def preprocess(rows):
        inputs = tokenizer(rows["text"], max_length=args.max_seq_length, truncation=True)
        labels = [config.label2id[label] for label in rows["label"]]
        return {name: inputs[name] for name in ("input_ids", "attention_mask")} | {"labels": labels}

    def features_of(rows):
        dataset = Dataset.from_list([{"text": row["text"], "label": row[args.label_column_name]} for row in rows])
        return dataset.map(preprocess, batched=True, remove_columns=dataset.column_names) if rows else None

    settings = TrainingArguments(
        output_dir=str(args.output_dir),
        max_steps=args.max_steps,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.per_device_train_batch_size,
        per_device_eval_batch_size=args.per_device_eval_batch_size,
        seed=args.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    )
    trainer = Trainer(
        model,
        settings,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=features_of(train_rows),
        eval_dataset=features_of(validation_rows),
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    results, losses = {}, []
    if train_rows:
        results["train_loss"] = trainer.train().training_loss
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if validation_rows:
        # The Trainer's mean of the means of batches: that of all rows if the batches are of one size
        found = trainer.evaluate()
        results |= {name: found[name] for name in ("eval_loss", "eval_accuracy")}
    trainer.save_model()
    local_folders.save_results(args.output_dir, results, losses)


if __name__ == "__main__":
    main(args, train_rows, validation_rows)
