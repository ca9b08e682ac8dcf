"""The devices of a run: one, or several that each compute a share of every batch."""

import inspect
import json
import os
import socket
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf

from triptych.errors import InputError


def start(args: Any) -> tf.distribute.Strategy:
    """Chooses the devices: the TPU that `--tpu` names, else all GPUs, else the CPU (with `--use_cpu` in any
    case); several are mirrored, also those of the other processes that `TF_CONFIG` names.

    With `TRIPTYCH_CPU_DEVICES=2` in the environment the CPU counts as two devices, which shows without a GPU
    what several do.

    Raises:
        InputError: for `--fp16` on a CPU, a TPU that is not there, or a `TF_CONFIG` that cannot be read.
    """
    if args.tpu is not None:
        return tf.distribute.TPUStrategy(_connected_tpu(args.tpu))
    if args.use_cpu:
        tf.config.set_visible_devices([], "GPU")
    cpus = [tf.config.LogicalDeviceConfiguration()] * int(os.environ.get("TRIPTYCH_CPU_DEVICES", "1"))
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    if args.fp16 and not tf.config.get_visible_devices("GPU"):
        raise InputError("--fp16: a CPU does not compute in float16. Leave it out, or give --bf16.")
    if cluster := os.environ.get("TF_CONFIG"):
        _require_cluster(cluster)
        return tf.distribute.MultiWorkerMirroredStrategy()  # before anything else is computed
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


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
        if address.hostname:  # else TensorFlow would wait for it without end
            socket.create_connection((address.hostname, address.port or 8470), SECONDS_TO_CONNECT).close()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # of the network, of the cloud's client, of TensorFlow: each has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--tpu {name}: there is no such TPU to be reached ({reason}).") from error
    return resolver


def describe(strategy: tf.distribute.Strategy) -> str:
    """The devices in a few words: `2 cpu devices`."""
    kind = next(kind for kind in ("TPU", "GPU", "CPU") if tf.config.list_logical_devices(kind)).lower()
    return kind if strategy.num_replicas_in_sync == 1 else f"{strategy.num_replicas_in_sync} {kind} devices"


def places(strategy: tf.distribute.Strategy) -> tuple[int, int, int]:
    """This process's number, how many processes there are, and how many devices they have together."""
    replicas, resolver = strategy.num_replicas_in_sync, strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1, replicas
    return resolver.task_id, len(resolver.cluster_spec().job_tasks("worker")), replicas


def over_processes(strategy: tf.distribute.Strategy, value: Any) -> list[Any]:
    """Each process's value, of numbers and lists, in the order of the processes."""
    _, processes, _ = places(strategy)
    if processes == 1:
        return [value]
    text = tf.constant(list(json.dumps(value).encode()), tf.int32)
    sizes, texts = (part.numpy() for part in _everywhere(strategy)(text))
    own = len(sizes) // processes  # devices of a process, each of which gave the same
    parts = np.split(texts, np.cumsum(sizes)[:-1])[::own]
    return [json.loads(bytes(part.astype(np.uint8))) for part in parts]


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


def gather(strategy: tf.distribute.Strategy, ids: Any) -> list[list[int]]:
    """The rows of token ids that all devices of all processes have computed, in order."""
    own = [row for part in strategy.experimental_local_results(ids) for row in part.numpy().tolist()]
    return [row for rows in over_processes(strategy, own) for row in rows]


def policy(args: Any) -> str:
    """The Keras policy of a run's precision; variables are float32 in all of them."""
    return "mixed_bfloat16" if args.bf16 else "mixed_float16" if args.fp16 else "float32"


def as_tensors(batch: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """A collated batch as tensors, int32 of whole numbers and float32 of others."""
    kinds = {name: tf.int32 if values.dtype.kind == "i" else tf.float32 for name, values in batch.items()}
    return {name: tf.constant(values, kinds[name]) for name, values in batch.items()}


def on_each(strategy: tf.distribute.Strategy) -> Callable[[Callable], Callable]:
    """Lets a function compute on each device, within a tf.function.

    Of a batch, given as a dictionary, each device gets its rows: contiguous, in numbers that differ by one at
    most, maybe none. An argument called `seed` differs by device. The result is each device's own; see
    `tf.distribute.Strategy.experimental_local_results`.
    """

    def decorate(function: Callable) -> Callable:
        names = list(inspect.signature(function).parameters)

        def on_device(*values: Any) -> Any:
            own = {name: _own(name, value) for name, value in zip(names, values, strict=True)}
            return function(**own)

        def on_devices(*values: Any) -> Any:
            return strategy.run(on_device, values)

        # tf.function reads the names of its arguments
        on_devices.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        on_devices.__name__ = function.__name__
        return on_devices

    return decorate


def _own(name: str, value: Any) -> Any:
    context = tf.distribute.get_replica_context()
    devices, device = context.num_replicas_in_sync, context.replica_id_in_sync_group
    if devices > 1 and isinstance(value, dict):
        # Taken out of the whole batch on each device, so that one trace serves any number of rows.
        rows = tf.shape(next(iter(value.values())))[0]
        begin, end = rows * device // devices, rows * (device + 1) // devices
        return {name: tokens[begin:end] for name, tokens in value.items()}
    return value + 104_729 * device if devices > 1 and name == "seed" else value


def zeros_like(variables: Sequence[Any]) -> list[tf.Variable]:
    """Within the strategy's scope: for each variable one of zeros, whose value is each device's own."""
    own = {"synchronization": tf.VariableSynchronization.ON_READ, "trainable": False}
    sum_when_read = {"aggregation": tf.VariableAggregation.SUM}
    return [tf.Variable(tf.zeros(variable.shape), **own, **sum_when_read) for variable in variables]


def sum_over_devices(values: Any) -> Any:
    """In a function of `on_each`: the sum over all devices of a tensor, or of each in a list, on each of
    them."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)
