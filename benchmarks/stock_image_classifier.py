"""Some steps of image classification with transformers' Trainer as its documentation has it: `datasets`'
imagefolder, the checkpoint's image processor, the Trainer's defaults but for what is named. Only the order of
the rows is ours, so that both compute the same batches.

    python stock_image_classifier.py --model FOLDER --train FOLDER --max_steps 6 ...
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import load_dataset
from stock_trainer import NoteSteps
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)

from triptych.batching import order
from triptych.data import pictures


@dataclass
class Arguments:
    model: str
    train: str


def main():
    own, args = HfArgumentParser((Arguments, TrainingArguments)).parse_args_into_dataclasses()
    args.train_sampling_strategy, args.use_cpu = "sequential", not torch.accelerator.is_available()
    args.remove_unused_columns = False  # the transform needs them
    count = args.max_steps * args.per_device_train_batch_size
    processor = AutoImageProcessor.from_pretrained(own.model)
    model = AutoModelForImageClassification.from_pretrained(own.model)
    ours = pictures.from_folder(own.train, "train")["image"][:count]
    loaded = load_dataset("imagefolder", data_dir=own.train, split="train")
    names = [
        Path(row["path"]).name
        for row in loaded.cast_column("image", loaded.features["image"].__class__(decode=False))["image"]
    ]
    places = {name: place for place, name in enumerate(names)}
    rows = [places[Path(ours[row]).name] for row in order.epoch_order(args.seed, 0, count)]
    ids = [model.config.label2id[name] for name in loaded.features["label"].names]

    def transform(batch):
        pixels = processor([image.convert("RGB") for image in batch["image"]], return_tensors="pt")
        return {"pixel_values": pixels["pixel_values"], "labels": [ids[label] for label in batch["label"]]}

    def collate(rows):
        pixels = torch.stack([row["pixel_values"] for row in rows])
        return {"pixel_values": pixels, "labels": torch.tensor([row["labels"] for row in rows])}

    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=loaded.select(rows).with_transform(transform),
        data_collator=collate,
        callbacks=[NoteSteps()],
    )
    trainer.train()
    trainer.save_state()


if __name__ == "__main__":
    main()
