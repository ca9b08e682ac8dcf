"""Tensors of `flax_model.msgpack`, without Flax."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from triptych.errors import InputError, shown, some
from triptych.migrate.tensors import CODES, DAMAGE, TYPES, Tensor, bytes_of

ARRAY, NUMBER = 1, 3  # Flax's extensions of msgpack; both hold shape, type and bytes
CHUNKED = "__msgpack_chunked_array__"  # how Flax writes arrays of more than a gigabyte
COLLECTIONS = {"params", "batch_stats"}  # of variables; a model without norms over batches has no such level
MOST_AXES = 32


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by their names with dots.

    Raises:
        InputError: if it is damaged, or holds anything but tensors.
    """
    import msgpack

    content = bytes_of(path)
    try:
        # A list's memory is taken as soon as its length is read: only shapes are lists.
        tree = msgpack.unpackb(content, ext_hook=_array, max_array_len=MOST_AXES, strict_map_key=True)
        found = dict(_leaves(tree, ()))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is damaged, or not written by Flax: {shown(reason)}.") from error
    if others := [".".join(names) for names, value in found.items() if not isinstance(value, Tensor)]:
        raise InputError(f"{path} holds {some(map(shown, others), 3)}, which is no tensor.")
    bare = {names[0] for names in found} <= COLLECTIONS
    return {".".join(names[1:] if bare else names): value for names, value in found.items()}


def _array(kind: int, content: bytes) -> Tensor:
    import msgpack

    if kind not in (ARRAY, NUMBER):
        raise InputError(f"it holds an extension of number {kind}, which is no array of Flax's.")
    shape, dtype, data = msgpack.unpackb(content, max_array_len=MOST_AXES, raw=True)
    name = dtype.decode()
    if name not in CODES:
        raise InputError(f"it holds numbers of the type {shown(name)}, which is not known here.")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise InputError("it holds an array whose shape is none.")
    code = CODES[name]
    if math.prod(shape) * TYPES[code].itemsize != len(data):
        raise InputError(f"it holds an array that should have the shape {shape} and has {len(data):,} bytes.")
    return Tensor(code, tuple(shape), lambda: np.frombuffer(data, TYPES[code]).reshape(shape))


def _leaves(tree: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(tree, dict):
        yield names, tree
    elif CHUNKED in tree:
        yield (
            names,
            _joined(*({int(key): part[key] for key in part} for part in (tree["shape"], tree["chunks"]))),
        )
    else:
        for name, value in tree.items():
            yield from _leaves(value, (*names, name))


def _joined(lengths: dict[int, int], chunks: dict[int, Tensor]) -> Tensor:
    shape = tuple(lengths[axis] for axis in range(len(lengths)))
    parts = [chunks[number] for number in range(len(chunks))]
    if len({part.code for part in parts}) != 1 or math.prod(shape) != sum(
        math.prod(part.shape) for part in parts
    ):
        raise InputError(f"it holds an array of the shape {shape} whose parts do not make one.")
    return Tensor(
        parts[0].code, shape, lambda: np.concatenate([part.flat().read() for part in parts]).reshape(shape)
    )
