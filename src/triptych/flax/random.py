"""Dropout's random numbers: a hash that XLA compiles in a fraction of the time of `jax.random`."""

import math
from functools import partial

import jax
import numpy as np


def keeps(key: jax.Array, draw: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Bool of a shape, false with a probability of `rate`; see `random_bits`."""
    return random_bits(key, draw, shape) >= np.uint32(round(rate * 2**32))


@partial(jax.jit, static_argnames="shape")  # so that it is traced once for each shape
def random_bits(key: jax.Array, draw: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 of a shape: lowbias32 (Wellons, "Prospecting for hash functions", 2018) of each place's number,
    to which key and number of the draw are added twice, at the start and in the middle. With the start alone
    each draw of a key would have the numbers of the others in another order.

    The twenty rounds of `jax.random`, which XLA compiles anew for each dropout, make a program for training
    of t5-small's shape compile in 12.6 s instead of 3.4, and a step at least a quarter slower.
    """
    low, high = jax.random.key_data(key)[:2]  # those of other generators have more
    start = low + draw * np.uint32(0x9E3779B9)
    middle = high * np.uint32(0xC2B2AE35) + draw * np.uint32(0x85EBCA6B)
    bits = jax.lax.iota(np.uint32, math.prod(shape)).reshape(shape) + start
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D) + middle
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)
