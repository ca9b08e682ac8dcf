"""How answers to questions are scored: by SQuAD's rules, and at which threshold a question has no answer.

Rajpurkar et al. 2016, arXiv:1606.05250; 2018, arXiv:1806.03822.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych import data, metrics
from triptych.data.answer_spans import Answered, Reading
from triptych.data.questions import ANSWERS, holds

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """In small letters, without ASCII's punctuation, English articles, and white space but single blanks."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact(prediction: str, answer: str) -> float:
    """Whether both are the same when normalized."""
    return float(normalized(prediction) == normalized(answer))


def f1(prediction: str, answer: str, both_empty: float = 1.0) -> float:
    """The F1 of the words that both have in common when normalized.

    Args:
        both_empty: where neither has any: 1 by SQuAD 2's rules, 0 by SQuAD 1's.
    """
    found, wanted = normalized(prediction).split(), normalized(answer).split()
    if not found and not wanted:
        return both_empty
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def wanted_texts(references: Sequence[str]) -> list[str]:
    """The answers to compare with by SQuAD 2's rules: without those that normalize to nothing; an empty text
    where that leaves none."""
    return [text for text in references if normalized(text)] or [""]


def score(answers: Sequence[Sequence[Any]], rows: Any, reading: Reading) -> dict[str, float]:
    """The metrics of the rows whose answers are known, see `squad`; nothing without any. Rows to evaluate may
    choose the threshold first: the one with the highest F1.

    Args:
        answers: for each row its windows, see `answer_spans.best`.
        rows: the raw rows, as `data.load` gives them.
    """
    references = rows[ANSWERS][:] if ANSWERS in rows.column_names else []
    is_known = [value is not None and (reading.may_lack or holds(value)) for value in references]
    if not any(is_known):
        return {}
    wanted = [value["text"] for value, known in zip(references, is_known, strict=True) if known]

    def read() -> list[Answered]:
        return [one for one, known in zip(reading.rows(answers, rows), is_known, strict=True) if known]

    found = read()
    if not reading.may_lack:
        return metrics.load("squad").compute(predictions=[one.text for one in found], references=wanted)
    if reading.tunes and data.NUMBER not in rows.column_names:
        spans, odds = [one.span for one in found], [one.null_odds for one in found]
        reading.threshold = best_threshold(spans, wanted, odds, f1)[1]
        found = read()
    return metrics.load("squad_v2").compute(
        predictions=[one.text for one in found],
        references=wanted,
        spans=[one.span for one in found],
        null_odds=[one.null_odds for one in found],
    )


def best_threshold(
    spans: Sequence[str], references: Sequence[Sequence[str]], null_odds: Sequence[float], measure: Any
) -> tuple[float, float]:
    """The highest mean that a measure can have where questions whose odds are above a threshold have no
    answer, and this threshold: half-way between two rows' odds, of equals the lowest.

    Args:
        spans: what is answered to questions below the threshold.
        measure: `exact` or `f1`.
    """
    lacks = np.array([not any(map(normalized, texts)) for texts in references], np.float64)
    gains = [
        max(measure(span, text) for text in wanted_texts(texts)) if span else float(lack)
        for span, texts, lack in zip(spans, references, lacks, strict=True)
    ]
    order = np.argsort(np.asarray(null_odds), kind="stable")
    odds = np.asarray(null_odds, np.float64)[order]
    finite = odds[np.isfinite(odds)]
    if not len(finite):
        return float(lacks.mean()), 0.0
    edges = np.unique(finite)
    thresholds = np.concatenate([[edges[0] - 1], (edges[:-1] + edges[1:]) / 2, [edges[-1] + 1]])
    changes = np.concatenate([[0.0], np.cumsum((np.array(gains) - lacks)[order])])
    means = (lacks.sum() + changes[np.searchsorted(odds, thresholds, side="right")]) / len(lacks)
    at = int(np.argmax(np.round(means, 12)))
    return float(means[at]), float(thresholds[at])
