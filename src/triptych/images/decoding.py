"""From a file or its bytes to a picture in red, green and blue: by Pillow, alike in every framework.

What stands in such a file is more than RGB: a turn that the camera noted, palettes, transparency, 16 bits of
grey, four inks, several frames. Pillow's own `convert("RGB")` shows what hides under transparency and makes
16-bit grey white.
"""

import io
import math
import os
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of width and height
Size = tuple[int, int]  # height, width

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the tag of EXIF, and its values that exchange width and height
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
# Formats with the bytes that a whole file ends with, and within how many bytes: some cameras write more
ENDS = {"JPEG": (b"\xff\xd9", 1 << 16), "PNG": (b"IEND", 64), "GIF": (b";", 64)}
# What Pillow raises for files that are no pictures, or broken ones
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, Image.DecompressionBombError)


def name_of(value: Any) -> str:
    """What a picture is called: its path as its row names it; nothing where only its bytes are known."""
    if isinstance(value, dict):
        value = value.get("path")
    return value if isinstance(value, str) else ""


class Unreadable(Exception):
    """A picture that cannot be decoded; its text says why."""


def opened(value: Any, folder: str | None = None) -> Image.Image:
    """A picture whose header is read.

    Args:
        value: a path; the file's bytes, as `bytes` or a buffer of pyarrow; or both as `datasets` keeps them,
            `{"bytes": ..., "path": ...}`, of which one may be None.
        folder: what a path is relative to.

    Raises:
        Unreadable: if it is missing, empty, no picture, or has more pixels than Pillow lets one have
            (179 million), so that a small file cannot fill the memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(_source(value, folder))
    except UnidentifiedImageError:
        raise Unreadable("no picture, or of a kind that Pillow does not know") from None
    except BROKEN as error:
        raise Unreadable(_reason(error)) from error


def _source(value: Any, folder: str | None) -> str | BinaryIO:
    if isinstance(value, dict):
        value = value["path"] if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str):
        path = os.path.join(folder or "", os.path.expanduser(value))
        if not os.path.getsize(path):
            raise OSError("the file is empty")
        return path
    if value is None or not len(value):
        raise OSError("it has no bytes")
    return io.BytesIO(value)


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "it has more pixels than are safe to decode (179 million)"
    text = (getattr(error, "strerror", None) or str(error)).strip()
    return " ".join((text.splitlines() or [type(error).__name__])[0].split())


def problem(value: Any, folder: str | None = None) -> str | None:
    """What keeps a picture from being decoded, as far as its header and its end tell; None if nothing does.
    One whose end is missing is decoded to know it: some programs leave it out."""
    try:
        picture = opened(value, folder)
        with picture:
            if not _has_end(picture):
                picture.load()
    except Unreadable as error:
        return str(error)
    except BROKEN as error:
        return _reason(error)
    return None


def _has_end(picture: Image.Image) -> bool:
    file, kind = getattr(picture, "fp", None), picture.format or ""
    if file is None or kind not in ENDS:
        return True
    end, within = ENDS[kind]
    before = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - within))
    found = end in file.read()
    file.seek(before)
    return found


def decoded(
    value: Any,
    folder: str | None = None,
    part: Callable[[tuple[int, int]], Box] | None = None,
    least: Size = (0, 0),
) -> np.ndarray:
    """A picture, or a part of it, uint8 (height, width, 3), turned as its EXIF says, over white where it is
    transparent; of an animation the first frame.

    Args:
        value, folder: see `opened`.
        part: from width and height of the turned picture to the part that is wanted.
        least: height and width that the part is to be reduced to later. A JPEG is decoded at a half, a
            quarter or an eighth of its size where the part still has these, which is several times as fast
            and gives other pixels than decoding it whole: not for pixels that must be a checkpoint's own.

    Raises:
        Unreadable: if it cannot be decoded.
    """
    try:
        with opened(value, folder) as picture:
            box = None
            if part:
                is_turned = picture.getexif().get(ORIENTATION) in TURNED
                box = part(picture.size[::-1] if is_turned else picture.size)
                if picture.format == "JPEG" and min(least) > 0:
                    _reduce(picture, box, least, is_turned)
            picture.load()
            found = _cut(ImageOps.exif_transpose(picture), box)
            return np.asarray(as_rgb(found))
    except BROKEN as error:
        raise Unreadable(_reason(error)) from error


def _reduce(picture: Image.Image, box: Box, least: Size, is_turned: bool) -> None:
    """Has a JPEG decoded at as little as its part needs."""
    part = box[2] - box[0], box[3] - box[1]
    if is_turned:
        part, least = part[::-1], least[::-1]
    width, height = picture.size
    share = max(least[1] / (width * part[0]), least[0] / (height * part[1]))
    picture.draft(None, (math.ceil(width * share), math.ceil(height * share)))  # type: ignore[arg-type]


def _cut(picture: Image.Image, box: Box | None) -> Image.Image:
    """A part of a picture, of a pixel at least."""
    if box is None:
        return picture
    edges = [min(share, 1) * length for share, length in zip(box, picture.size * 2, strict=True)]
    left, top = (min(int(edge), length - 1) for edge, length in zip(edges[:2], picture.size, strict=True))
    return picture.crop((left, top, max(left + 1, round(edges[2])), max(top + 1, round(edges[3]))))


def as_rgb(picture: Image.Image) -> Image.Image:
    """A decoded picture of any mode as RGB."""
    if picture.mode in (*SIXTEEN_BITS, "I", "F"):
        return Image.fromarray(_eight_bits(np.asarray(picture, np.float64), picture.mode)).convert("RGB")
    if picture.mode in TRANSPARENT or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey as uint8. Whole numbers of 32 bits count as 8 bits if none is above 255, else as 16; numbers with
    decimals as shares of white if none is above 1, else as 8 bits."""
    largest = values.max(initial=0)
    if mode == "F":
        white = 1.0 if largest <= 1 else 255.0
    else:
        white = 255.0 if mode == "I" and largest <= 255 else 65535.0
    return np.clip(np.rint(np.nan_to_num(values) * (255 / white)), 0, 255).astype(np.uint8)
