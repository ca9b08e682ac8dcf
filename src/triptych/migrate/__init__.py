"""Checkpoints of transformers 4, in any of its formats, made ones that are read today: `python -m
triptych.migrate OLD NEW`. Needs no tensor library, and runs nothing of what it reads."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from triptych.errors import InputError, shown, some
from triptych.migrate import hdf5_files, msgpack_files, names, pickles, tensors
from triptych.migrate.tensors import Tensor
from triptych.models import barts, tensor_files
from triptych.models.tensor_files import MODEL
from triptych.output import files


class Format(NamedTuple):
    """How a library kept weights.

    Args:
        file: its name; of a model in parts, `<file>.index.json` lists them.
        rule: of `names.RULES`; None where the file says it.
        needs: a library that not every installation has.
    """

    file: str
    rule: str | None
    read: Callable[[Path, ExitStack], dict[str, Tensor]]
    needs: str | None = None


# PyTorch's come first: of these nothing has to be told from a rule.
FORMATS = (
    Format("pytorch_model.bin", "pt", pickles.read),
    Format(MODEL, None, lambda path, opened: tensors.read(path)),
    Format("tf_model.h5", "tf", hdf5_files.read, needs="h5py"),
    Format("flax_model.msgpack", "flax", lambda path, opened: msgpack_files.read(path), needs="msgpack"),
)
# Configuration, tokenizer, settings of generation, words for people; but not what a training leaves
COPIED = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja", "*.tiktoken", "README.md", "LICENSE*")
LEFT = ("*.index.json", "*_results.json", "trainer_state.json", "run.json", "arguments.json")
ELECTRA = (
    "Flax's ELECTRA of transformers 4 computes something else from these weights than PyTorch's does: "
    "compare its answers before you rely on it."
)


class Weights(NamedTuple):
    """Where a folder's weights are.

    Args:
        name: the file, or the index of the parts.
        parts: the files.
    """

    form: Format
    name: str
    parts: list[str]


class Migrated(NamedTuple):
    """What was done.

    Args:
        source: the file or index that was read.
        size: of the tensors, in bytes.
        copied: names of the other files that are in the new folder.
        left: of those that are not.
        notes: sentences that a user has to know.
    """

    source: str
    tensors: int
    size: int
    copied: list[str]
    left: list[str]
    notes: list[str]


def migrate(old: str | Path, new: str | Path) -> Migrated:
    """Writes a folder with `model.safetensors` under PyTorch's names, and the model's other files. Numbers
    keep their types. The folder gets its name when it is whole.

    Raises:
        InputError: with all that is wrong with the folders and the files, before anything is written; and
            where a file turns out to be damaged when its numbers are read.
        RunError: if it could not be written.
    """
    old, new = Path(old), Path(new)
    config: dict[str, Any] = {}
    found: dict[str, Tensor] = {}
    problems = _name_problems(new)
    if not old.is_dir():
        raise InputError([f"{old} is no folder.", *problems])
    with ExitStack() as opened:
        try:
            config = _configuration(old)
        except InputError as error:
            problems += error.problems
        try:
            weights = _weights(old)
            rule = _rule(old, weights)
            found = names.renamed(_read(old, weights, opened), rule)
        except InputError as error:
            raise InputError([*problems, *error.problems]) from error
        found |= _fixed_positions(config, found)
        size = sum(tensor.size for tensor in found.values())
        if size > (free := shutil.disk_usage(files.existing(new)).free):
            problems.append(f"{new} needs {size:,} bytes, and {free:,} are free.")
        if problems:
            raise InputError(problems)
        beside = {path for pattern in COPIED for path in old.glob(pattern) if path.is_file()}
        copied = sorted(path for path in beside if not any(path.match(pattern) for pattern in LEFT))
        with files.new_folder(new) as folder:
            tensors.write(folder / MODEL, found)
            for path in copied:
                shutil.copyfile(path, folder / path.name)
            (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    read = {weights.name, *weights.parts, *(path.name for path in copied)}
    left = sorted(path.name for path in old.iterdir() if path.name not in read)
    notes = [ELECTRA] if rule == "flax" and config["model_type"] == "electra" else []
    return Migrated(weights.name, len(found), size, [path.name for path in copied], left, notes)


def _name_problems(new: Path) -> list[str]:
    """What keeps a folder from being written."""
    if new.is_dir() and any(new.iterdir()):
        return [f"{new} is not empty, and nothing is overwritten: name a folder that is not there yet."]
    if new.is_symlink() or (new.exists() and not new.is_dir()):
        return [f"{new} is no folder."]
    return []


def _configuration(folder: Path) -> dict[str, Any]:
    """The configuration, with PyTorch's names for classes.

    Raises:
        InputError: if there is none.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise ValueError("it has no model_type")
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(f"{path} is no configuration of a model: {shown(reason)}.") from error
    if isinstance(classes := config.get("architectures"), list):
        config["architectures"] = [
            str(name).removeprefix("TF").removeprefix("Flax") if isinstance(name, str) else name
            for name in classes
        ]
    return config


