"""Training pictures made different each time they are seen, by draws: the same in every framework, batch,
worker and process, and after any stop."""

import functools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from triptych.images.decoding import Box

TRIES = 10  # at a crop whose shape fits into the picture
RATIOS = math.log(3 / 4), math.log(4 / 3)  # of width to height of a crop
# Which numbers of a row serve what: for the crop two for each try and two for its place, then the others
CROP, MIRROR, KIND, STRENGTH, SIGN, NUMBERS = (
    0,
    2 * TRIES + 2,
    2 * TRIES + 3,
    2 * TRIES + 4,
    2 * TRIES + 5,
    26,
)
LEVELS = 31  # of strength
GREY = (128, 128, 128)  # what comes in from outside a picture that is turned or moved


def crop(numbers: np.ndarray, size: tuple[int, int], least_area: float) -> Box:
    """A part of a picture, as shares of its width and height: of an area from `least_area` of it to all, and
    of a shape from 3:4 to 4:3 (Szegedy et al. 2014, "Going deeper with convolutions"); the largest part of
    such a shape, from its middle, if none that was drawn fits.

    Args:
        numbers: float64 (NUMBERS,) from 0 to below 1.
        size: width and height.
    """
    width, height = size
    for attempt in range(TRIES):
        area, shape = numbers[CROP + 2 * attempt : CROP + 2 * attempt + 2]
        pixels = width * height * (least_area + (1 - least_area) * area)
        ratio = math.exp(RATIOS[0] + (RATIOS[1] - RATIOS[0]) * shape)
        part = math.sqrt(pixels * ratio) / width, math.sqrt(pixels / ratio) / height
        if max(part) <= 1:
            place = numbers[CROP + 2 * TRIES : CROP + 2 * TRIES + 2]
            left, top = (1 - share for share in part)
            left, top = left * place[0], top * place[1]
            return left, top, left + part[0], top + part[1]
    ratio = min(max(width / height, math.exp(RATIOS[0])), math.exp(RATIOS[1]))
    part = min(1.0, ratio * height / width), min(1.0, width / ratio / height)
    return (1 - part[0]) / 2, (1 - part[1]) / 2, (1 + part[0]) / 2, (1 + part[1]) / 2


def changed(picture: Image.Image, numbers: np.ndarray, kind: str, horizontal_flip: bool) -> Image.Image:
    """A cropped and resized picture, mirrored half of the times, and by the kind "trivial" changed.

    Args:
        numbers: float64 (NUMBERS,) from 0 to below 1.
        kind: one of `pictures.AUGMENTATIONS`.
    """
    if horizontal_flip and numbers[MIRROR] < 0.5:
        picture = ImageOps.mirror(picture)
    return trivial(picture, numbers) if kind == "trivial" else picture


def trivial(picture: Image.Image, numbers: np.ndarray) -> Image.Image:
    """A picture changed by one operation of random strength, of those of TrivialAugment in their wide form
    (Müller and Hutter 2021, arXiv:2103.10158).

    Args:
        numbers: float64 (NUMBERS,) from 0 to below 1.
    """
    operation = OPERATIONS[int(numbers[KIND] * len(OPERATIONS))]
    strength = int(numbers[STRENGTH] * LEVELS) / (LEVELS - 1)
    return operation(picture, strength, 1 if numbers[SIGN] < 0.5 else -1)


def _moved(
    picture: Image.Image, strength: float, sign: int, row: int, column: int, most: float
) -> Image.Image:
    """Sheared or moved: one number of the inverse map of places is other than that of the identity."""
    matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    matrix[3 * row + column] = by = sign * strength * most
    # Moved by a share of its width or height, or sheared about its middle
    matrix[3 * row + 2] = by * picture.size[row] if column == 2 else -by * picture.size[column] / 2
    affine, filter = Image.Transform.AFFINE, Image.Resampling.NEAREST
    return picture.transform(picture.size, affine, matrix, filter, fillcolor=GREY)


def _turned(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return picture.rotate(sign * strength * 135, Image.Resampling.NEAREST, fillcolor=GREY)


def _enhanced(picture: Image.Image, strength: float, sign: int, of: Callable) -> Image.Image:
    return of(picture).enhance(1 + sign * strength * 0.99)


# Each takes a picture, its strength from 0 to 1, and a sign.
OPERATIONS: tuple[Callable, ...] = (
    lambda picture, strength, sign: picture,
    functools.partial(_moved, row=0, column=1, most=0.99),
    functools.partial(_moved, row=1, column=0, most=0.99),
    functools.partial(_moved, row=0, column=2, most=32 / 224),
    functools.partial(_moved, row=1, column=2, most=32 / 224),
    _turned,
    functools.partial(_enhanced, of=ImageEnhance.Brightness),
    functools.partial(_enhanced, of=ImageEnhance.Color),
    functools.partial(_enhanced, of=ImageEnhance.Contrast),
    functools.partial(_enhanced, of=ImageEnhance.Sharpness),
    lambda picture, strength, sign: ImageOps.posterize(picture, 8 - round(6 * strength)),
    lambda picture, strength, sign: ImageOps.solarize(picture, 255 * (1 - strength)),
    lambda picture, strength, sign: ImageOps.autocontrast(picture),
    lambda picture, strength, sign: ImageOps.equalize(picture),
)
