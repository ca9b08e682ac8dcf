"""Rows of different lengths in one array, and arrays in few shapes."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

UNCOUNTED = -100  # the target of a place that counts for nothing, in every framework


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


def uncounted(batch: dict[str, np.ndarray], targets: Collection[str]) -> dict[str, np.ndarray]:
    """A batch whose `targets` count for nothing."""
    return batch | {name: np.full_like(batch[name], UNCOUNTED) for name in targets}


def in_few_shapes(
    batch: dict[str, np.ndarray],
    rows: int,
    widest: Mapping[str, Sequence[int]],
    targets: Collection[str],
    pad_token_id: int,
    longest: int | None = None,
) -> dict[str, np.ndarray]:
    """A collated batch filled up to `rows` rows. Whole numbers of several axes are places of sequences, whose
    last axis is filled up to the next `bucket`; other axes get the size that they have in any process.

    Args:
        widest: by name, the sizes of all axes but the first in the largest such array of any process.
        targets: names of the arrays that are filled with UNCOUNTED.
        pad_token_id: what arrays of token ids, `…input_ids`, are filled with; all others with 0.
        longest: the most places that a model has; None for one without a table of positions.
    """

    def grown(name: str, array: np.ndarray) -> np.ndarray:
        sizes = [rows, *widest[name]]
        if array.ndim > 1 and array.dtype.kind == "i":
            sizes[-1] = max(sizes[-1], int(min(bucket(sizes[-1]), longest or math.inf)))
        missing = [(0, size - own) for size, own in zip(sizes, array.shape, strict=True)]
        ids = name.endswith("input_ids")
        fill = UNCOUNTED if name in targets else pad_token_id if ids else 0
        return np.pad(array, missing, constant_values=fill)

    return {name: grown(name, array) for name, array in batch.items()}
