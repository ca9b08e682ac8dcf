"""The shapes that batches get, of which each is a program."""

import jax
import numpy as np
import pytest

from triptych.flax import devices


@pytest.mark.parametrize(("max_tokens", "rows"), [(None, 8), (1024, 8), (128, 2)])
def test_batch_is_filled_up_to_the_rows_that_are_computed_at_once(max_tokens, rows):
    batch = {"input_ids": np.ones((2, 60), np.int64)}
    shapes = {"longest": {"input_ids": 512}, "fill": {"input_ids": 0}, "max_tokens": max_tokens}
    placed = devices.place_batch(batch, 8, mesh=jax.make_mesh((1,), ("data",)), **shapes)["input_ids"]
    assert placed.shape == (rows, 64)
    assert placed.sum() == 2 * 60
