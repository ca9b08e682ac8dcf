"""A process's place among those of a run: what a launcher tells it, then what the framework knows."""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

# By torchrun and accelerate, by hand for JAX, by Slurm's srun, by Open MPI's mpirun, on a pod of TPUs
NUMBERS = ("RANK", "JAX_PROCESS_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")
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
