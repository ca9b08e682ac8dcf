"""Makes a summarizer of half the layers, taken from a trained one.

    python run_summarization_distillation.py --output_dir out

Trains a teacher, a small T5, on made news reports with headlines. A student has every other layer of it
(Shleifer and Rush 2020, "shrink and fine-tune") and learns from the headlines (`shrunk`), or from the teacher's
probabilities as well (`soft`, Hinton et al. 2015); `scratch` is as large, learns as long, and begins with random
weights.

Writes results.json (ROUGE-L on reports that none has seen), and each model as a folder with its summaries.
"""

import argparse
import gzip
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # ids 0, 1, 2
STUDENTS = ("shrunk", "soft", "scratch")
TARGET_LENGTH = 32


def read(path: Path) -> list[dict[str, str]]:
    """Rows with `text` and `summary`, of a file with a JSON object a line, or of that compressed by gzip."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.decode().splitlines()]


def make_tokenizer(rows: list[dict[str, str]]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = list(SPECIAL.values())
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator((row[column] for row in rows for column in ("text", "summary")), trainer)
    backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **SPECIAL)


def new_model(layers: int, tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    size = {"d_model": 64, "d_ff": 128, "d_kv": 32, "num_heads": 2, "dropout_rate": 0.0}
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(num_layers=layers, num_decoder_layers=layers, **size, **ids))


def shrunk(
    teacher: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> T5ForConditionalGeneration:
    """A model with every other layer of the teacher's encoder and decoder from the first on, and all else."""
    student = new_model(teacher.config.num_layers // 2, tokenizer)
    table = {}
    for name, tensor in teacher.state_dict().items():
        if layer := re.match(r"((?:encoder|decoder)\.block\.)(\d+)(\..*)", name):
            if int(layer[2]) % 2:
                continue
            name = f"{layer[1]}{int(layer[2]) // 2}{layer[3]}"
        table[name] = tensor.clone()
    student.load_state_dict(table)
    return student


def batch_of(rows: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """int64[rows, length]; targets that do not count are -100."""
    options = {"padding": True, "truncation": True, "return_tensors": "pt", "return_token_type_ids": False}
    batch = dict(tokenizer([row["text"] for row in rows], max_length=160, **options))
    labels = tokenizer([row["summary"] for row in rows], max_length=TARGET_LENGTH, **options)
    batch["labels"] = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
    return batch


def train(model, rows, tokenizer, steps: int, seed: int, teacher=None) -> float:
    """Learns from labels, and half from the teacher's probabilities if there is one: the seconds of a core."""
    optimizer = torch.optim.AdamW(model.parameters(), 6e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps)
    )
    generator, order, began = np.random.default_rng(seed), np.zeros(0, int), time.process_time()
    model.train()
    for _ in range(steps):
        if len(order) < 16:
            order = np.concatenate([order, generator.permutation(len(rows))])
        batch = batch_of([rows[row] for row in order[:16]], tokenizer)
        order = order[16:]
        outputs = model(**batch)
        loss = outputs.loss
        if teacher is not None:
            with torch.no_grad():
                wanted = teacher(**batch).logits.softmax(-1)
            counts = batch["labels"] != -100
            loss = 0.5 * loss + 0.5 * functional.cross_entropy(outputs.logits[counts], wanted[counts])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return time.process_time() - began


@torch.no_grad()
def summaries(model, rows: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    model.eval()
    batch = batch_of(rows, tokenizer)
    del batch["labels"]
    tokens = model.generate(**batch, max_new_tokens=TARGET_LENGTH, do_sample=False, num_beams=1)
    return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


@torch.no_grad()
def loss_of(model, rows: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> float:
    """The mean over the tokens of all summaries."""
    return float(model.eval()(**batch_of(rows, tokenizer)).loss)


def rouge_l(found: str, wanted: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), without stemming."""
    one, other = (re.findall(r"[a-z0-9]+", text.lower()) for text in (found, wanted))
    lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, word in enumerate(one):
        for j, like in enumerate(other):
            lengths[i + 1][j + 1] = (
                lengths[i][j] + 1 if word == like else max(lengths[i][j + 1], lengths[i + 1][j])
            )
    return 2 * lengths[-1][-1] / (len(one) + len(other)) if one and other else 0.0


def parse() -> argparse.Namespace:
    data = Path(__file__).with_name("data")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--train_file", type=Path, default=data / "train.jsonl.gz", help="text and summary")
    parser.add_argument("--validation_file", type=Path, default=data / "validation.jsonl.gz", help="likewise")
    parser.add_argument(
        "--layers", type=int, default=4, help="of the teacher's encoder and decoder (%(default)s)"
    )
    parser.add_argument("--teacher_steps", type=int, default=500, help="(%(default)s)")
    parser.add_argument("--student_steps", type=int, default=250, help="(%(default)s)")
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=STUDENTS, help="(all)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    numbers = ("teacher_steps", "student_steps")
    problems = [f"--{name} {vars(args)[name]} is less than 1." for name in numbers if vars(args)[name] < 1]
    if args.layers < 2 or args.layers % 2:
        problems.append(f"--layers {args.layers} cannot be halved.")
    for path in (args.train_file, args.validation_file):
        try:
            if not all(isinstance(row[column], str) for row in read(path) for column in ("text", "summary")):
                raise ValueError("text and summary have to be there, as text")
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{path} cannot be read: {error!r}.")
    if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
        problems.append(f"--output_dir {args.output_dir} is there already, and is no empty folder.")
    if problems:
        parser.error("\n".join(["these do not work:", *problems]))
    return args


def main() -> None:
    args = parse()
    torch.manual_seed(args.seed)
    rows, held_out = read(args.train_file), read(args.validation_file)
    tokenizer = make_tokenizer(rows)
    teacher, results = new_model(args.layers, tokenizer), {}

    def finish(name: str, model, seconds: float) -> None:
        """Scores and writes a model."""
        found = summaries(model, held_out, tokenizer)
        scores = [rouge_l(one, row["summary"]) for one, row in zip(found, held_out, strict=True)]
        size = sum(parameter.numel() for parameter in model.parameters())
        results[name] = {
            "rougeL": float(np.mean(scores)),
            "loss": loss_of(model, held_out, tokenizer),
            "parameters": size,
            "cpu_seconds": round(seconds, 1),
        }
        model.save_pretrained(args.output_dir / name)
        tokenizer.save_pretrained(args.output_dir / name)
        text = "".join(f"{one}\n" for one in found)
        (args.output_dir / name / "generated_predictions.txt").write_text(text, encoding="utf-8")

    args.output_dir.mkdir(parents=True, exist_ok=True)
    finish("teacher", teacher, train(teacher, rows, tokenizer, args.teacher_steps, args.seed))
    for name in args.students:
        student = new_model(args.layers // 2, tokenizer) if name == "scratch" else shrunk(teacher, tokenizer)
        like = teacher.eval() if name == "soft" else None
        finish(name, student, train(student, rows, tokenizer, args.student_steps, args.seed + 1, like))
    (args.output_dir / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
