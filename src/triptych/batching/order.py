"""Which rows make which batch: pure functions of (seed, epoch, lengths)."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from triptych.batching.padding import bucket

# Rows are sorted by length within groups of this many batches: large enough that batches hold equal lengths,
# small enough that the order stays random.
BATCHES_PER_GROUP = 50


def epoch_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """A random order of `rows` rows, int64 (rows,), different in each epoch."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def epoch_batches(
    seed: int,
    epoch: int,
    rows: int,
    batch_size: int,
    *,
    lengths: Sequence[int] | np.ndarray | None = None,
    drop_last: bool = False,
) -> list[np.ndarray]:
    """One epoch's rows in batches of `batch_size` (rows of all processes together), the last perhaps smaller.

    Args:
        lengths: tokens of each row; if given, rows of similar length share a batch, and the longest batch
            comes first, so that too little memory shows at once.

    Returns:
        int64 arrays of row numbers; each row occurs once (unless `drop_last` leaves some out).
    """
    order = epoch_order(seed, epoch, rows)
    if lengths is not None:
        lengths = np.asarray(lengths)
        group = batch_size * BATCHES_PER_GROUP
        groups = [order[start : start + group] for start in range(0, rows, group)]
        order = (
            np.concatenate([g[np.argsort(-lengths[g], kind="stable")] for g in groups]) if groups else order
        )
    batches = [order[start : start + batch_size] for start in range(0, rows, batch_size)]
    if drop_last and batches and len(batches[-1]) < batch_size:
        batches.pop()
    if lengths is not None and batches:
        # Within a group the batches fall in length, which the loss would follow; only full ones change
        # places.
        full = len(batches) - (len(batches[-1]) < batch_size)
        places = np.random.default_rng([seed, epoch, 1]).permutation(full)
        longest = max(range(full), key=lambda i: lengths[batches[places[i]]].max(), default=0)
        if full:
            places[[0, longest]] = places[[longest, 0]]
        batches[:full] = [batches[place] for place in places]
    return batches


def batches_per_epoch(rows: int, batch_size: int, drop_last: bool = False) -> int:
    """How many batches `epoch_batches` gives."""
    return rows // batch_size if drop_last else math.ceil(rows / batch_size)


def share(batch: np.ndarray, process: int, processes: int) -> np.ndarray:
    """The rows of a batch that one process computes: contiguous, and of sizes that differ by one at most."""
    return np.array_split(batch, processes)[process]


def steps(
    seed: int,
    rows: int,
    batch_size: int,
    accumulation: int,
    *,
    start: int = 0,
    lengths: Sequence[int] | np.ndarray | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The epoch and the batches of each optimizer step without end, beginning after `start` steps already
    done.

    Each step is a list of at most `accumulation` batches; an epoch's last step may be shorter, and batches
    never cross from one epoch into the next. To begin late costs one epoch's order, however many steps were
    done.
    """
    per_epoch = max(1, math.ceil(batches_per_epoch(rows, batch_size, drop_last) / accumulation))
    epoch, skipped = divmod(start, per_epoch)
    while True:
        batches = epoch_batches(seed, epoch, rows, batch_size, lengths=lengths, drop_last=drop_last)
        for step in range(skipped, per_epoch):
            yield epoch, batches[step * accumulation : (step + 1) * accumulation]
        epoch, skipped = epoch + 1, 0


def rows_at_once(longest: int, rows: int, max_tokens: int | None, sequences: int = 1) -> int:
    """How many of `rows` rows a device computes at once, so that it stays within `--max_tokens_per_batch` and
    no part is much smaller than the others.

    Lengths count as padded to their `bucket`: what JAX computes, the other forms do not exceed, and all of
    them compute the same.

    Args:
        longest: tokens of the longest sequence; a row that alone has more than `max_tokens` is computed
            alone.
        sequences: that a row has, such as choices.
    """
    tokens = sequences * bucket(longest)
    parts = 1 if max_tokens is None else math.ceil(rows / max(1, max_tokens // tokens))
    return math.ceil(rows / parts)


def passes(
    batch: np.ndarray,
    lengths: Sequence[int] | np.ndarray,
    rows_per_device: int,
    max_tokens: int | None,
    devices: int = 1,
    sequences: int = 1,
) -> list[np.ndarray]:
    """A batch in the parts that are computed at once: as a whole, or, if it has more than `max_tokens` tokens
    for each device, in several, the longest rows first.

    Args:
        batch: row numbers.
        lengths: tokens of each row by its number; not looked at without `max_tokens`.
        rows_per_device: of a full batch.
        sequences: see `rows_at_once`.
    """
    if max_tokens is None:
        return [batch]
    parts, rest = [], batch[np.argsort(-np.asarray(lengths)[batch], kind="stable")]
    while len(rest):
        count = devices * rows_at_once(lengths[rest[0]], rows_per_device, max_tokens, sequences)
        parts.append(rest[:count])
        rest = rest[count:]
    return parts if len(parts) > 1 else [batch]


def evaluation_batches(
    lengths: np.ndarray | None, rows: int, args: Any, devices: int = 1, sequences: int = 1
) -> list[np.ndarray]:
    """All rows once, longest first, in batches of at most `--per_device_eval_batch_size` rows for each device
    and within `--max_tokens_per_batch`: little padding, and too little memory shows at once.

    Args:
        lengths: tokens of each row; None where rows have no length, and keep their order.
        sequences: see `rows_at_once`.
    """
    if lengths is None:
        size = args.per_device_eval_batch_size * devices
        return [np.arange(start, min(start + size, rows)) for start in range(0, rows, size)]
    rest = np.argsort(-lengths, kind="stable")
    batches = []
    while len(rest):
        limits = args.per_device_eval_batch_size, args.max_tokens_per_batch
        at_once = rows_at_once(lengths[rest[0]], *limits, sequences)
        batches.append(rest[: at_once * devices])
        rest = rest[at_once * devices :]
    return batches
