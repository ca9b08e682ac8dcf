"""Tensors of `pytorch_model.bin`, without PyTorch and without pickle.

A pickle is a program: Python's own unpickler imports what the file names and calls it. The machine here
knows the instructions that a table of tensors needs and the few names of NAMES and STORAGES; it makes
dictionaries and descriptions of tensors, and calls nothing of the file's choice. Everything else is refused
by its name.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from triptych.errors import InputError, shown, some
from triptych.migrate.tensors import DAMAGE, TYPES, Tensor, bytes_of

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how torch began a file before 1.6
STORAGES = {
    **{"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"},
    **{"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8"},
    **{"ByteStorage": "U8", "BoolStorage": "BOOL"},
}
MARK = object()


class Name(NamedTuple):
    """What a pickle would import."""

    module: str
    name: str

    @property
    def code(self) -> str | None:
        """Of a storage's type."""
        return STORAGES.get(self.name) if self.module == "torch" else None


class Storage(NamedTuple):
    """The numbers that one tensor has, or several that share them.

    Args:
        numbers: how many.
    """

    code: str
    numbers: int
    read: Callable[[], np.ndarray]


def read(path: Path, opened: ExitStack) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save` wrote, in either of its formats.

    Args:
        opened: closes the file.

    Raises:
        InputError: if it is damaged, or names or holds anything but tensors.
    """
    try:
        content = bytes_of(path)
        found = _from_zip(path, opened) if content[:4] == b"PK\x03\x04" else _from_stream(path, content)
        if not isinstance(found, dict):
            raise InputError(f"{path} holds no table of tensors.")
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {shown(str(error))}.") from error
    if others := [str(name) for name, value in found.items() if not isinstance(value, Tensor)]:
        raise InputError(f"{path} holds {some(map(shown, others), 3)}, which is no tensor.")
    return {str(name): value for name, value in found.items()}


def _from_zip(path: Path, opened: ExitStack) -> Any:
    """Since torch 1.6: an archive of the pickle and of one file for each storage, all unpacked."""
    archive = opened.enter_context(zipfile.ZipFile(path))
    entries = {entry.filename: entry for entry in archive.infolist()}
    if packed := [e.filename for e in entries.values() if e.compress_type or e.compress_size != e.file_size]:
        raise InputError(f"{path}: {some(map(shown, packed), 3)} is packed, and torch packs none.")
    claimed, there = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if claimed > there:
        raise InputError(f"{path} claims {claimed:,} bytes of content and has {there:,}.")
    tables = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(tables) != 1:
        raise InputError(f"{path} is an archive, but none that torch wrote: it has no data.pkl.")
    root = tables[0].removesuffix("data.pkl")
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
    if order != b"little":
        raise InputError(f"{path} was written by a machine whose numbers begin with the highest byte.")

    @lru_cache(maxsize=1)  # tensors that share a storage mostly follow each other
    def content(name: str) -> bytes:
        try:
            return archive.read(name)
        except DAMAGE as error:
            raise InputError(f"{path} is damaged: {shown(str(error))}.") from error

    def storage(code: str, key: str, count: int) -> Storage:
        name = f"{root}data/{key}"
        size = count * TYPES[code].itemsize
        if name not in entries or entries[name].file_size != size:
            raise InputError(f"{path} has no {size:,} bytes of storage {shown(key)}.")
        return Storage(code, count, lambda: np.frombuffer(content(name), TYPES[code]))

    return _run(path, io.BytesIO(archive.read(tables[0])), storage)


def _from_stream(path: Path, content: Any) -> Any:
    """Before torch 1.6: five pickles, the fourth of which is the table, then each storage: how many numbers
    it has, and these."""
    places: dict[str, tuple[str, int, list[int]]] = {}

    def storage(code: str, key: str, count: int) -> Storage:
        code, count, place = places.setdefault(key, (code, count, []))
        return Storage(code, count, lambda: np.frombuffer(content, TYPES[code], count, place[0]))

    magic, protocol, system = (_run(path, content, None) for _ in range(3))
    if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(system, dict):
        raise InputError(f"{path} is no file that torch.save wrote.")
    if system.get("little_endian") is not True:
        raise InputError(f"{path} was written by a machine whose numbers begin with the highest byte.")
    found, keys = _run(path, content, storage), _run(path, content, None)
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or {*keys} != {*places}:
        raise InputError(f"{path} is damaged: its list of storages is not that of its tensors.")
    for key in keys:
        code, count, place = places[key]
        size = count * TYPES[code].itemsize
        written, start = int.from_bytes(content.read(8), "little"), content.tell()
        if written != count or start + size > len(content):
            raise InputError(f"{path} has no {size:,} bytes of storage {shown(key)}.")
        place.append(start)
        content.seek(start + size)
    return found


def _run(path: Path, file: Any, storage: Callable[[str, str, int], Storage] | None) -> Any:
    """What the pickle at the file's position makes; the position is then behind it."""
    try:
        return _Machine(storage).run(file)
    except InputError as error:
        raise InputError(
            [f"{path}: {problem}" if str(path) not in problem else problem for problem in error.problems]
        ) from error
    except DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is damaged, or no file that torch.save wrote: {shown(reason)}.") from error


class _Machine:
    def __init__(self, storage: Callable[[str, str, int], Storage] | None):
        self.storage, self.stack, self.memo = storage, [], {}  # type: ignore[var-annotated]

    def run(self, file: Any) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in LITERALS:
                self.stack.append(argument)
            elif opcode.name in MADE:
                self.stack.append(MADE[opcode.name]())
            elif opcode.name in STEPS:
                STEPS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise InputError(
                    f"it has the instruction {opcode.name}, which a table of tensors does not need."
                )
        (result,) = self.stack
        return result

    def above_mark(self) -> list:
        place = len(self.stack) - 1
        while self.stack[place] is not MARK:
            place -= 1
            if place < 0:
                raise ValueError("there is no mark")
        taken = self.stack[place + 1 :]
        del self.stack[place:]
        return taken

    def keep(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def tuple(self, count: int) -> None:
        taken = self.stack[len(self.stack) - count :]
        if len(taken) != count:
            raise ValueError("the stack is too short")
        del self.stack[len(self.stack) - count :]
        self.stack.append(tuple(taken))

    def extend(self, values: list) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("something is appended to what is no list")
        self.stack[-1].extend(values)

    def set(self, pairs: list) -> None:
        if type(self.stack[-1]) is not dict:
            raise ValueError("something is put into what is no table")
        self.stack[-1].update(_table(zip(pairs[::2], pairs[1::2], strict=True)))

    def name(self, module: str, name: str) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name is no text")
        found = Name(module, name)
        if found not in NAMES and not found.code:
            raise InputError(
                f"it names {shown(f'{module}.{name}')}, which a table of tensors does not need and "
                "which could run code. Nothing was run."
            )
        self.stack.append(found)

    def persistent(self) -> None:
        kind, name, key, _location, count, *view = self.stack.pop()
        if kind != "storage" or not isinstance(name, Name) or not name.code or any(view) or not self.storage:
            raise ValueError("something is kept outside that is no storage")
        if type(key) is not str or type(count) is not int or count < 0:
            raise ValueError("a storage without name or length")
        self.stack.append(self.storage(name.code, key, count))

    def call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or not isinstance(name, Name) or name not in NAMES:
            raise ValueError("something is called that is no function")
        self.stack.append(NAMES[name](*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) is not dict or type(state) is not dict:
            raise ValueError("attributes are given to what has none")  # a table has its versions as such


def _table(pairs: Any) -> dict:
    """A dictionary; only with keys whose hashes take no time."""
    made = {}
    for key, value in pairs:
        if type(key) not in (str, int):
            raise ValueError(f"a table has a {type(key).__name__} for a name")
        made[key] = value
    return made


def _view(storage: Storage, offset: int, shape: tuple, strides: tuple, *others: Any) -> Tensor:
    """A tensor: the storage's numbers from `offset`, `strides` of them apart along each axis."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise ValueError("a tensor without its storage")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a tensor whose shape is none")
    count = math.prod(shape)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if count and (last >= storage.numbers or count > storage.numbers):
        raise ValueError(f"a tensor of the shape {shape} from a storage of {storage.numbers:,} numbers")

    def values() -> np.ndarray:
        numbers = storage.read()[offset:]
        steps = [stride * numbers.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)

    return Tensor(storage.code, tuple(shape), values)


# What a table of tensors is made with: for each name of PyTorch, what it makes here
NAMES: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): lambda pairs=(): _table(pairs),
    Name("torch._utils", "_rebuild_tensor"): _view,
    Name("torch._utils", "_rebuild_tensor_v2"): _view,
    Name("torch._utils", "_rebuild_parameter"): lambda tensor, *others: tensor,
    Name("torch", "Size"): lambda lengths: tuple(lengths),
}
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
}
MADE: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: MARK},
    **{"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple},
}
STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.keep),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda machine, place: machine.stack.append(machine.memo[place])
    ),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.above_mark())),
    **{f"TUPLE{n}": lambda machine, _, n=n: machine.tuple(n) for n in (1, 2, 3)},  # type: ignore[misc]
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.above_mark()),
    "SETITEM": lambda machine, _: machine.set([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set(machine.above_mark()),
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(machine.stack.pop(-2), machine.stack.pop()),
    "BINPERSID": lambda machine, _: machine.persistent(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
