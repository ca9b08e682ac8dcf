"""A tensor that lies in a file, and the file of safetensors that many of them become."""

import json
import math
import mmap
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from triptych.errors import InputError, shown, some
from triptych.models import tensor_files

# By the code of safetensors. NumPy has no bfloat16: its two bytes are carried as they are.
TYPES: dict[str, np.dtype] = {
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")},
    **{"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1")},
    **{"U8": np.dtype("u1"), "BOOL": np.dtype("?")},
}
CODES = {dtype.name: code for code, dtype in TYPES.items() if code != "BF16"} | {"bfloat16": "BF16"}
# What readers raise for a file whose parts do not fit together
DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
    *(RuntimeError, EOFError, OSError, struct.error, zipfile.BadZipFile),
)


class Tensor(NamedTuple):
    """What a file says of a tensor, and how to read it, in the shape and the type of TYPES; that raises
    InputError where the file is damaged."""

    code: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * TYPES[self.code].itemsize

    def moved(self, axes: tuple[int, ...]) -> "Tensor":
        """The same with its axes in another order."""
        shape = tuple(self.shape[axis] for axis in axes)
        return Tensor(self.code, shape, lambda: self.read().transpose(axes))

    def flat(self) -> "Tensor":
        """The same with one axis."""
        return Tensor(self.code, (math.prod(self.shape),), lambda: self.read().reshape(-1))


def bytes_of(path: Path) -> mmap.mmap:
    """A file's content, read where it is looked at.

    Raises:
        InputError: if there is nothing in it, or it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of safetensors, by name."""
    tensor_files.format_of(path)  # which checks the header: what it says lies within the file
    content = bytes_of(path)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    if unknown := sorted(name for name, about in header.items() if about["dtype"] not in TYPES):
        kind = shown(header[unknown[0]]["dtype"])
        raise InputError(f"{path} holds {some(map(shown, unknown), 3)} as {kind}: not known here.")

    def tensor(about: dict) -> Tensor:
        code, shape, offset = about["dtype"], tuple(about["shape"]), start + about["data_offsets"][0]
        count = math.prod(shape)
        return Tensor(code, shape, lambda: np.frombuffer(content, TYPES[code], count, offset).reshape(shape))

    return {name: tensor(about) for name, about in header.items()}


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a file of safetensors with PyTorch's names, one tensor after the other, so that only one is in
    memory at a time."""
    # The widest first, so that each begins at a multiple of its type's bytes
    ordered = sorted(tensors, key=lambda name: (-TYPES[tensors[name].code].itemsize, name))
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in ordered:
        tensor = tensors[name]
        begin, end = end, end + tensor.size
        header[name] = {"dtype": tensor.code, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            file.write(np.ascontiguousarray(tensors[name].read()).data)
