"""One run at a time in an output folder: two would write over each other's files."""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"

# By this process: its number, descriptor, file, whether the folder was made for it
_held: tuple[int, int, Path, bool] | None = None


def problems(output_dir: str | os.PathLike) -> list[str]:
    """That another run is at work in a folder; nothing about a lock that a killed one has left behind."""
    path = Path(output_dir) / NAME
    if fcntl is None or _held is not None or not path.exists():
        return []
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # taken away meanwhile, or somebody else's
        return []
    try:
        return [] if _take(descriptor) else [_busy(output_dir, descriptor)]
    finally:
        os.close(descriptor)


def acquire(output_dir: str | os.PathLike) -> list[str]:
    """Takes the lock of a folder, which is made if there is none, until `release`. The system gives it up for
    a process that dies, and a child does not inherit it. Where a file system has no locks nothing is taken.

    Returns:
        What `problems` does, if another run was faster.
    """
    global _held
    path = Path(output_dir) / NAME
    if fcntl is None:
        return []
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            taken = _take(descriptor)
        except OSError:
            os.close(descriptor)
            return []
        if not taken:
            found = [_busy(output_dir, descriptor)]
            os.close(descriptor)
            return found
        # The run before may have removed the file while this one waited for it.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            break
        os.close(descriptor)
    about = {"process": os.getpid(), "machine": socket.gethostname()}
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(about).encode(), 0)
    _held = os.getpid(), descriptor, path, is_new
    return []


def release() -> None:
    """Gives the lock up, and removes its file, and the folder if it was made for it and nothing else."""
    global _held
    if _held is None or _held[0] != os.getpid():
        return
    _, descriptor, path, is_new = _held
    _held = None
    path.unlink(missing_ok=True)
    os.close(descriptor)
    if is_new:
        with suppress(OSError):
            path.parent.rmdir()


def _take(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _busy(output_dir: str | os.PathLike, descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 1000, 0))
        who = f" (process {about['process']} on {about['machine']})"
    except (OSError, ValueError, LookupError, TypeError):
        who = ""
    return (
        f"--output_dir {output_dir}: another run{who} is at work there. Wait for its end, or choose another "
        "folder."
    )
