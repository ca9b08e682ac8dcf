"""A process's place among those of a run: what a launcher tells it, then what the framework knows."""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

# By torchrun and accelerate, by hand for JAX, by Slurm's srun, by Open MPI's mpirun, on a pod of TPUs
NUMBERS = ("RANK", "JAX_PROCESS_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")
# Set by torchrun and by `accelerate launch`, which end with a traceback of their own if a script fails
WITH_TRACEBACK = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")
COUNTS = ("WORLD_SIZE", "JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


class World(Protocol):
    """The processes and devices of a run, as each framework's `devices.start` finds them.

    Attributes:
        process: this process's number of `processes`; the first writes, logs and pushes.
        devices: that share each batch, over all processes.
        share: which of `shares` parts of each batch this process collates.
        description: where the model computes, as told to the user.
    """

    process: int
    processes: int
    devices: int
    share: int
    shares: int
    description: str

    def gather(self, values: list[Any]) -> list[Any]:
        """The lists of all processes as one, in their order; of numbers, texts, lists and None."""


_settled: tuple[int, int] | None = None


def settle(process: int, processes: int) -> None:
    """Takes the framework's word for this process's place: it may have found others that no variable tells
    of."""
    global _settled
    _settled = process, processes


def process() -> int:
    """This process's number among all of the run; 0 where it is the only one."""
    return _settled[0] if _settled else _first(NUMBERS, _of_tensorflow()[0])


def processes() -> int:
    """How many processes the run has."""
    return _settled[1] if _settled else processes_started()


def processes_started() -> int:
    """How many processes the launcher says that it started."""
    return _first(COUNTS, _of_tensorflow()[1])


def end_with_the_agent() -> None:
    """Has the system send SIGTERM to this process when the agent of torchrun that started it dies, which
    would leave it behind, computing."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        set_signal_of_parents_death = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_signal_of_parents_death, signal.SIGTERM)


def seconds_of_echo() -> float:
    """How long after a signal the same may come once more: what Slurm or a terminal sends to all processes,
    the agent of torchrun passes on to those that it started."""
    return 5.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0


# Prints its last argument once the process of the given number has ended, or after half a minute.
PRINT_AFTER = """
import contextlib, os, select, sys, time
process, mark, text = int(sys.argv[1]), sys.argv[2], sys.argv[3]
end = time.monotonic() + 30
with contextlib.suppress(OSError):
    if hasattr(os, "pidfd_open"):
        select.select([os.pidfd_open(process)], [], [], 30)
    while not hasattr(os, "pidfd_open") and time.monotonic() < end and os.kill(process, 0) is None:
        time.sleep(0.02)
print(text, file=sys.stderr, flush=True)
os.remove(mark)
"""
_parent = os.getppid()


def say_last(text: str) -> None:
    """Prints the last that is to be said before this process fails.

    The launchers of `WITH_TRACEBACK` follow it by a traceback of their own, and nobody would find it above
    that. So a process of its own waits for such a launcher's end and prints it then, once for all processes
    that say the same.
    """
    if not any(name in os.environ for name in WITH_TRACEBACK) or os.getppid() != _parent:
        print(text, file=sys.stderr)
        return
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    mark = os.path.join(tempfile.gettempdir(), f"triptych-{_parent}-{digest}")
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        command = [sys.executable, "-I", "-S", "-c", PRINT_AFTER, str(_parent), mark, text]
        nothing = subprocess.DEVNULL
        subprocess.Popen(command, stdin=nothing, stdout=nothing, start_new_session=True)
    except FileExistsError:
        return  # another process says it
    except OSError:  # of the system, which starts no more processes, for example
        print(text, file=sys.stderr)


def by_the_first(function: Callable[..., None]) -> Callable[..., None]:
    """A function that does something in the first process, and nothing in the others."""

    @wraps(function)
    def by_the_first_process(*arguments: Any, **keywords: Any) -> None:
        if process() == 0:
            function(*arguments, **keywords)

    return by_the_first_process


def _first(names: tuple[str, ...], otherwise: int) -> int:
    return next((int(value) for name in names if (value := os.environ.get(name, "")).isdigit()), otherwise)


def _of_tensorflow() -> tuple[int, int]:
    """Number and count by `TF_CONFIG`; (0, 1) without it."""
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        return int(config["task"]["index"]), len(config["cluster"]["worker"])
    except (KeyError, ValueError, TypeError):
        return 0, 1
