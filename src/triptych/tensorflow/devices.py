"""The devices of a run: one, or several, each of which computes a share of every batch."""

import json
import os
import socket
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf

from triptych import launchers
from triptych.errors import InputError


class World:
    """The processes and devices of a run; see `launchers.World`. Every process collates whole batches; each
    device takes its rows of them.

    Attributes:
        strategy: of `tf.distribute`.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy, self.devices = strategy, strategy.num_replicas_in_sync
        self.process, self.processes, self.share, self.shares = 0, 1, 0, 1
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            self.process = resolver.task_id
            self.processes = len(resolver.cluster_spec().job_tasks("worker"))
        kind = next(kind for kind in ("TPU", "GPU", "CPU") if tf.config.list_logical_devices(kind)).lower()
        self.description = kind if self.devices == 1 else f"{self.devices} {kind} devices"
        launchers.settle(self.process, self.processes)

    def gather(self, values: list[Any]) -> list[Any]:
        """The lists of all processes joined, in the order of the processes: a collective. They may hold
        numbers, texts, lists, arrays and None."""
        if self.processes == 1:
            return values
        text = tf.constant(list(json.dumps(values, default=np.ndarray.tolist).encode()), tf.int32)
        sizes, texts = (part.numpy() for part in _everywhere(self.strategy)(text))
        own = len(sizes) // self.processes  # devices of a process; each of them gave the same text
        parts = np.split(texts, np.cumsum(sizes)[:-1])[::own]
        return [value for part in parts for value in json.loads(bytes(part.astype(np.uint8)))]

    def program(self, function: Callable) -> Callable:
        """Makes a function on tensors a program that every device computes. One trace serves batches of all
        shapes, but for pictures of other sizes; those that hold other arrays, as rows to predict may, have
        one of their own.

        The program's arguments are batches, numbers, and True or False. A batch is a dictionary of arrays;
        each device gets its rows: contiguous, in numbers that differ by one at most, maybe none. True and
        False have a trace each. A result that is a scalar must be the same on all devices, and is returned
        once. A result that is an array is returned as a list of the rows of this process's devices, one
        device after the other.
        """
        traced: dict[tuple, Callable] = {}

        def call(*values: Any) -> Any:
            fixed = {place: value for place, value in enumerate(values) if isinstance(value, bool)}
            tensors = [_as_tensors(value) for value in values if not isinstance(value, bool)]
            signature = [tf.nest.map_structure(_any_size, value) for value in tensors]
            key = (*fixed.items(), *(tuple(spec.items()) for spec in signature if isinstance(spec, dict)))
            if key not in traced:

                def on_devices(tensors: list[Any]) -> Any:
                    return self._on_each_device(function, fixed, tensors)

                on_devices.__name__ = function.__name__  # by which profiles and warnings call the program
                # Without XLA, which gains nothing on a CPU and compiles a program for each shape.
                traced[key] = tf.function(on_devices, input_signature=[signature], jit_compile=False)
            return tf.nest.map_structure(self._own_result, traced[key](tensors))

        return call

    def _on_each_device(self, function: Callable, fixed: dict[int, bool], tensors: list[Any]) -> Any:
        def on_device(tensors: list[Any]) -> Any:
            own = iter([_rows_of_device(value) for value in tensors])
            count = len(fixed) + len(tensors)
            return function(*(fixed[place] if place in fixed else next(own) for place in range(count)))

        return self.strategy.run(on_device, (tensors,))

    def _own_result(self, value: Any) -> Any:
        parts = self.strategy.experimental_local_results(value)
        if not parts[0].shape.rank:
            return parts[0].numpy().item()
        return [row for part in parts for row in part.numpy().tolist()]


def start(args: Any) -> World:
    """Chooses the devices: the TPU that `--tpu` names, else all GPUs, else the CPU; with `--use_cpu` always
    the CPU. Variables are mirrored on several devices, and on those of all processes that `TF_CONFIG` names.

    With `TRIPTYCH_CPU_DEVICES=2` in the environment the CPU counts as two devices: so runs of several devices
    can be tried without a GPU.

    Raises:
        InputError: for `--fp16` on a CPU, a TPU that is not there, or a `TF_CONFIG` that cannot be read.
    """
    if args.tpu is not None:
        return World(tf.distribute.TPUStrategy(_connected_tpu(args.tpu)))
    if args.use_cpu:
        tf.config.set_visible_devices([], "GPU")
    cpus = [tf.config.LogicalDeviceConfiguration()] * int(os.environ.get("TRIPTYCH_CPU_DEVICES", "1"))
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    if args.fp16 and not tf.config.get_visible_devices("GPU"):
        raise InputError("--fp16: a CPU does not compute in float16. Leave it out, or give --bf16.")
    if cluster := os.environ.get("TF_CONFIG"):
        _require_cluster(cluster)
        return World(tf.distribute.MultiWorkerMirroredStrategy())  # has to be made before any operation
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    several = len(devices) > 1
    return World(tf.distribute.MirroredStrategy(devices) if several else tf.distribute.get_strategy())


def _require_cluster(text: str) -> None:
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        if task["type"] == "worker" and list(config["cluster"]) == ["worker"] and workers[task["index"]]:
            return
    except (ValueError, KeyError, IndexError, TypeError):
        pass
    raise InputError(
        f"TF_CONFIG={text}: must name workers alone, and which of them this process is: "
        '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.'
    )


SECONDS_TO_CONNECT = 20


def _connected_tpu(name: str) -> tf.distribute.cluster_resolver.TPUClusterResolver:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        address = urlsplit(resolver.master())
        if address.hostname:  # Tried first, because TensorFlow waits for it without a limit.
            socket.create_connection((address.hostname, address.port or 8470), SECONDS_TO_CONNECT).close()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # The network, the cloud's client and TensorFlow each have their own.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--tpu {name}: there is no such TPU to be reached ({reason}).") from error
    return resolver


@cache
def _everywhere(strategy: tf.distribute.Strategy) -> Callable:
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int32)], jit_compile=False)
    def everywhere(text):
        def on_device():
            own = tf.identity(text)  # on this device
            gather = partial(tf.distribute.get_replica_context().all_gather, axis=0)
            return gather(tf.shape(own)), gather(own)

        return [strategy.experimental_local_results(part)[0] for part in strategy.run(on_device)]

    return everywhere


def _as_tensors(value: Any) -> Any:
    """Whole numbers as int32, others as float32."""
    if isinstance(value, dict):
        return {name: _as_tensors(array) for name, array in value.items()}
    return tf.constant(value, tf.int32 if np.asarray(value).dtype.kind == "i" else tf.float32)


def _any_size(tensor: tf.Tensor) -> tf.TensorSpec:
    # Pictures, [rows, channels, height, width], have one size in a run, which their models are traced for.
    is_picture = tensor.shape.rank == 4
    return tf.TensorSpec(
        [None, *tensor.shape[1:]] if is_picture else [None] * tensor.shape.rank, tensor.dtype
    )


def _rows_of_device(value: Any) -> Any:
    context = tf.distribute.get_replica_context()
    devices, device = context.num_replicas_in_sync, context.replica_id_in_sync_group
    if devices == 1 or not isinstance(value, dict):
        return value
    # Each device slices the whole batch within the program, so that one trace serves any number of rows.
    rows = tf.shape(next(iter(value.values())))[0]
    begin, end = rows * device // devices, rows * (device + 1) // devices
    return {name: array[begin:end] for name, array in value.items()}


def own_seed(seed: Any) -> Any:
    """Within a program: from a seed, one that differs by device."""
    return seed + 104_729 * tf.distribute.get_replica_context().replica_id_in_sync_group


def zeros_like(variables: Sequence[Any]) -> list[tf.Variable]:
    """Within the strategy's scope: for each variable another of zeros. Each device changes its own copy,
    without a collective."""
    own = {"synchronization": tf.VariableSynchronization.ON_READ, "trainable": False}
    sum_when_read = {"aggregation": tf.VariableAggregation.SUM}
    return [tf.Variable(tf.zeros(variable.shape), **own, **sum_when_read) for variable in variables]


def sum_over_devices(values: Any) -> Any:
    """Within a program: the sum of a tensor, or of each tensor in a list, over all devices, which each of
    them gets: a collective."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)
