"""The batches that a script trains on and evaluates with, the same rows in every form."""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from triptych import data
from triptych.batching import order
from triptych.batching.draws import IN_EVALUATION, Draws
from triptych.batching.padding import UNCOUNTED, pad, uncounted
from triptych.launchers import World

__all__ = ["UNCOUNTED", "Batch", "Draws", "evaluation", "pad", "part", "step_batches", "stream", "tokens"]

SHUFFLE_WINDOW = 10_000  # streamed rows are shuffled within a window of this many

Batch = dict[str, np.ndarray]
Collate = Callable[[dict[str, list], Draws], Batch]


def tokens(batch: Batch) -> int:
    """The work in a batch: its tokens without padding, and those of the decoder if there is one; of pictures,
    which are all of one size, their number."""
    if "pixel_values" in batch and "attention_mask" not in batch:
        return len(batch["pixel_values"])
    of_decoder = int((batch["labels"] != UNCOUNTED).sum()) if "decoder_input_ids" in batch else 0
    return int(batch["attention_mask"].sum()) + of_decoder


def part(
    features: Any,
    batch: np.ndarray,
    share: np.ndarray,
    collate: Collate,
    targets: Collection[str],
    seed: int,
    first_draw: int,
) -> Batch:
    """The collated rows of `share`, a process's part of a batch. One without rows, because there are more
    processes than rows, computes the batch's first row with targets that count for nothing.

    Args:
        features: what `preprocess` made of the rows.
        batch, share: row numbers, int64 (rows,).
        first_draw: the draw of row 0; see `Draws`.
    """
    rows = share if len(share) else batch[:1]
    collated = collate(features[rows], Draws(seed, rows + first_draw))
    return collated if len(share) else uncounted(collated, targets)


def step_batches(
    features: Any, collate: Collate, targets: Collection[str], args: Any, world: World, start: int = 0
) -> Iterator[list[Batch]]:
    """This process's share of the collated batches of each optimizer step, without end. A batch of more than
    `--max_tokens_per_batch` comes in parts, whose gradients add up to the same step.

    With `--dataloader_num_workers` that many threads prepare steps ahead.

    Args:
        features: a Dataset; or a stream, which has no epochs: its rows come again and again.
        targets: names of the arrays whose places other than UNCOUNTED the loss is summed over.
        start: steps already done.
    """
    import datasets

    size, accumulation = args.per_device_train_batch_size * world.devices, args.gradient_accumulation_steps
    own_part = partial(part, collate=collate, targets=targets, seed=args.data_seed)

    def parts(rows: Any, batch: np.ndarray, lengths: Any, sequences: int, first_draw: int) -> list[Batch]:
        limits = args.per_device_train_batch_size, args.max_tokens_per_batch
        at_once = order.passes(batch, lengths, *limits, world.devices, sequences)
        shares = [order.share(each, world.share, world.shares) for each in at_once]
        return [own_part(rows, *both, first_draw=first_draw) for both in zip(at_once, shares, strict=True)]

    def of_stream(step: Any) -> list[Batch]:
        taken = [(number * size, datasets.Dataset.from_dict(columns)) for number, columns in step]
        batch = np.arange(size)
        return [
            each
            for draw, rows in taken
            for each in parts(rows, batch, data.lengths(rows), data.sequences(rows), draw)
        ]

    if data.is_stream(features):
        first = start * accumulation
        batches = enumerate(stream(features, size, args.data_seed, first), first)
        return ahead(of_stream, grouped(batches, accumulation), args.dataloader_num_workers)

    lengths = data.lengths(features) if args.group_by_length or args.max_tokens_per_batch else None
    sequences = data.sequences(features) if args.max_tokens_per_batch else 1

    def of_rows(step: Any) -> list[Batch]:
        epoch, batches = step
        first_draw = epoch * len(features)
        return [each for batch in batches for each in parts(features, batch, lengths, sequences, first_draw)]

    numbered = order.steps(
        args.data_seed,
        len(features),
        size,
        accumulation,
        start=start,
        lengths=lengths if args.group_by_length else None,
        drop_last=args.dataloader_drop_last,
    )
    return ahead(of_rows, numbered, args.dataloader_num_workers)


def evaluation(
    features: Any, collate: Collate, targets: Collection[str], args: Any, world: World
) -> Iterator[tuple[list[int], Batch]]:
    """This process's share of every batch of an evaluation: the numbers of its rows, and the collated batch.
    Each row comes once; where a share is empty, the batch holds one row that counts for nothing."""

    def prepare(batch: np.ndarray) -> tuple[list[int], Batch]:
        own = order.share(batch, world.share, world.shares)
        return own.tolist(), part(features, batch, own, collate, targets, args.data_seed, IN_EVALUATION)

    sequences = data.sequences(features) if args.max_tokens_per_batch else 1
    batches = order.evaluation_batches(data.lengths(features), len(features), args, world.devices, sequences)
    return ahead(prepare, iter(batches), args.dataloader_num_workers)


def ahead(prepare: Callable, items: Iterator, workers: int) -> Iterator:
    """`map(prepare, items)`, with threads that work ahead of the reader if there are workers."""
    if not workers:
        yield from map(prepare, items)
        return
    with ThreadPoolExecutor(workers) as threads:
        prepared = deque(threads.submit(prepare, item) for item in itertools.islice(items, 2 * workers))
        while prepared:
            yield prepared.popleft().result()
            prepared.extend(threads.submit(prepare, item) for item in itertools.islice(items, 1))


def grouped(items: Iterator, size: int) -> Iterator[list]:
    """Lists of `size` items, the last perhaps shorter."""
    while group := list(itertools.islice(items, size)):
        yield group


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