def _weights(folder: Path) -> Weights:
    """Those that are read of a folder's weights.

    Raises:
        InputError: if there are none, or not all of their parts, or they need no migration.
    """
    found = []
    for form in FORMATS:
        index = f"{form.file}.index.json"
        if (folder / form.file).is_file():
            found.append((form, form.file))
        elif (folder / index).is_file():
            found.append((form, index))
    for form, name in found:
        if form.rule is None:
            weights = Weights(form, name, tensor_files.parts(folder / name))
            if tensor_files.format_of(folder / weights.parts[0]) == "pt":
                raise InputError(f"{folder} needs no migration: its {name} is PyTorch's.")
    if not found:
        known = ", ".join(form.file for form in FORMATS)
        raise InputError(f"{folder} has no weights: there is none of {known}, nor an index of them.")
    form, name = found[0]
    return Weights(form, name, tensor_files.parts(folder / name))


def _rule(folder: Path, weights: Weights) -> str:
    """The rule by which names and axes become PyTorch's."""
    rule = weights.form.rule or tensor_files.format_of(folder / weights.parts[0])
    if rule not in names.RULES:
        raise InputError(f"{folder / weights.name} is of the format {shown(rule)}, which is not known here.")
    return rule


def _fixed_positions(config: dict[str, Any], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The positions of Pegasus that Flax has computed and PyTorch has in the file, unless they are there."""
    kind = barts.KINDS.get(config.get("model_type", ""), barts.Kind())
    rows, width = (config.get(name) for name in ("max_position_embeddings", "d_model"))
    if not (
        kind.sinusoids and kind.positions_in_file and type(rows) is type(width) is int and rows > 0 < width
    ):
        return {}
    names = {f"model.{side}.embed_positions.weight" for side in barts.SIDES} - found.keys()
    made = Tensor("F32", (rows, width), lambda: barts.sinusoids(rows, width, kind.from_padding))
    return dict.fromkeys(names, made)


def _read(folder: Path, weights: Weights, opened: ExitStack) -> dict[str, Tensor]:
    """The tensors of all parts, by their old names."""
    if weights.form.needs and find_spec(weights.form.needs) is None:
        raise InputError(
            f"Reading {weights.name} needs {weights.form.needs}: run `pip install {weights.form.needs}`."
        )
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    for part in weights.parts:
        try:
            of_part = weights.form.read(folder / part, opened)
        except InputError as error:
            problems += error.problems
            continue
        if twice := sorted(of_part.keys() & found.keys()):
            problems.append(f"{folder / part} holds {some(map(shown, twice), 3)}, and so does another part.")
        found |= of_part
    if problems:
        raise InputError(problems)
    if weights.name not in weights.parts and len(found) != (
        listed := len(tensor_files.index(folder / weights.name))
    ):
        raise InputError(f"{folder / weights.name} lists {listed:,} tensors; its parts hold {len(found):,}.")
    if not found:
        raise InputError(f"{folder / weights.name} holds no tensors.")
    return found
