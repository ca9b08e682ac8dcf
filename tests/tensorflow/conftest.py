"""The fixtures of this suite, and two devices; see tests/fixtures/pytorch_answers.py."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
import tensorflow as tf
from pytorch_answers import (
    ask_pytorch,
    batch,
    classifier,
    continuing,
    decoder,
    long_batch,
    made,
    made_decoders,
    made_pictures,
    packed,
    picture,
    prompts,
    texts,
    trained,
    variant,
)
from transformers import AutoConfig

from triptych.tensorflow import conversion

__all__ = [
    "ask_pytorch",
    "batch",
    "classifier",
    "continuing",
    "decoder",
    "long_batch",
    "made",
    "made_decoders",
    "made_pictures",
]
__all__ += ["packed", "picture", "prompts", "texts", "trained", "variant"]

# Before anything is computed, when it can no longer be done.
CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, 2 * [tf.config.LogicalDeviceConfiguration()])
tf.config.threading.set_intra_op_parallelism_threads(1)


@pytest.fixture(scope="session")
def two_devices():
    """The strategy of two devices. One for all tests: those of a process share the numbers of their
    collectives, and would be taken for one another."""
    devices = tf.config.list_logical_devices("CPU")
    assert len(devices) == 2
    return tf.distribute.MirroredStrategy(devices)


@pytest.fixture(scope="session")
def load():
    """`load(folder, **options)` is the model of a folder."""
    return lambda folder, **options: conversion.load(folder, AutoConfig.from_pretrained(folder), **options)
