"""The devices of all processes as one mesh, and arrays placed on it."""

import ctypes
import itertools
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from triptych import launchers
from triptych.batching import order, padding
from triptych.errors import InputError
from triptych.flax import jax_private
from triptych.models import configs

SECONDS_UNTIL_DEAD = 20  # After so long without a heartbeat of a process, the others end.


class Shapes:
    """How batches are filled up to few shapes: XLA compiles a program for each shape.

    Args:
        targets: names of the arrays that the loss is summed over.
        pad_token_id: of the tokenizer.
        config: of the model, which says how many positions it has.
    """

    def __init__(self, targets: Collection[str], pad_token_id: int, config: Any, args: Any):
        self.targets, self.pad_token_id = targets, pad_token_id
        self.longest, self.max_tokens = configs.positions(config), args.max_tokens_per_batch


class World:
    """The processes and devices of a run; see `launchers.World`.

    Attributes:
        mesh: the devices of all processes on one axis, "data".
    """

    def __init__(self, mesh: Mesh):
        self.mesh, self.devices = mesh, mesh.size
        self.process = self.share = jax.process_index()
        self.processes = self.shares = jax.process_count()
        kind = mesh.devices.flat[0].platform
        self.description = kind if mesh.size == 1 else f"{mesh.size} {kind} devices"
        launchers.settle(self.process, self.processes)

    def sum(self, values: Sequence[float]) -> list[Any]:
        """The sum of each number over the processes: a collective."""
        return over_processes(values).sum(axis=0).tolist()

    def gather(self, values: list[Any]) -> list[Any]:
        """The lists of all processes joined, in the order of the processes: a collective. They may hold
        numbers, texts, lists, arrays and None."""
        if self.processes == 1:
            return values
        text = np.frombuffer(json.dumps(values, default=np.ndarray.tolist).encode(), np.uint8)
        sizes = over_processes(len(text))
        texts = over_processes(np.pad(text, (0, int(sizes.max()) - len(text))))
        parts = (bytes(row[:size]) for row, size in zip(texts, sizes, strict=True))
        return [value for part in parts for value in json.loads(part)]

    def place(
        self, batch: dict[str, np.ndarray], rows_per_device: int, shapes: Shapes
    ) -> dict[str, jax.Array]:
        """A batch sharded over the devices of all processes; each process gives its own rows.

        Args:
            rows_per_device: of the filled batch; fewer if they would exceed `--max_tokens_per_batch`.
        """
        by_rows = NamedSharding(self.mesh, PartitionSpec("data"))
        # All processes run the same program, and so have to come to the same shapes.
        sizes = [size for array in batch.values() for size in array.shape[1:]]
        largest = iter(over_processes(sizes).max(axis=0).tolist() if sizes else ())
        widest = {name: list(itertools.islice(largest, array.ndim - 1)) for name, array in batch.items()}
        if "input_ids" in batch:
            *sequences, length = widest["input_ids"]
            limits = rows_per_device, shapes.max_tokens, math.prod(sequences)
            rows_per_device = order.rows_at_once(length, *limits)
        rows = rows_per_device * self.devices // self.processes
        filled = padding.in_few_shapes(
            batch, rows, widest, shapes.targets, shapes.pad_token_id, shapes.longest
        )
        return {name: jax.make_array_from_process_local_data(by_rows, each) for name, each in filled.items()}

    def own_rows(self, array: jax.Array, count: int) -> list[Any]:
        """The first `count` rows of this process's part of an array that is sharded over the devices of all
        processes: a collective."""
        whole = jax_private.gather_array(array)
        return np.split(whole, self.processes)[self.process][:count].tolist()


def start(args: Any) -> World:
    """Finds the other processes, if there are any, chooses the devices, and has compiled programs kept for
    later runs.

    Processes find each other by Slurm, Open MPI, a TPU pod's `TPU_WORKER_HOSTNAMES`, or by
    `JAX_COORDINATOR_ADDRESS` (host:port of the first), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`. JAX keeps
    the programs in `JAX_COMPILATION_CACHE_DIR`, by default `~/.cache/triptych/jax`.

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
    jax_private.on_compiled(_return_memory)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    # Otherwise arrays created inside jit have no mesh when a program first takes them, and this one later:
    # every such program is compiled twice.
    jax.set_mesh(mesh)
    return World(mesh)


def _return_memory(seconds: float) -> None:
    """Returns memory that a compilation has used to the system. glibc would keep it: 260 MB after eight
    programs for training of t5-small's shape."""
    if seconds > 0.2:
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
    # The preemption service would replace our handler of SIGTERM by its own.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(**own, heartbeat_timeout_seconds=SECONDS_UNTIL_DEAD)


def place_parameters(tree: Any, world: World, fsdp: bool = False) -> Any:
    """Places a tree of parameters on every device. With `fsdp` each array is sharded over the devices along
    the largest axis that their number divides; an array without such an axis is replicated."""

    def placed(array: Any) -> jax.Array:
        # Programs spell the sharding of their results so: with another spelling they are compiled anew.
        spec = PartitionSpec()
        for axis in sorted(range(np.ndim(array)), key=lambda axis: -np.shape(array)[axis]):
            if fsdp and np.shape(array)[axis] % world.devices == 0:
                spec = PartitionSpec(*axis * (None,), "data")
                break
        return jax.device_put(array, NamedSharding(world.mesh, spec))

    return jax.tree.map(placed, tree)


def whole(tree: Any) -> Any:
    """A tree of arrays of which every process has each as a whole. Gathering what is sharded is a collective:
    all processes have to call this."""

    def gathered(array: jax.Array) -> jax.Array:
        split = not (array.is_fully_addressable or array.is_fully_replicated)
        return jax_private.gather_array(array) if split else array

    return jax.tree.map(gathered, tree)


def over_processes(value: Any) -> np.ndarray:
    """The value of each process, one a row: a collective."""
    one = jax.process_count() == 1
    return np.asarray([value]) if one else jax_private.gather_over_processes(value)


@contextmanager
def announced_compilation(announce: Callable[[str], None]) -> Iterator[None]:
    """A block in which `announce` is called before each program is compiled, which takes seconds."""
    within = True

    def tell() -> None:
        if within:
            announce("compiling")

    jax_private.on_lowered(tell)
    try:
        yield
    finally:
        within = False  # The call stays registered: JAX 0.8.0 and before cannot remove it.
