"""What the suites know of translation, in Python."""

import math
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """marian, m2m100, nllb and pegasus: see tests/fixtures/translators.py."""
    import translators

    with tempfile.TemporaryDirectory() as files:
        translators.make_checkpoints(save, folder, Path(files))


def grams(units: Sequence[str], length: int) -> Counter:
    return Counter(tuple(units[start : start + length]) for start in range(len(units) - length + 1))


def words(text: str) -> list[str]:
    """Signs are words, but an apostrophe; a point or comma between figures; a dash not behind a figure."""
    text = re.sub(r"[^\w\s.,'-]|_", r" \g<0> ", text)
    text = re.sub(r"(?<!\d)[.,]|[.,](?!\d)", r" \g<0> ", text)
    return re.sub(r"(?<=\d)-", " - ", text).split()


def bleu(texts: list[str], references: list[str]) -> float:
    """Of texts in ASCII. Precisions that are zero count as a half, a quarter … of one match."""
    pairs = [(words(text), words(wanted)) for text, wanted in zip(texts, references, strict=True)]
    predicted, wanted = (sum(len(one[side]) for one in pairs) for side in (0, 1))
    logarithm, least = min(0.0, 1 - wanted / predicted), 1.0
    for length in range(1, 5):
        same = sum((grams(one, length) & grams(other, length)).total() for one, other in pairs)
        if not same:
            same = least = least / 2
        logarithm += math.log(same / sum(max(0, len(one) - length + 1) for one, _ in pairs)) / 4
    return 100 * math.exp(logarithm)


def chrf(texts: list[str], references: list[str]) -> float:
    """F2 of the mean precision and the mean recall of 1 to 6 characters in a row, without spaces."""
    pairs = [
        ("".join(text.split()), "".join(wanted.split()))
        for text, wanted in zip(texts, references, strict=True)
    ]
    precision = recall = 0.0
    for length in range(1, 7):
        counts = [(grams(one, length), grams(other, length)) for one, other in pairs]
        same = sum((one & other).total() for one, other in counts)
        precision += same / sum(one.total() for one, _ in counts) / 6
        recall += same / sum(other.total() for _, other in counts) / 6
    return 100 * 5 * precision * recall / (4 * precision + recall)


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics of predictions, by hand."""
    texts, references = [text for (text,) in predictions], [row["translation"]["xx"] for row in rows]
    return {"bleu": bleu(texts, references), "chrf": chrf(texts, references)}


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_chrf"] > 15, f"hardly anything is right: {answers}"
