"""Some steps of language modeling with transformers' Trainer as its course has it: texts joined, with an end
token behind each, and cut in blocks; the Trainer's defaults but for what is named.

    python stock_language_model.py --model FOLDER --train train.jsonl --block_size 256 --max_steps 6 ...
"""

import json
from dataclasses import dataclass, field

import torch
from stock_trainer import NoteSteps
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
)


@dataclass
class Arguments:
    model: str
    train: str
    block_size: int = field(metadata={"help": "tokens of a row"})


def main():
    own, args = HfArgumentParser((Arguments, TrainingArguments)).parse_args_into_dataclasses()
    args.train_sampling_strategy, args.use_cpu = "sequential", not torch.accelerator.is_available()
    tokenizer = AutoTokenizer.from_pretrained(own.model)
    wanted = args.max_steps * args.per_device_train_batch_size * own.block_size
    ids: list[int] = []
    with open(own.train) as file:
        while len(ids) < wanted:
            ids += [*tokenizer(json.loads(next(file))["text"])["input_ids"], tokenizer.eos_token_id]
    blocks = [ids[place : place + own.block_size] for place in range(0, wanted, own.block_size)]
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(own.model),
        args=args,
        train_dataset=[{"input_ids": block, "labels": block} for block in blocks],
        data_collator=default_data_collator,
        callbacks=[NoteSteps()],
    )
    trainer.train()
    trainer.save_state()


if __name__ == "__main__":
    main()
