"""What a launcher tells a process by its environment, before any library can be asked."""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

# By torchrun and accelerate, by hand for JAX, by Slurm's srun, by Open MPI's mpirun, on a pod of TPUs
NUMBERS = ("RANK", "JAX_PROCESS_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")
COUNTS = ("WORLD_SIZE", "JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def process() -> int:
    """This process's number among all of the run; 0 where it is the only one."""
    return _first(NUMBERS, _of_tensorflow()[0])


def processes() -> int:
    """How many processes the run has."""
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
