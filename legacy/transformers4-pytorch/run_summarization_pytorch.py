"""Fine-tunes a model that summarizes, with the Trainer of transformers 4.57.6: T5, BART and their kind.

    python run_summarization_pytorch.py --model_name_or_path folder --train_file train.jsonl \
        --validation_file validation.jsonl --output_dir out

The files hold `text` and `summary`. The output folder gets model.safetensors, configuration, tokenizer and
eval_results.json. See README.md: folders of this machine alone, and only such as you trust.
"""

import argparse

import local_folders  # first: it keeps the library from the hub

WEIGHTS = ("model.safetensors",)
if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source_prefix", default="", help="before each text, such as 'summarize: '")
    parser.add_argument("--max_source_length", type=int, default=256, help="tokens of a text (%(default)s)")
    parser.add_argument("--max_target_length", type=int, default=40, help="tokens of a summary (%(default)s)")
    args, train_rows, validation_rows = local_folders.parse(parser, WEIGHTS, ("text", "summary"))

from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)


def main(args, train_rows, validation_rows):
    set_seed(args.seed)
    config = AutoConfig.from_pretrained(args.model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    if local_folders.has_weights(args.model_name_or_path, WEIGHTS):
        # No pickle is opened.
        model = AutoModelForSeq2SeqLM.from_pretrained(args.model_name_or_path, config=config, use_safetensors=True)
    else:
        model = AutoModelForSeq2SeqLM.from_config(config)

    def preprocess(rows):
        texts = [args.source_prefix + text for text in rows["text"]]
        inputs = tokenizer(texts, max_length=args.max_source_length, truncation=True)
        labels = tokenizer(text_target=rows["summary"], max_length=args.max_target_length, truncation=True)
        ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        return ids | {"labels": labels["input_ids"]}

    def features_of(rows):
        dataset = Dataset.from_list([{name: row[name] for name in ("text", "summary")} for row in rows])
        return dataset.map(preprocess, batched=True, remove_columns=dataset.column_names) if rows else None

    settings = Seq2SeqTrainingArguments(
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
    trainer = Seq2SeqTrainer(
        model,
        settings,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        train_dataset=features_of(train_rows),
        eval_dataset=features_of(validation_rows),
        processing_class=tokenizer,
    )
    results, losses = {}, []
    if train_rows:
        results["train_loss"] = trainer.train().training_loss
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if validation_rows:
        # The Trainer's mean of the means of batches: that of all targets if there is one batch alone
        results["eval_loss"] = trainer.evaluate()["eval_loss"]
    trainer.save_model()
    local_folders.save_results(args.output_dir, results, losses)


if __name__ == "__main__":
    main(args, train_rows, validation_rows)
