"""The devices of all processes as one mesh, and arrays placed on it."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from triptych import batching, launchers
from triptych.errors import InputError

SECONDS_UNTIL_DEAD = 20  # without a sign of life of a process, the others end


def start(args: Any) -> Mesh:
    """Finds the other processes if there are any, chooses the devices, keeps compiled programs for later
    runs, and returns the devices of all processes on one axis, "data".

    Processes find each other by Slurm, Open MPI, a TPU pod's `TPU_WORKER_HOSTNAMES`, or by
    `JAX_COORDINATOR_ADDRESS` (host:port of the first), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`. The programs
    are kept in `JAX_COMPILATION_CACHE_DIR`, by default `~/.cache/triptych/jax`.

    Raises:
        InputError: if one of the three variables is missing or no number.
    """
    if launchers.processes() > 1 or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        _join_processes()
    if args.use_cpu:
        jax.config.update("jax_platforms", "cpu")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "triptych" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.monitoring.register_event_duration_secs_listener(_return_memory)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    # Else what a program makes of nothing (a zero, a count) lies on no mesh at first, and later on this one:
    # the programs that take it would be compiled twice.
    jax.set_mesh(mesh)
    return mesh


def _return_memory(event: str, seconds: float, **unused: Any) -> None:
    """Gives back to the system what a compilation used, and glibc would keep: 260 MB after eight programs for
    training of t5-small's shape."""
    if event == "/jax/core/compile/backend_compile_duration" and seconds > 0.2:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


def _join_processes() -> None:
    own = {}
    if "JAX_NUM_PROCESSES" in os.environ:
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        values = [os.environ.get(name, "") for name in names]
        if not values[0] or not all(map(str.isdigit, values[1:])):
            found = " ".join(map("=".join, zip(names, values, strict=True)))
            raise InputError(f"{found}: give host:port of the first process, and two whole numbers.")
        own = {"num_processes": int(values[1]), "process_id": int(values[2])}
    # Its handler of SIGTERM would take the place of ours.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(**own, heartbeat_timeout_seconds=SECONDS_UNTIL_DEAD)


def describe(mesh: Mesh) -> str:
    """The devices in a few words: `2 cpu devices`."""
    kind = mesh.devices.flat[0].platform
    return kind if mesh.size == 1 else f"{mesh.size} {kind} devices"


def place_batch(
    batch: dict[str, np.ndarray],
    rows_per_device: int,
    *,
    mesh: Mesh,
    longest: dict[str, int],
    fill: dict[str, int],
    max_tokens: int | None = None,
) -> dict[str, jax.Array]:
    """A batch over the devices, from this process's rows, filled up so that there are few shapes of batches.

    Args:
        rows_per_device: of the filled batch, if they are within `max_tokens`.
        longest, fill: see `batching.in_few_shapes`.
        max_tokens: see `batching.rows_at_once`.
    """
    by_rows = NamedSharding(mesh, PartitionSpec("data"))
    # All processes must come to the same shapes.
    columns = over_processes([array.shape[-1] for array in batch.values()]).max(axis=0).tolist()
    columns = dict(zip(batch, columns, strict=True))
    rows_per_device = batching.rows_at_once(columns["input_ids"], rows_per_device, max_tokens)
    rows = rows_per_device * mesh.size // jax.process_count()
    filled = batching.in_few_shapes(batch, rows, columns, longest, fill)
    return {name: jax.make_array_from_process_local_data(by_rows, array) for name, array in filled.items()}


def place_parameters(tree: Any, mesh: Mesh, fsdp: bool = False) -> Any:
    """A tree of parameters on every device; with `fsdp` each array is split over them along its largest axis
    that their number divides, and kept whole if there is none."""

    def placed(array: Any) -> jax.Array:
        spec = PartitionSpec()  # as programs have it in their results: another spelling is compiled for anew
        for axis in sorted(range(np.ndim(array)), key=lambda axis: -np.shape(array)[axis]):
            if fsdp and np.shape(array)[axis] % mesh.size == 0:
                spec = PartitionSpec(*axis * (None,), "data")
                break
        return jax.device_put(array, NamedSharding(mesh, spec))

    return jax.tree.map(placed, tree)


def whole(tree: Any) -> Any:
    """A tree of arrays, each of which every process then has as a whole; to be called by all of them."""

    def gathered(array: jax.Array) -> jax.Array:
        split = not (array.is_fully_addressable or array.is_fully_replicated)
        return multihost_utils.process_allgather(array, tiled=True) if split else array

    return jax.tree.map(gathered, tree)


def gather(array: jax.Array, rows: int) -> list[list[int]]:
    """The first `rows` rows of an array that lies over the devices of all processes, each of which has its
    share of them, filled up at its end."""
    whole = np.asarray(multihost_utils.process_allgather(array, tiled=True))
    processes = jax.process_count()
    shares = [len(batching.share(np.arange(rows), process, processes)) for process in range(processes)]
    parts = np.split(whole, processes)
    return [row for part, count in zip(parts, shares, strict=True) for row in part[:count].tolist()]


def over_processes(value: Any) -> np.ndarray:
    """Each process's value, one a row."""
    one = jax.process_count() == 1
    return np.asarray([value]) if one else multihost_utils.process_allgather(np.asarray(value))


@contextmanager
def announced_compilation(announce: Callable[[str], None]) -> Iterator[None]:
    """Within the block, each program's compilation, which takes seconds, is announced before it begins."""

    def listen(event: str, seconds: float, **unused: Any) -> None:
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":  # the step before the long one
            announce("compiling")

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
