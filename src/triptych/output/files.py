"""Files that are written in one step: whoever reads one finds the old content or the new."""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from triptych.errors import RunError

logger = logging.getLogger(__name__)


def write(path: Path, content: bytes) -> None:
    """Replaces a file in one step: whoever reads it, even after a crash, finds the old content or the new.

    Raises:
        RunError: if it cannot be written, with the bytes that it needs.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise RunError(f"{path} could not be written ({len(content):,} bytes): {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A new folder that gets its name if the block ends well, and vanishes otherwise.

    Args:
        final: of which there is nothing yet, or an empty folder.

    Raises:
        RunError: if it could not be written.
    """
    final = final.absolute()
    folder = final.with_name(f".unfinished-{os.getpid()}-{final.name}")
    try:
        folder.mkdir(parents=True)
        yield folder
        for path in folder.iterdir():
            flush(path)
        flush(folder)
        folder.rename(final)  # which fails if there is something by now
        flush(final.parent)
    except OSError as error:
        raise RunError(f"{final} could not be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def flush(path: Path) -> None:
    """Has a file, or a folder's list of files, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def existing(path: Path) -> Path:
    """The nearest folder above that is there, or the path itself."""
    path = path.absolute()
    return path if path.exists() else existing(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """The results in a file; empty where there is none, or something else in it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        logger.warning("%s is not readable (%s): it is written anew", path, error)
        return {}
    return values


def write_json(path: Path, value: Any) -> None:
    """Writes values as JSON with sorted keys; of any array library, and null for what is not finite."""
    text = json.dumps(plain(value), indent=4, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write(path, (text + "\n").encode())


def plain(value: Any) -> Any:
    """Numbers of any array library as Python's own; what is not finite, and has no word in JSON, as None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
