"""Tensors of `tf_model.h5`, without TensorFlow."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from triptych.errors import InputError, shown, some
from triptych.migrate.tensors import CODES, DAMAGE, TYPES, Tensor


def read(path: Path, opened: ExitStack) -> dict[str, Tensor]:
    """The tensors of a file, by the names of TensorFlow's variables without that of the model. No link is
    followed: all that is read lies in the file itself.

    Args:
        opened: closes the file.

    Raises:
        InputError: if it is damaged, or a tensor lies elsewhere, or claims more than the file holds.
    """
    import h5py

    found: dict[str, Tensor] = {}
    problems: list[str] = []

    def visit(name: str | bytes, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            text = name if isinstance(name, str) else name.decode(errors="backslashreplace")
            if reason := _reason(item):
                problems.append(f"{path}: {shown(text)} {reason}.")
            else:
                found[text] = _tensor(path, text, item)

    try:
        file = opened.enter_context(h5py.File(path, "r"))
        file.visititems(visit)
        promised = [_text(layer) for layer in file.attrs.get("layer_names", ())]
        variables = {
            f"{layer}/{_text(variable)}"
            for layer in promised
            for variable in (file[layer].attrs.get("weight_names", ()) if layer in file else ())
        }
    except DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is damaged, or no file of HDF5: {shown(reason)}.") from error
    if missing := sorted(variables - found.keys()):
        problems.append(f"{path} is incomplete: {some(map(shown, missing), 3)} is listed, and not there.")
    if not problems and (claimed := sum(tensor.size for tensor in found.values())) > path.stat().st_size:
        problems.append(f"{path} claims {claimed:,} bytes of tensors and has {path.stat().st_size:,}.")
    if problems:
        raise InputError(problems)
    # Keras puts what a layer of the model holds below its name, and the model's name before that of a
    # variable; the files of a model in parts have neither.
    variables_found: dict[str, Tensor] = {}
    for name, tensor in found.items():
        first = variables_found.setdefault(_variable(name, promised), tensor)
        # What layers share is written with each of them.
        if first is not tensor and not np.array_equal(first.read(), tensor.read()):
            problems.append(f"{path} holds {shown(_variable(name, promised))} twice, with other values.")
    if problems:
        raise InputError(problems)
    return variables_found


def _variable(name: str, layers: list[str]) -> str:
    layer = next((layer for layer in layers if name.startswith(f"{layer}/")), None)
    if layer is None:
        return name
    name = name.removeprefix(f"{layer}/")
    return name.partition("/")[2] or name


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _reason(item) -> str | None:
    """What keeps a dataset from being a tensor of the file."""
    if item.external or item.is_virtual:
        return "lies in another file"
    if item.shape is None or item.dtype.name not in CODES:
        return f"is of the type {shown(str(item.dtype))}, which is not known here"
    if item.id.get_create_plist().get_nfilters():
        return "is packed, and Keras packs none"
    if item.id.get_storage_size() < item.nbytes:
        return f"claims {item.nbytes:,} bytes, and {item.id.get_storage_size():,} are there"
    return None


def _tensor(path: Path, name: str, item) -> Tensor:
    code = CODES[item.dtype.name]

    def values() -> np.ndarray:
        try:
            return item[()].astype(TYPES[code], copy=False)
        except DAMAGE as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{path} is damaged at {shown(name)}: {shown(reason)}.") from error

    return Tensor(code, item.shape, values)
