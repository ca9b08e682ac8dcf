"""Rows of pictures as one array: decoded, augmented in training, and as the checkpoint wants them."""

import logging
from typing import Any

import numpy as np
from PIL import Image

from triptych.batching import Draws
from triptych.data.pictures import FOLDER, PICTURE
from triptych.errors import RunError
from triptych.images import augmentation
from triptych.images.decoding import Unreadable, decoded, name_of
from triptych.images.processors import Processor

logger = logging.getLogger(__name__)

AUGMENTED, OF_PARTNERS, PARTNERS = 1, 2, 3  # what draws serve
MOST_TOLD = 20  # pictures that cannot be decoded, by name
_left_out: set[str] = set()  # names of those that training went without


def pixel_values(
    rows: dict[str, list], draws: Draws, processor: Processor, data_args: Any, purpose: int = AUGMENTED
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures as the model sees them, float32 (rows, channels, height, width), and which could be decoded,
    bool (rows,). Those of training rows are augmented as the flags say, and are black if they are broken.

    Args:
        rows: features by row: the pictures and the folders that paths are relative to.
        data_args: `PictureArguments`: augment, crop_scale, horizontal_flip.
        purpose: what the draws serve, see `Draws.bits`.

    Raises:
        RunError: for a broken picture that is to be evaluated or predicted.
    """
    height, width = processor.output_size
    pixels = np.zeros((len(rows[PICTURE]), 3, height, width), np.float32)
    readable = np.ones(len(pixels), bool)
    augments = draws.in_training and data_args.augment != "none"
    numbers = draws.uniform(augmentation.NUMBERS, purpose) if augments else None
    for row, value in enumerate(rows[PICTURE]):
        folder = rows[FOLDER][row] if FOLDER in rows else None
        try:
            if numbers is None:
                picture = processor.fitted(decoded(value, folder))
            else:
                picture = _augmented(value, folder, numbers[row], processor, data_args)
        except Unreadable as error:
            if not draws.in_training:
                raise RunError(f"{name_of(value) or 'A picture'} cannot be decoded: {error}.") from error
            _tell(name_of(value), error)
            readable[row] = False
        else:
            processor.normalised(picture, out=pixels[row])
    return pixels, readable


def _augmented(
    value: Any, folder: str | None, numbers: np.ndarray, processor: Processor, data_args: Any
) -> np.ndarray:
    size = processor.output_size
    picture = decoded(
        value, folder, lambda whole: augmentation.crop(numbers, whole, data_args.crop_scale), size
    )
    resized = processor.resize(Image.fromarray(picture), size)
    return np.asarray(augmentation.changed(resized, numbers, data_args.augment, data_args.horizontal_flip))


def _tell(name: str, error: Unreadable) -> None:
    if name in _left_out or len(_left_out) >= MOST_TOLD:
        return
    _left_out.add(name)
    more = "; further ones are not named" if len(_left_out) == MOST_TOLD else ""
    logger.warning(
        "train: %s cannot be decoded (%s) and counts for nothing; so do %d so far%s.",
        *(name or "a picture", error, len(_left_out), more),
    )
