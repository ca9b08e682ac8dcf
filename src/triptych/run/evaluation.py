"""The bookkeeping of an evaluation: which batches, what is kept of each, and what comes of it."""

import math
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from triptych import batching, data
from triptych.errors import RunError
from triptych.output import results
from triptych.run.training import Training


class Evaluation:
    """One pass over the rows of a split.

    Args:
        prefix: of the metrics' names: eval or predict, perhaps with a suffix.
        training: the run; each of its processes evaluates its share.

    Attributes:
        wants_answers: whether the model's answers are needed beside its loss. Where they have to be
            generated, that is for predictions, and with `--predict_with_generate`.
    """

    def __init__(self, prefix: str, training: Training):
        self.prefix, self.training = prefix, training
        is_asked = training.args.predict_with_generate or prefix.startswith("predict")
        self.wants_answers = is_asked or not training.data_args.generates
        self._outcomes: list[results.Outcome] = []
        self._raw_rows: list[Any] | None = None
        self._began = time.perf_counter()

    def batches(
        self, features: Any, collate: batching.Collate, targets: Collection[str]
    ) -> Iterator[tuple[list[int], batching.Batch]]:
        """This process's share of every batch; see `batching.evaluation`.

        Raises:
            signals.Stopped: if any process was asked to stop.
        """
        args, world = self.training.args, self.training.world
        self._raw_rows = features[data.ROW][:] if data.ROW in features.column_names else None
        for rows, batch in batching.evaluation(features, collate, targets, args, world):
            self.training.stop.check()
            yield rows, batch

    def add(self, rows: list[int], loss: float, targets: int, answers: list[Any] | None) -> None:
        """Keeps what came of a batch.

        Args:
            rows: their numbers.
            loss: summed over the targets.
            targets: their number.
            answers: one a row, small once `DataArguments.condense` has seen it; those beyond the rows are of
                rows that a batch was filled up with.
        """
        condense = self.training.data_args.condense
        # A list of numbers takes eight times the room of an array.
        kept = None if answers is None else [condense(_compact(answer)) for answer in answers[: len(rows)]]
        self._outcomes.append((rows, loss, targets, kept))

    def result(
        self, score: Callable[[list[Any], Any], dict[str, float]], rows: Any, whole: bool = False
    ) -> tuple[dict[str, float], list[Any]]:
        """Loss, time and, if answers were wanted, their scores; and the answers in the order of the rows.
        Where features say which raw row they are of, the answer to a raw row is the list of its features';
        where they say so of their pieces, it is the list of its pieces', and features' answers are lists.

        Args:
            score: `(answers, raw rows) -> metrics`.
            rows: the raw rows.
            whole: whether every process has seen the outcomes of all.

        Raises:
            RunError: if the loss is not finite: whatever comes of such a model is worth nothing.
        """
        outcomes = self._outcomes if whole else self.training.world.gather(self._outcomes)
        seconds = time.perf_counter() - self._began
        values, answers = results.combine(outcomes, self.prefix, len(rows), seconds)
        if self._raw_rows is not None and self.wants_answers:
            of_features, answers = answers, [[] for _ in range(len(rows))]
            for row, answer in zip(self._raw_rows, of_features, strict=True):
                several = isinstance(row, list)
                # Behind the answers to pieces may stand some to padding.
                for each, own in zip(row, answer, strict=False) if several else [(row, answer)]:
                    answers[each].append(own)
        loss = values.get(f"{self.prefix}_loss", 0.0)
        if not math.isfinite(loss):
            raise RunError(
                f"The loss of the rows to {self.prefix.partition('_')[0]} is {loss}: the model's weights are "
                "spoilt, or its numbers too large for the precision. Try it without --fp16."
            )
        if self.wants_answers:
            values |= results.prefixed(self.prefix, score(answers, rows))
        return values, answers


def _compact(answer: Any) -> Any:
    """A list of numbers, or of such lists, as an array; floats as float32, which the models compute in."""
    if not isinstance(answer, list):
        return answer
    found = np.asarray(answer)
    return found.astype(np.float32) if found.dtype.kind == "f" else found
