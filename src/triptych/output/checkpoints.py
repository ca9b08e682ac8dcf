"""Checkpoints that are whole or invisible: written aside, sealed with a manifest, then renamed into place."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from triptych.errors import InputError, RunError
from triptych.output import files, record

MANIFEST = "manifest.json"
STATE = "training_state.json"
UNFINISHED = ".unfinished-"
REPLACED = ".replaced-"
NAME = re.compile(rf"({re.escape(REPLACED)})?checkpoint-\d+")


@contextmanager
def writing(output_dir: str | Path, step: int) -> Iterator[Path]:
    """A new folder that becomes `checkpoint-<step>` if the block ends well, and vanishes otherwise.

    Raises:
        RunError: if it could not be written, with the bytes that it needs.
    """
    final = of_step(output_dir, step)
    folder = final.with_name(f"{UNFINISHED}{final.name}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()  # not its parents: an output folder that has vanished is not begun anew
        yield folder
        commit(folder, final)
    except BaseException as error:
        written = _size(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        needed = max([written, *map(_size, found(output_dir))])
        raise RunError(f"{final} could not be written {_room(needed, final)}: {_reason(error)}") from error


def commit(folder: Path, final: Path) -> None:
    """Seals a folder and gives it its place and name in one step, in which a reader finds the one that was
    there before, or the new one."""
    seal(folder)
    replaced = final.with_name(f"{REPLACED}{final.name}")
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)  # a checkpoint still, until the new one has its name; see `found`
    folder.rename(final)
    files.flush(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def replacing(output_dir: str | Path) -> Iterator[Path]:
    """A new folder whose files replace those of the output folder, each in one step, if the block ends well.

    Raises:
        RunError: if they could not be written, with the bytes that they need.
    """
    folder = Path(output_dir) / f"{UNFINISHED}model"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
        record.note(output_dir, [path.name for path in folder.iterdir()])
        for path in sorted(folder.iterdir()):
            files.flush(path)
            path.replace(folder.parent / path.name)
    except Exception as error:  # each library has its own for a full disk
        # A checkpoint holds the weights and two moments.
        needed = max([_size(folder), *(_size(path) // 3 for path in found(output_dir))])
        room = _room(needed, folder)
        raise RunError(f"The model could not be written to {output_dir} {room}: {_reason(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tidy(output_dir: str | Path) -> None:
    """Removes what a killed run left half written, or half removed."""
    kept = found(output_dir)
    for path in [*Path(output_dir).glob(f"{UNFINISHED}*"), *Path(output_dir).glob(f"{REPLACED}*")]:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def seal(folder: str | Path) -> None:
    """Flushes a checkpoint's files to disk, then writes the manifest with their sizes and hashes."""
    folder = Path(folder)
    entries = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        files.flush(path)
        entries[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": entries}, indent=2))
    files.flush(manifest)
    files.flush(folder)


def verify(folder: str | Path) -> list[str]:
    """What keeps a folder from being a checkpoint to continue from; empty if it is one. Files are read once
    as long as they stay as they are."""
    folder = Path(folder)
    if not folder.is_dir():
        return ["there is no such folder."]
    states = [(str(path), path.lstat()) for path in sorted(folder.rglob("*"))]
    return list(_verified(folder, tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in states)))


@cache
def _verified(folder: Path, states: tuple) -> list[str]:
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        wanted = {name: (entry["size"], entry["sha256"]) for name, entry in entries.items()}
    except FileNotFoundError:
        return [f"it holds no {MANIFEST}: not a checkpoint of a run of ours, or one that was not finished."]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"its {MANIFEST} cannot be read ({error})."]
    if not wanted or not all(type(size) is int and type(sha256) is str for size, sha256 in wanted.values()):
        return [f"its {MANIFEST} cannot be read (it lists no files with size and hash)."]
    problems = []
    for name, (size, sha256) in wanted.items():
        path = folder / name
        if not _is_file_within(path, folder):
            problems.append(f"{name!r} is missing." if not name.isprintable() else f"{name} is missing.")
        elif path.stat().st_size != size:
            problems.append(f"{name} has {path.stat().st_size:,} bytes instead of {size:,}.")
        elif _sha256(path) != sha256:
            problems.append(f"{name} has changed since it was written.")
    return problems


def found(output_dir: str | Path) -> list[Path]:
    """The checkpoint folders of a run that have a manifest, oldest first; their contents are not checked."""
    folder = Path(output_dir)
    paths = [path for path in folder.glob("*checkpoint-*") if NAME.fullmatch(path.name)]
    names = {path.name for path in paths}
    # One that was about to be replaced when the run was killed
    paths = [path for path in paths if path.name.removeprefix(REPLACED) not in names - {path.name}]
    return sorted((path for path in paths if (path / MANIFEST).is_file()), key=step_of)


def of_step(output_dir: str | Path, step: int) -> Path:
    """Where the checkpoint that is written after a step lies."""
    return Path(output_dir) / f"checkpoint-{step}"


def step_of(checkpoint: str | Path) -> int:
    """The optimizer steps done when a checkpoint was written."""
    return int(Path(checkpoint).name.rpartition("-")[2])


def newest(output_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and a sentence for each newer one that does not."""
    skipped: list[str] = []
    for checkpoint in reversed(found(output_dir)):
        problems = verify(checkpoint)
        if not problems:
            return checkpoint, skipped
        skipped.append(f"{checkpoint} is damaged and was skipped: {' '.join(problems)}")
    return None, skipped


def to_continue(args) -> tuple[Path | None, list[str]]:
    """The checkpoint that a run continues, the one asked for or the newest whole one in its folder, and a
    sentence for each that was passed over."""
    if args.resume_from_checkpoint:
        if problems := verify(args.resume_from_checkpoint):
            raise InputError(
                [f"--resume_from_checkpoint {args.resume_from_checkpoint}: {p}" for p in problems]
            )
        return Path(args.resume_from_checkpoint), []
    return (None, []) if args.overwrite_output_dir else newest(args.output_dir)


def rotate(output_dir: str | Path, limit: int | None, best_step: int | None) -> None:
    """Removes the oldest checkpoints beyond `limit`, but never the newest nor the best."""
    checkpoints = found(output_dir)
    spared = {path for path in checkpoints if step_of(path) == best_step} | set(checkpoints[-1:])
    removable = [path for path in checkpoints if path not in spared]
    surplus = len(checkpoints) - limit if limit else 0
    for path in removable[: max(0, surplus)]:
        # Renamed first: a folder half removed must not look like a checkpoint.
        aside = path.with_name(f"{UNFINISHED}{path.name}")
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def require_space(output_dir: str | Path, parameters: int, args) -> None:
    """Refuses a run whose checkpoints cannot fit on the disk.

    Args:
        parameters: of the model; a checkpoint holds them and two moments in float32, the final model them
            alone.

    Raises:
        InputError: with the bytes needed and free.
    """
    kept = 0 if args.save_strategy == "no" or not args.do_train else min(args.save_total_limit or 2, 2)
    needed = 4 * parameters * (3 * kept + 1)
    free = shutil.disk_usage(files.existing(Path(output_dir))).free
    if needed > free:
        raise InputError(
            f"--output_dir {output_dir}: the model and {kept} checkpoints take {needed:,} bytes, "
            f"{free:,} are free."
        )


def _room(needed: int, path: Path) -> str:
    free = shutil.disk_usage(files.existing(path)).free
    return f"({needed:,} bytes or more, {free:,} are free)"


def _reason(error: Exception) -> str:
    """The first line of a message: torch puts a trace below it."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_file_within(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
