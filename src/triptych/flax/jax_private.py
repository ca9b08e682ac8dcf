"""All that is used of JAX and is no part of its public interface, as plain functions.

An upgrade of JAX is this file; `tests/flax/test_private.py` names each use, and refuses one elsewhere.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from triptych import libraries

PRIVATE = {multihost_utils: ("process_allgather",)}
# Events of jax.monitoring that each compilation records at its end: of the step before the long one, and of
# the long one
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"

libraries.require_private("jax", PRIVATE)


def gather_over_processes(value: Any) -> np.ndarray:
    """Each process's array, one a row: a collective, which all processes have to call."""
    return multihost_utils.process_allgather(np.asarray(value))


def gather_array(array: jax.Array) -> np.ndarray:
    """An array that is sharded over the devices of all processes, as a whole: a collective, likewise."""
    return multihost_utils.process_allgather(array, tiled=True)


def on_lowered(call: Callable[[], None]) -> None:
    """Calls `call` before XLA compiles a program, each time until the process ends."""
    _listen(LOWERED, lambda seconds: call())


def on_compiled(call: Callable[[float], None]) -> None:
    """Calls `call` after XLA has compiled a program, with the seconds that it took; likewise."""
    _listen(COMPILED, call)


def _listen(wanted: str, call: Callable[[float], None]) -> None:
    def listen(event: str, seconds: float, **unused: Any) -> None:
        if event == wanted:
            call(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
