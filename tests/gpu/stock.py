"""Trains as the library's own examples do, for comparison: `python stock.py SETTINGS.json`.

It is transformers' Seq2SeqTrainer or Trainer with its defaults, on batches that are padded to their longest
row. Precisions are trained one after the other, each from the start. SETTINGS.json becomes its settings and
`found`: by precision the seconds of a step, and the most bytes in use so far, as `observe.py` has them; for a
precision that is not the first, those of the others are in them.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset

path = Path(sys.argv[1])
settings = json.loads(path.read_text())
tokenizer = transformers.AutoTokenizer.from_pretrained(settings["tokenizer"])
special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id")}
config = transformers.AutoConfig.for_model(
    settings["model_type"], **settings["sizes"], **special, vocab_size=len(tokenizer)
)


class Clock(transformers.TrainerCallback):
    """The time of two steps, each when the device is done with it; in between the Trainer never waits."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step in (settings["first"], settings["steps"]):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.monotonic())


def tokenized() -> Dataset:
    with open(settings["train_file"]) as file:
        rows = [json.loads(line) for _, line in zip(range(settings["rows"]), file, strict=False)]
    texts = [row["text"] for row in rows]
    columns = {"input_ids": tokenizer(texts, max_length=settings["length"], truncation=True)["input_ids"]}
    if settings["model_type"] == "t5":
        targets = {"text_target": [row["summary"] for row in rows], "max_length": settings["target_length"]}
        columns["labels"] = tokenizer(**targets, truncation=True)["input_ids"]
    else:
        names = sorted({row[settings["label"]] for row in rows})
        config.num_labels = len(names)
        columns["labels"] = [names.index(row[settings["label"]]) for row in rows]
    return Dataset.from_dict(columns)


def train(dataset: Dataset, precision: str) -> dict[str, float]:
    torch.manual_seed(1)
    arguments = {
        "output_dir": str(path.with_suffix("")),
        "max_steps": settings["steps"],
        "per_device_train_batch_size": settings["batch"],
        "bf16": precision == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": "none",
    }
    if settings["model_type"] == "t5":
        config.decoder_start_token_id = tokenizer.pad_token_id
        model = transformers.AutoModelForSeq2SeqLM.from_config(config)
        trainer_class, arguments_class = transformers.Seq2SeqTrainer, transformers.Seq2SeqTrainingArguments
        collator = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)
    else:
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        trainer_class, arguments_class = transformers.Trainer, transformers.TrainingArguments
        collator = transformers.DataCollatorWithPadding(tokenizer)
    clock, on_card = Clock(), torch.cuda.is_available()
    trainer_class(
        model=model,
        args=arguments_class(**arguments),
        train_dataset=dataset,
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=[clock],
    ).train()
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if on_card else of_process
    seconds = (clock.times[1] - clock.times[0]) / (settings["steps"] - settings["first"])
    return {"step": seconds, "memory": peak}


rows = tokenized()
found = {precision: train(rows, precision) for precision in settings["precisions"]}
path.write_text(json.dumps(settings | {"found": found}))
