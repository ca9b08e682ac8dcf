"""The order of rows, a pure function of (seed, epoch, lengths), and the batches made of them."""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from triptych import data

# Rows are sorted by length within groups of this many batches: large enough that batches hold equal lengths,
# small enough that the order stays random.
BATCHES_PER_GROUP = 50
# Streamed rows are shuffled within a window of this many.
SHUFFLE_WINDOW = 10_000


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
) -> Iterator[list[np.ndarray]]:
    """The batches of each optimizer step without end, beginning after `start` steps already done.

    Each step is a list of at most `accumulation` batches; an epoch's last step may be shorter, and batches
    never cross from one epoch into the next. To begin late costs one epoch's order, however many steps were
    done.
    """
    per_epoch = max(1, math.ceil(batches_per_epoch(rows, batch_size, drop_last) / accumulation))
    epoch, skipped = divmod(start, per_epoch)
    while True:
        batches = epoch_batches(seed, epoch, rows, batch_size, lengths=lengths, drop_last=drop_last)
        for step in range(skipped, per_epoch):
            yield batches[step * accumulation : (step + 1) * accumulation]
        epoch, skipped = epoch + 1, 0


def rows_at_once(longest: int, rows: int, max_tokens: int | None) -> int:
    """How many of `rows` rows a device computes at once, so that it stays within `--max_tokens_per_batch` and
    no part is much smaller than the others.

    Lengths count as padded to their `bucket`: what JAX computes, the other forms do not exceed, and all of
    them compute the same.

    Args:
        longest: tokens of the longest row; one that alone has more than `max_tokens` is computed alone.
    """
    parts = 1 if max_tokens is None else math.ceil(rows / max(1, max_tokens // bucket(longest)))
    return math.ceil(rows / parts)


def passes(
    batch: np.ndarray,
    lengths: Sequence[int] | np.ndarray,
    rows_per_device: int,
    max_tokens: int | None,
    devices: int = 1,
) -> list[np.ndarray]:
    """A batch in the parts that are computed at once: as a whole, or, if it has more than `max_tokens` tokens
    for each device, in several, the longest rows first.

    Args:
        batch: row numbers.
        lengths: tokens of each row by its number; not looked at without `max_tokens`.
        rows_per_device: of a full batch.
    """
    if max_tokens is None:
        return [batch]
    parts, rest = [], batch[np.argsort(-np.asarray(lengths)[batch], kind="stable")]
    while len(rest):
        count = devices * rows_at_once(lengths[rest[0]], rows_per_device, max_tokens)
        parts.append(rest[:count])
        rest = rest[count:]
    return parts if len(parts) > 1 else [batch]


def evaluation_batches(lengths: np.ndarray, args: Any, devices: int = 1) -> list[np.ndarray]:
    """All rows once, longest first, in batches of at most `--per_device_eval_batch_size` rows for each device
    and within `--max_tokens_per_batch`: little padding, and too little memory shows at once."""
    rest = np.argsort(-lengths, kind="stable")
    batches = []
    while len(rest):
        rows = rows_at_once(lengths[rest[0]], args.per_device_eval_batch_size, args.max_tokens_per_batch)
        batches.append(rest[: rows * devices])
        rest = rest[rows * devices :]
    return batches


def pad(rows: Sequence[Sequence[int]], value: int, length: int | None = None) -> np.ndarray:
    """Rows of token ids as one int64 array (rows, length), filled up on the right.

    Args:
        length: columns of the result, which no row may exceed (default: those of the longest row).
    """
    padded = np.full((len(rows), length or max(map(len, rows), default=1)), value, dtype=np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def bucket(length: int) -> int:
    """The next of few lengths (32, 64, 96, 128, 192, 256, 384, ...), for compilers that make a program for
    each. Docstrings need a tenth more computing so than with twice as many, and a quarter of the programs."""
    power = max(32, 2 ** math.ceil(math.log2(max(1, length))))
    return 3 * power // 4 if power > 64 and length <= 3 * power // 4 else power


def in_few_shapes(
    batch: dict[str, np.ndarray],
    rows: int,
    columns: dict[str, int],
    longest: dict[str, int],
    fill: dict[str, int],
) -> dict[str, np.ndarray]:
    """A collated batch filled up to `rows` rows, and on the right to the next `bucket`.

    Args:
        columns: by name, the columns of the widest array of any process.
        longest: by name, the most columns that an array may have; one that is not named keeps its columns.
        fill: by name, the value that is no data.
    """

    def grown(name: str, array: np.ndarray) -> np.ndarray:
        missing = [(0, rows - array.shape[0]), *[(0, 0)] * (array.ndim - 1)]
        if name in longest:
            width = max(columns[name], min(bucket(columns[name]), longest[name]))
            missing[1] = (0, width - array.shape[1])
        return np.pad(array, missing, constant_values=fill[name])

    return {name: grown(name, array) for name, array in batch.items()}


def part(
    dataset: Any, batch: np.ndarray, rows: np.ndarray, collate: Callable[[dict[str, list]], dict[str, Any]]
) -> dict[str, Any]:
    """The collated `rows`, a process's share of a batch. One that has none, because there are more processes
    than rows, computes the batch's first row with labels that count for nothing."""
    if len(rows):
        return collate(dataset[rows])
    collated = collate(dataset[batch[:1]])
    return collated | {"labels": np.full_like(collated["labels"], -100)}


def step_batches(
    dataset: Any,
    collate: Callable[[dict[str, list]], dict[str, np.ndarray]],
    args: Any,
    *,
    start: int = 0,
    devices: int = 1,
    process: int = 0,
    processes: int = 1,
) -> Iterator[list[dict[str, np.ndarray]]]:
    """The collated batches of each optimizer step without end, after `start` steps already done. A batch of
    more than `--max_tokens_per_batch` comes in parts, whose gradients add up to the same step.

    With `--dataloader_num_workers` that many threads prepare steps ahead.

    Args:
        dataset: tokenized rows; a stream has no epochs, its rows come again and again.
        devices: that share each batch: it has `--per_device_train_batch_size` rows for each.
        process: of `processes`, whose share of the rows is wanted.
    """
    import datasets

    size, accumulation = args.per_device_train_batch_size * devices, args.gradient_accumulation_steps

    def parts(rows: Any, batch: np.ndarray, lengths: Sequence[int] | np.ndarray) -> list[dict]:
        limits = args.per_device_train_batch_size, args.max_tokens_per_batch
        own = passes(batch, lengths, *limits, devices)
        return [part(rows, each, share(each, process, processes), collate) for each in own]

    if not data.is_stream(dataset):
        lengths = data.lengths(dataset) if args.group_by_length or args.max_tokens_per_batch else ()
        order = steps(
            args.data_seed,
            len(dataset),
            size,
            accumulation,
            start=start,
            lengths=lengths if args.group_by_length else None,
            drop_last=args.dataloader_drop_last,
        )

        def prepare(step: list) -> list[dict[str, np.ndarray]]:
            return [each for batch in step for each in parts(dataset, batch, lengths)]
    else:
        batches = stream(dataset, size, args.data_seed, start * accumulation)
        order = iter(lambda: list(itertools.islice(batches, accumulation)), [])  # type: ignore[arg-type]

        def prepare(step: list) -> list[dict[str, np.ndarray]]:
            taken = map(datasets.Dataset.from_dict, step)
            return [each for rows in taken for each in parts(rows, np.arange(size), data.lengths(rows))]

    return _ahead(prepare, order, args.dataloader_num_workers)


def _ahead(prepare: Callable, items: Iterator, workers: int) -> Iterator:
    """`map(prepare, items)`, with threads working ahead of the reader if there are workers."""
    if not workers:
        yield from map(prepare, items)
        return
    with ThreadPoolExecutor(workers) as threads:
        prepared = deque(threads.submit(prepare, item) for item in itertools.islice(items, 2 * workers))
        for item in items:
            yield prepared.popleft().result()
            prepared.append(threads.submit(prepare, item))


def stream(rows: Any, batch_size: int, seed: int, start: int = 0) -> Iterator[dict[str, list]]:
    """Batches of streamed rows without end; a batch may span two passes, and every batch is full.

    Each pass shuffles within a window of `SHUFFLE_WINDOW` rows, in an order that (seed, pass) decides.

    Args:
        rows: a `datasets.IterableDataset`.
        start: batches already done; their rows are read but not given.
    """
    pending: list[dict[str, Any]] = []
    shuffled = rows.shuffle(seed=seed, buffer_size=SHUFFLE_WINDOW)
    for epoch in itertools.count():
        shuffled.set_epoch(epoch)
        for row in shuffled:
            pending.append(row)
            if len(pending) == batch_size:
                start -= 1
                if start < 0:
                    yield {name: [one[name] for one in pending] for name in pending[0]}
                pending = []
