"""What the suites know of token classification, in Python."""

import re
from pathlib import Path

BERT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
BERT |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=256)
LABELS = ("LOC", "ORG", "PER", "DATE", "MONEY")


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """entities: a BERT for the entities of bulletins, with their tags in an order of its own; entities-bare:
    that without its head. See tests/fixtures/tiny_checkpoints.py."""
    import transformers

    tags = [f"{letter}-{label}" for letter in "IB" for label in LABELS]
    tags.insert(3, "O")
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    head = dict(id2label=dict(enumerate(tags)), label2id={tag: n for n, tag in enumerate(tags)})
    config = transformers.BertConfig(**BERT, **ids, **head, vocab_size=len(tokenizer))
    model = save(config, tokenizer, folder / "entities", "TokenClassification")
    model.bert.save_pretrained(folder / "entities-bare")
    tokenizer.save_pretrained(folder / "entities-bare")


def words(text: str) -> list[tuple[int, int]]:
    """Start and end of the words of a bulletin, which has letters, digits and signs of ASCII alone."""

    return [found.span() for found in re.finditer(r"\w+|\S", text)]


def spans(tags: list[str], text: str) -> set[tuple[int, int, str]]:
    """Start, end and label of the entities that IOB2 tags mark: I- goes on with the same label before it."""
    found: list[list] = []
    before = "O"
    for tag, (start, end) in zip(tags, words(text), strict=True):
        if tag[0] == "I" and before[1:] == tag[1:]:
            found[-1][1] = end
        elif tag != "O":
            found.append([start, end, tag[2:]])
        before = tag
    return {tuple(one) for one in found}


def input_ids(row: dict, tokenizer) -> list[int]:
    """Of the words."""
    text = [row["text"][start:end] for start, end in words(row["text"])]
    return tokenizer.encode(text, is_pretokenized=True).ids


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics of predictions by sets of spans in characters."""
    right = {label: 0 for label in LABELS}
    predicted, wanted = dict(right), dict(right)
    same = every = 0
    for (line,), row in zip(predictions, rows, strict=True):
        found = spans(line.split(), row["text"])
        gold = {(one["start"], one["end"], one["label"]) for one in row["entities"]}
        for counts, one in ((right, found & gold), (predicted, found), (wanted, gold)):
            for *_, label in one:
                counts[label] += 1
        begun = {start: f"B-{label}" for start, _, label in gold}
        inside = {place: f"I-{label}" for start, end, label in gold for place in range(start + 1, end)}
        tags = [begun.get(start, inside.get(start, "O")) for start, _ in words(row["text"])]
        same += sum(a == b for a, b in zip(line.split(), tags, strict=True))
        every += len(tags)
    f1 = [2 * right[n] / (predicted[n] + wanted[n]) for n in LABELS if predicted[n] + wanted[n]]
    totals = [sum(counts.values()) for counts in (right, predicted, wanted)]
    return {
        "precision": totals[0] / max(1, totals[1]),
        "recall": totals[0] / totals[2],
        "f1": 2 * totals[0] / (totals[1] + totals[2]),
        "f1_macro": sum(f1) / len(f1),
        "accuracy": same / every,
    }


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_f1"] > 0.5, f"hardly anything is right: {answers}"
