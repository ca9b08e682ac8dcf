"""The devices of a run: one, or several that each compute a share of every batch."""

from typing import Any

import numpy as np
import tensorflow as tf

from triptych.errors import InputError


def start(args: Any) -> tf.distribute.Strategy:
    """Chooses the devices: all GPUs, else the CPU (with `--use_cpu` in any case); several are mirrored.

    Raises:
        InputError: for `--fp16` on a CPU.
    """
    if args.use_cpu:
        tf.config.set_visible_devices([], "GPU")
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


def share(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Within `strategy.run`: this device's rows of a batch, contiguous, in numbers that differ by one at
    most.

    Taken out of the whole batch on each device, so that one trace serves any number of rows.
    """
    context = tf.distribute.get_replica_context()
    devices, device = context.num_replicas_in_sync, context.replica_id_in_sync_group
    if devices == 1:
        return batch
    rows = tf.shape(next(iter(batch.values())))[0]
    return {
        name: values[rows * device // devices : rows * (device + 1) // devices]
        for name, values in batch.items()
    }


def sum_over_devices(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Within `strategy.run`: the sum of each tensor over all devices, on each of them."""
    context = tf.distribute.get_replica_context()
    return (
        tensors
        if context.num_replicas_in_sync == 1
        else context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)
    )
