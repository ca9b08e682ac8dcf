"""What the suites know of multiple choice, in Python."""

import json
from collections import Counter
from pathlib import Path

BERT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
BERT |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=256)
BERT |= dict(initializer_range=0.2)  # so that gradients are large enough to compare


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """choices: a BERT that scores choices; choices-bare: that without its head. See
    tests/fixtures/tiny_checkpoints.py."""
    import transformers

    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    config = transformers.BertConfig(**BERT, **ids, vocab_size=len(tokenizer))
    model = save(config, tokenizer, folder / "choices", "MultipleChoice")
    model.bert.save_pretrained(folder / "choices-bare")
    tokenizer.save_pretrained(folder / "choices-bare")


def input_ids(row: dict, tokenizer) -> list[list[int]]:
    """Of each choice behind what is read before it."""
    return [tokenizer.encode(row["summary"], choice).ids for choice in row["choices"]]


def to_predict(rows: list[dict | None]) -> tuple[str, list[str]]:
    """Name and lines of a file without labels; None is a row whose question is empty."""
    read = ((row["summary"], row["choices"]) if row else (" ", ["a", "b"]) for row in rows)
    return "rows.jsonl", [json.dumps({"context": text, "choices": choices}) for text, choices in read]


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics of predictions by counting, from the texts that were chosen."""
    right = Counter()
    for (number, text, probability), row in zip(predictions, rows, strict=True):
        assert row["choices"][int(number) - 1] == text
        assert 1 / len(row["choices"]) <= float(probability) + 1e-4 <= 1 + 1e-3  # of the likeliest
        right[text == row["choices"]["ABCDE".index(row["choice"])]] += 1
    return {"accuracy": right[True] / len(rows)}


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_accuracy"] > 0.4, f"hardly anything is right: {answers}"
