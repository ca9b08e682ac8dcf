"""Pictures mixed with others, and their labels with them: mixup and CutMix."""

from typing import Any

import numpy as np

from triptych.batching import UNCOUNTED, Batch, Draws
from triptych.images.batches import OF_PARTNERS, PARTNERS, pixel_values
from triptych.images.processors import Processor

# Which of a row's numbers choose its partner, one of both ways, how much of each, and where a part is put in
PARTNER, WAY, SHARE, TOP, LEFT, NUMBERS = range(6)


def problems(data_args: Any) -> list[str]:
    """What is wrong with the flags mixup_alpha and cutmix_alpha."""
    names = ("mixup_alpha", "cutmix_alpha")
    found = [
        f"--{name} {value:g}: must be at least 0."
        for name in names
        if (value := getattr(data_args, name)) < 0
    ]
    if data_args.streaming and (given := [name for name in names if getattr(data_args, name)]):
        found.append(f"--{given[0]} takes partners from all rows, and --streaming has them one by one.")
    return found


def mixed(
    batch: Batch, draws: Draws, partners: Any, processor: Processor, labels: int, data_args: Any
) -> Batch:
    """A training batch whose pictures are mixed with others as `--mixup_alpha` and `--cutmix_alpha` say; any
    other batch as it is.

    The partner of a picture is drawn from all training rows, not from those that happen to share its batch:
    so it is the same for any size of batch, number of processes and accumulation, and costs a picture more
    to decode. With both flags each of the ways has half of the pictures.

    Args:
        batch: `pixel_values`, and `labels`: int64 (rows,), or float32 (rows, labels) of rows that may have
            several, or float32 (rows,), values.
        partners: the features of all training rows.
        labels: their number.
        data_args: the flags mixup_alpha, cutmix_alpha, and those that `pixel_values` reads.

    Returns:
        The batch with mixed pictures. Labels that are numbers stay, as what counts a row or does not; beside
        them is `label_weights`, float32 (rows, labels): how much of a row's target each label is. Others are
        mixed themselves.
    """
    alphas = data_args.mixup_alpha, data_args.cutmix_alpha
    if not draws.in_training or not any(alphas):
        return batch
    numbers = draws.uniform(NUMBERS, PARTNERS)
    others = partners[(numbers[:, PARTNER] * len(partners)).astype(np.int64)]
    pixels, readable = pixel_values(others, draws, processor, data_args, OF_PARTNERS)
    counts = (batch["labels"].reshape(len(readable), -1) != UNCOUNTED).all(axis=1)
    shares, mine = np.ones(len(pixels)), batch["pixel_values"]
    for row in np.flatnonzero(readable & counts):
        cuts = alphas[1] and (not alphas[0] or numbers[row, WAY] < 0.5)
        share = _beta(numbers[row, SHARE], alphas[1] if cuts else alphas[0])
        if cuts:
            shares[row] = _put_in(mine[row], pixels[row], share, numbers[row])
        else:
            shares[row] = share
            mine[row] = np.float32(share) * mine[row] + np.float32(1 - share) * pixels[row]
    own = shares.astype(np.float32)[:, None]
    if batch["labels"].dtype.kind == "i":
        theirs = np.where(readable, np.array(others["labels"]), batch["labels"])
        known = np.maximum(np.stack([batch["labels"], theirs]), 0)
        both = np.eye(labels, dtype=np.float32)[known]
        return batch | {"label_weights": own * both[0] + (1 - own) * both[1]}
    theirs, own = np.array(others["labels"], np.float32), own if batch["labels"].ndim > 1 else own[:, 0]
    return batch | {"labels": own * batch["labels"] + (1 - own) * theirs}


def _beta(number: float, alpha: float) -> float:
    """A number from 0 to below 1 as one of the distribution Beta(alpha, alpha)."""
    from scipy.special import betaincinv

    return float(betaincinv(alpha, alpha, number))


def _put_in(picture: np.ndarray, other: np.ndarray, share: float, numbers: np.ndarray) -> float:
    """Puts the same part of another picture into one, of 1 - `share` of its area (Yun et al. 2019,
    arXiv:1905.04899), and returns the share that stays: the part may reach over an edge."""
    height, width = picture.shape[1:]
    half = [round(length * (1 - share) ** 0.5) / 2 for length in (height, width)]
    middle = numbers[TOP] * height, numbers[LEFT] * width
    top, bottom = (int(np.clip(round(middle[0] + side * half[0]), 0, height)) for side in (-1, 1))
    left, right = (int(np.clip(round(middle[1] + side * half[1]), 0, width)) for side in (-1, 1))
    picture[:, top:bottom, left:right] = other[:, top:bottom, left:right]
    return 1 - (bottom - top) * (right - left) / (height * width)
