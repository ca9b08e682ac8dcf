"""The devices of a run: one, or several that each compute a share of every batch."""

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from triptych.errors import InputError


def start(args: Any) -> tf.distribute.Strategy:
    """Chooses the devices: all GPUs, else the CPU (with `--use_cpu` in any case); several are mirrored.

    With `TRIPTYCH_CPU_DEVICES=2` in the environment the CPU counts as two devices, which shows without a GPU
    what several do.

    Raises:
        InputError: for `--fp16` on a CPU.
    """
    if args.use_cpu:
        tf.config.set_visible_devices([], "GPU")
    cpus = [tf.config.LogicalDeviceConfiguration()] * int(os.environ.get("TRIPTYCH_CPU_DEVICES", "1"))
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    if args.fp16 and kind == "CPU":
        raise InputError("--fp16: a CPU does not compute in float16. Leave it out, or give --bf16.")
    devices = tf.config.list_logical_devices(kind)
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def describe(strategy: tf.distribute.Strategy) -> str:
    """The devices in a few words: `2 cpu devices`."""
    kind = "gpu" if tf.config.list_logical_devices("GPU") else "cpu"
    return kind if strategy.num_replicas_in_sync == 1 else f"{strategy.num_replicas_in_sync} {kind} devices"


def policy(args: Any) -> str:
    """The Keras policy of a run's precision; variables are float32 in all of them."""
    return "mixed_bfloat16" if args.bf16 else "mixed_float16" if args.fp16 else "float32"


def as_tensors(batch: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """A collated batch as int32 tensors."""
    return {name: tf.constant(values, tf.int32) for name, values in batch.items()}


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


def sum_over_devices(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """In a function of `on_each`: the sum of each tensor over all devices, on each of them."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tensors
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)
