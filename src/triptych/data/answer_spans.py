"""Which span of a context is the answer: the best of each window, the best of a row, or none."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from triptych.data.label_schema import require_finite
from triptych.data.questions import NO_ANSWER
from triptych.errors import InputError
from triptych.launchers import by_the_first
from triptych.output import record

logger = logging.getLogger(__name__)

SETTING = "null_score_diff_threshold"  # of configurations, and the flag's name


class Candidate(NamedTuple):
    """A span that may be the answer, or none, whose text is empty.

    Attributes:
        start, end: of its characters in the context.
        score: sum of two logits, of its start and its end.
        probability: among the candidates of its row.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


class Answered(NamedTuple):
    """What a model answers to a row.

    Attributes:
        text: empty for no answer.
        candidates: the best first; no answer is among them where there may be none.
        span: text of the best candidate that is an answer; empty where the context has no token to be one.
        null_odds: how much higher no answer scores than that; infinite where there is none.
    """

    id: str
    text: str
    candidates: list[Candidate]
    span: str
    null_odds: float


def best(window: Any, n_best_size: int, max_answer_length: int) -> np.ndarray:
    """The best spans of a window, all that need be kept of it: float64 (1 + spans, 3), start, end (both in
    characters) and score of each. First comes no answer, as 0, 0 and its score; then at most `n_best_size`
    spans, the best first, of equals the one that begins first.

    Args:
        window: (tokens, 4): logits of start and end, and `starts` and `ends` as `passages.cut` gives them.
        max_answer_length: the most tokens of an answer.

    Raises:
        RunError: if logits are not finite.
    """
    found = np.asarray(window, np.float64).reshape(-1, 4)
    require_finite(found[:, :2])
    none = found[found[:, 2] == NO_ANSWER, :2].sum()
    may_start, may_end = found[:, 2] >= 0, found[:, 3] >= 0
    starts = np.where(may_start, found[:, 0], -np.inf)
    ends = np.where(may_end, found[:, 1], -np.inf)
    ends = np.concatenate([ends, np.full(max_answer_length - 1, -np.inf)])
    scores = starts[:, None] + np.lib.stride_tricks.sliding_window_view(ends, max_answer_length)
    legal = np.flatnonzero(np.isfinite(scores))
    if len(legal) > n_best_size:
        legal = legal[np.argpartition(-scores.ravel()[legal], n_best_size - 1)[:n_best_size]]
    places, more = np.divmod(legal, max_answer_length)
    spans = np.stack([found[places, 2], found[places + more, 3], scores.ravel()[legal]], axis=1)
    spans = spans[np.lexsort([spans[:, 1], spans[:, 0], -spans[:, 2]])]
    return np.concatenate([[[0, 0, none]], spans[spans[:, 0] < spans[:, 1]]])


def softmax(scores: Sequence[float]) -> list[float]:
    powers = np.exp(np.array(scores) - max(scores))
    return (powers / powers.sum()).tolist()


class Reading:
    """How the answers of windows are read.

    Attributes:
        may_lack: whether a context may hold no answer.
        threshold: how much higher no answer may score than the best span, and this is given all the same.
        tunes: whether rows that are evaluated choose the threshold.
        n_best_size: candidates that are kept.
        loss_unit: of the task.
    """

    loss_unit = "nats per window"

    def __init__(self, may_lack: bool, threshold: float, tunes: bool, n_best_size: int):
        self.may_lack, self.threshold, self.tunes = may_lack, threshold, tunes
        self.n_best_size = n_best_size

    def row(self, name: str, context: str, windows: Sequence[Any]) -> Answered:
        """The answer to a row by those of its windows, see `best`. A span of several windows has its highest
        score, no answer its lowest."""
        spans: dict[tuple[int, int], float] = {}
        lowest = np.inf
        for window in windows:
            (*_, none), *found = np.asarray(window, np.float64).reshape(-1, 3).tolist()
            lowest = min(lowest, none)
            for start, end, score in found:
                place = int(start), int(end)
                spans[place] = max(score, spans.get(place, -np.inf))
        ordered = sorted(spans.items(), key=lambda item: (-item[1], item[0]))[: self.n_best_size]
        odds = lowest - ordered[0][1] if ordered else np.inf
        if self.may_lack or not ordered:
            ordered = sorted([*ordered, ((0, 0), lowest)], key=lambda item: (-item[1], item[0]))
        shares = softmax([score for _, score in ordered])
        candidates = [
            Candidate(context[start:end], start, end, score, share)
            for ((start, end), score), share in zip(ordered, shares, strict=True)
        ]
        span = next((one.text for one in candidates if one.text), "")
        is_none = self.may_lack and odds > self.threshold
        return Answered(name, "" if is_none else span, candidates, span, float(odds))

    def rows(self, answers: Sequence[Sequence[Any]], rows: Any) -> list[Answered]:
        """The answers to rows, in order.

        Args:
            answers: for each row its windows, see `best`.
            rows: the raw rows.
        """
        columns = rows["id"][:], rows["context"][:], answers
        return [self.row(*one) for one in zip(*columns, strict=True)]


def settle(config: Any, raw: dict[str, Any], data_args: Any) -> Reading:
    """How answers are read; with `--null_threshold auto` and without rows to evaluate, by the threshold that
    the model's configuration keeps.

    Raises:
        InputError: if there is none.
    """
    kept, tunes = getattr(config, SETTING, None), data_args.null_threshold == "auto"
    threshold = data_args.null_score_diff_threshold
    if tunes and kept is not None:
        threshold = kept
    elif tunes and "validation" not in raw:
        raise InputError(
            "--null_threshold auto: the model's configuration keeps no threshold; rows to evaluate "
            "(--validation_file and --do_eval) choose one."
        )
    elif data_args.version_2_with_negative and kept not in (None, threshold):
        logger.info("The model's own threshold is %g: --null_threshold auto would use it.", kept)
    return Reading(data_args.version_2_with_negative, threshold, tunes, data_args.n_best_size)


@by_the_first
def keep_threshold(output_dir: str, reading: Reading) -> None:
    """Writes the threshold that the rows chose into the configuration of the model that the run has saved."""
    path = Path(output_dir) / "config.json"
    if reading.tunes and path.name in record.written(output_dir):
        values = json.loads(path.read_text(encoding="utf-8")) | {SETTING: reading.threshold}
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        record.write(path, text.encode())
