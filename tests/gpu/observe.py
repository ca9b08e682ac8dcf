"""Runs a script and writes down what its files do not tell: `python observe.py FILE SCRIPT --flag value ...`.

FILE becomes JSON: the time of each step (of the clock that only goes forward), at which the device is done
with it; the times at which JAX had compiled a program; and the most bytes of the device's memory that were in
use, or of this process without a card.
"""

import json
import resource
import runpy
import sys
import time
from typing import Any

import tqdm.std

path, *sys.argv = sys.argv[1:]
steps: list[float] = []
compilations: list[float] = []
update = tqdm.std.tqdm.update


def noted_update(bar: Any, number: float = 1) -> Any:
    """The bar that a user sees moves after each optimizer step."""
    if getattr(bar, "desc", "").startswith("training"):
        steps.append(time.monotonic())
    return update(bar, number)


def noted_compilation(event: str, seconds: float, **unused: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":  # also where it comes from the cache
        compilations.append(time.monotonic())


def peak_memory() -> int:
    """Bytes. transformers may have loaded torch into a process that computes in JAX."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    statistics = jax.local_devices()[0].memory_stats() if jax else None  # None on a CPU
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return (statistics or {}).get("peak_bytes_in_use") or of_process


tqdm.std.tqdm.update = noted_update
if "/flax/" in sys.argv[0]:
    import jax

    jax.monitoring.register_event_duration_secs_listener(noted_compilation)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    noted = {"steps": steps, "compilations": compilations, "memory": peak_memory()}
    with open(path, "w") as file:
        json.dump(noted, file)
