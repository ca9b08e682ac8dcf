"""How well texts are predicted: perplexity, accuracy, and bits per byte, by which tokenizers compare."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych.data import NUMBER
from triptych.data.documents import BYTES

DOMAINS = ("source", "domain")  # columns whose values have perplexities of their own
FALLING = ("perplexity", "bits_per_byte")  # the lower, the better


def score(answers: Sequence[Sequence[np.ndarray]], rows: Any) -> dict[str, Any]:
    """Metrics of documents that were predicted token by token; nothing if none had a token to predict.

    Args:
        answers: for each row that of its pieces: (nats, tokens that were the likeliest, tokens predicted).
        rows: the raw rows; with the column BYTES if tokens stand for all of a text, each once.

    Returns:
        `perplexity`, e to the nats per token, None where that is too large; `accuracy`, the share of tokens
        that were the likeliest; and `bits_per_byte` of the text that the tokens stand for.
    """
    nats, right, tokens = totals(answers).sum(axis=0)
    if not tokens:
        return {}
    size = sum(rows[BYTES]) if BYTES in rows.column_names else 0
    found: dict[str, Any] = {"perplexity": exponential(nats / tokens), "accuracy": float(right / tokens)}
    return found | ({"bits_per_byte": float(nats / math.log(2) / size)} if size else {})


def by_source(answers: Sequence[Sequence[np.ndarray]], rows: Any) -> dict[str, dict[str, Any]]:
    """Loss, perplexity and rows of each value of the first of DOMAINS that is a column; none unless there are
    several. Arguments are those of `score`."""
    column = next((name for name in DOMAINS if name in rows.column_names), None)
    sources, sums = [str(value) for value in rows[column]] if column else [], totals(answers)
    several = sorted({*sources})
    return {source: _of(source, sources, sums) for source in several} if len(several) > 1 else {}


def totals(answers: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The sums of each row's pieces, float64 (rows, 3); 0 for rows that have none."""
    none = np.zeros(3)
    return np.array([np.sum(pieces, axis=0, dtype=np.float64) if len(pieces) else none for pieces in answers])


def _of(source: str, sources: Sequence[str], sums: np.ndarray) -> dict[str, Any]:
    own = np.array([one == source for one in sources])
    nats, _, tokens = sums[own].sum(axis=0)
    loss = float(nats / tokens) if tokens else None
    return {"loss": loss, "perplexity": None if loss is None else exponential(loss), "rows": int(own.sum())}


def exponential(nats: float) -> float | None:
    """e to that, or None if it is too large."""
    return float(math.exp(nats)) if nats < math.log(np.finfo(np.float64).max) else None


def table(answers: Sequence[Sequence[np.ndarray]], rows: Any, decimals: int = 4) -> list[list[Any]]:
    """A line for each row, with its number in the source, how many tokens were predicted, their nats and
    perplexity; the last two are empty where there was none.

    Args:
        rows: the raw rows to predict, as `data.load` gives them.
        decimals: of nats and perplexity.
    """
    lines: list[list[Any]] = [["row", "tokens", "nats", "perplexity"]]
    for number, (nats, _, tokens) in zip(rows[NUMBER], totals(answers), strict=True):
        perplexity = exponential(nats / tokens) if tokens else None
        shown = ["" if value is None else f"{value:.{decimals}f}" for value in (nats, perplexity)]
        lines.append([number, int(tokens), *(shown if tokens else ["", ""])])
    return lines
