"""How well hidden tokens are found: perplexity and accuracy, and the likeliest for each place."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych.batching.padding import UNCOUNTED
from triptych.data import NUMBER
from triptych.metrics.perplexity import exponential

BEST = 5  # tokens that are kept of each place of rows to predict
PLACE, LABEL, NATS, RIGHT, FILLINGS = range(5)  # columns of an answer: at last ids, and probabilities


def condensed(answer: np.ndarray) -> np.ndarray:
    """What is kept of the answer to a row.

    Args:
        answer: float32 (hidden, 4), columns PLACE to RIGHT; of rows to predict FILLINGS behind them.

    Returns:
        The lines of targets; without FILLINGS float32 (3,) sums over those whose token is known: nats, tokens
        that were the likeliest, tokens.
    """
    found = answer[answer[:, PLACE] != UNCOUNTED]
    return found if answer.shape[1] > FILLINGS else _sums(found)


def _sums(found: np.ndarray) -> np.ndarray:
    known = found[found[:, LABEL] != UNCOUNTED].astype(np.float64)
    return np.array([known[:, NATS].sum(), known[:, RIGHT].sum(), len(known)])


def _sequences(answer: Any) -> list[np.ndarray]:
    """The answers to the sequences of a row, or to one sequence, without those that say nothing. Where they
    come from another process, arrays may have become lists."""
    several = isinstance(answer, list) and not (answer and isinstance(answer[0], float))
    return [np.asarray(each) for each in (answer if several else [answer]) if len(each)]


def score(answers: Sequence[Any]) -> dict[str, Any]:
    """`perplexity`, e to the nats per token, None where that is too large; and `accuracy`, the share of
    tokens that were the likeliest. Nothing if of no hidden token it is known which stood there.

    Args:
        answers: what `condensed` gives of each sequence, or for each row a list of its sequences'.
    """
    found = [each for answer in answers for each in _sequences(answer)]
    sums = [each if each.ndim == 1 else _sums(each) for each in found]
    nats, right, tokens = np.sum(sums, axis=0) if sums else np.zeros(3)
    if not tokens:
        return {}
    return {"perplexity": exponential(nats / tokens), "accuracy": float(right / tokens)}


def table(answers: Sequence[Sequence[np.ndarray]], rows: Any, tokenizer: Any) -> list[list[Any]]:
    """A line for each hidden token, in their order: the row's number in the source, the likeliest tokens as
    the vocabulary spells them, each with its probability; and what stood there and its nats, both empty if
    that is not known.

    Args:
        answers: for each row those of its sequences, with FILLINGS.
        rows: the raw rows to predict, as `data.load` gives them.
    """
    names = [f"{name}_{number}" for number in range(1, BEST + 1) for name in ("filling", "probability")]
    lines: list[list[Any]] = [["row", *names, "token", "nats"]]
    for number, pieces in zip(rows[NUMBER], answers, strict=True):
        for values in (line for piece in _sequences(pieces) for line in piece):
            best: list[str] = []
            for token, probability in zip(*np.split(values[FILLINGS:], 2), strict=True):
                best += [tokenizer.convert_ids_to_tokens(int(token)), f"{probability:.4f}"]
            about = ["", ""]
            if values[LABEL] != UNCOUNTED:
                about = [tokenizer.convert_ids_to_tokens(int(values[LABEL])), f"{values[NATS]:.4f}"]
            lines.append([number, *best, *about])
    return lines
