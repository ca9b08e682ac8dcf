"""Checkpoints of transformers 4, in any of its formats, made ones that are read today: `python -m
triptych.migrate OLD NEW`. Needs no tensor library, and runs nothing of what it reads."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from triptych.errors import InputError
from triptych.migrate import hdf5_files, msgpack_files, names, pickles, tensors
from triptych.migrate.tensors import Tensor, shown, some
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
LEFT = ("*.index.json", "*_results.json", "trainer_state.json", "run.json", "arguments.json", "manifest.json")
ELECTRA = (
    "Flax's ELECTRA of transformers 4 computes something else from these weights than PyTorch's does: compare "
    "its answers before you rely on it."
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
    """What was done: the file or index that was read, the tensors and their bytes, the names of the files that
    were copied and of those that were not, and sentences that a user has to know."""

    source: str
    tensors: int
    size: int
    copied: list[str]
    left: list[str]
    notes: list[str]


def migrate(old: str | Path, new: str | Path) -> Migrated:
    """Writes a folder with `model.safetensors` under PyTorch's names, and the model's other files. Numbers keep
    their types. The folder gets its name when it is whole.

    Raises:
        InputError: with all that is wrong with the folders and the files, before anything is written; and where
            a file turns out to be damaged when its numbers are read.
        RunError: if it could not be written.
    """
    old, new = Path(old), Path(new)
    problems = _problems(old, new)
    if not old.is_dir():
        raise InputError(problems)
    found: dict[str, Tensor] = {}
    with ExitStack() as opened:
        try:
            weights = _weights(old)
            rule = _rule(old, weights)
            found = names.renamed(_read(old, weights, opened), rule)
        except InputError as error:
            raise InputError([*problems, *error.problems]) from error
        size = sum(tensor.size for tensor in found.values())
        if size > (free := shutil.disk_usage(files.existing(new)).free):
            problems.append(f"{new} needs {size:,} bytes, and {free:,} are free.")
        if problems:
            raise InputError(problems)
        copied = sorted({path for pattern in COPIED for path in old.glob(pattern) if path.is_file()})
        copied = [path for path in copied if not any(path.match(pattern) for pattern in LEFT)]
        config = _configuration(old)
        with files.new_folder(new) as folder:
            tensors.write(folder / MODEL, found)
            for path in copied:
                shutil.copyfile(path, folder / path.name)
            (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    names_copied = [path.name for path in copied]
    left = sorted({path.name for path in old.iterdir()} - {*names_copied, weights.name, *weights.parts})
    notes = [ELECTRA] if rule == "flax" and config["model_type"] == "electra" else []
    return Migrated(weights.name, len(found), size, names_copied, left, notes)


def _problems(old: Path, new: Path) -> list[str]:
    """What is wrong with the folders themselves."""
    problems = []
    if not old.is_dir():
        problems.append(f"{old} is no folder.")
    else:
        try:
            _configuration(old)
        except InputError as error:
            problems += error.problems
    if new.is_dir() and any(new.iterdir()):
        problems.append(f"{new} is not empty, and nothing is overwritten: name a folder that is not there yet.")
    elif new.is_symlink() or (new.exists() and not new.is_dir()):
        problems.append(f"{new} is no folder.")
    return problems


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
            weights = Weights(form, name, _parts(folder, name))
            if tensors.format_of(folder / weights.parts[0]) == "pt":
                raise InputError(f"{folder} needs no migration: its {name} is PyTorch's.")
    if not found:
        known = ", ".join(form.file for form in FORMATS)
        raise InputError(f"{folder} has no weights: there is none of {known}, nor an index of them.")
    form, name = found[0]
    return Weights(form, name, _parts(folder, name))


def _parts(folder: Path, name: str) -> list[str]:
    """The files of a model: itself, or those that its index lists."""
    if not name.endswith(".index.json"):
        return [name]
    parts = sorted(set(_index(folder / name).values()))
    problems = []
    for part in parts:
        # Another folder's file could be anything of this machine's.
        if part in (".", "..") or not part.isprintable() or {"/", "\\"} & set(part):
            problems.append(f"{folder / name} lists {shown(part)}, which is no name of a file beside it.")
        elif not (folder / part).is_file():
            problems.append(f"{folder / name} lists {shown(part)}, which is not there.")
    if problems:
        raise InputError(problems)
    return parts


def _index(path: Path) -> dict[str, str]:
    """By the name of a tensor, the file that it is in."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not listed or not all(type(name) is str for name in listed.values()):
            raise ValueError("it lists no files")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no index of a model in parts: {shown(str(error))}.") from error
    return listed


def _rule(folder: Path, weights: Weights) -> str:
    """The rule by which names and axes become PyTorch's."""
    rule = weights.form.rule or tensors.format_of(folder / weights.parts[0])
    if rule not in names.RULES:
        raise InputError(f"{folder / weights.name} is of the format {shown(rule)}, which is not known here.")
    return rule


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
            problems.append(f"{folder / part} holds {some(twice)}, and so does another part.")
        found |= of_part
    if problems:
        raise InputError(problems)
    if weights.name not in weights.parts and len(found) != (listed := len(_index(folder / weights.name))):
        raise InputError(f"{folder / weights.name} lists {listed:,} tensors; its parts hold {len(found):,}.")
    if not found:
        raise InputError(f"{folder / weights.name} holds no tensors.")
    return found
