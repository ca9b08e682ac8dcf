"""Dropout's own random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from triptych.flax import random
from triptych.flax.architectures import layers

SHAPE = (8, 64, 512)


def bits(seed, draw=0):
    return np.asarray(random.random_bits(jax.random.key(seed), np.uint32(draw), SHAPE))


def test_bits_are_even_and_unlike_their_neighbours_and_those_of_other_keys_and_draws():
    one = bits(1)
    assert one.dtype == np.uint32
    counts = np.histogram(one, 256, (0, 2**32))[0]
    expected = one.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 360  # chi-squared with 255 degrees: 1 in 100,000
    drawn = one.astype(float)
    for axis in range(3):
        assert abs(np.corrcoef(drawn.ravel(), np.roll(drawn, 1, axis).ravel())[0, 1]) < 0.01
    for other in (bits(2), bits(1, draw=1)):
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.01
    some = [bits(seed, draw)[0, 0, :4] for seed in range(20) for draw in range(5)]
    assert np.unique(np.stack(some), axis=0).shape[0] == 100
    for bit in range(32):
        assert abs((one >> bit & 1).mean() - 0.5) < 0.005


def test_masks_are_independent_of_themselves_moved_and_of_those_of_other_draws():
    # Correlations, in standard deviations of what chance gives
    masks = np.stack([bits(seed, draw).ravel() < 2**32 // 10 for seed in range(2) for draw in range(32)])
    masks = ((masks - 0.1) / 0.3).astype(np.float32)
    size = masks.shape[1]
    for moved in (0, 1, 2, 8, 64, 512, 513, 4096):
        correlations = masks[:, moved:] @ masks[:, : size - moved].T / (size - moved) ** 0.5
        if not moved:
            np.fill_diagonal(correlations, 0)
        assert np.abs(correlations).max() < 6, moved


def test_no_draw_of_a_key_has_the_numbers_of_another_in_another_order():
    ends = [(drawn.min(), drawn.max()) for drawn in (bits(1, draw) for draw in range(400))]
    assert len(set(ends)) == 400


def test_dropout_keeps_the_mean_and_draws_anew_each_time():
    rngs, dropout = nnx.Rngs(dropout=3), nnx.Dropout(0.1)
    first, second = (np.asarray(layers.drop(jnp.ones(SHAPE), dropout, rngs)) for _ in range(2))
    assert abs((first == 0).mean() - 0.1) < 0.002
    assert abs(first.mean() - 1) < 0.002
    assert abs(((first == 0) & (second == 0)).mean() - 0.01) < 0.001
    again = layers.drop(jnp.ones(SHAPE), dropout, nnx.Rngs(dropout=3))
    assert np.array_equal(first, again)
    assert np.array_equal(layers.drop(jnp.ones(SHAPE), dropout, None), np.ones(SHAPE))
