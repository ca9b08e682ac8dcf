"""The shapes that batches get, of which each is a program, and what is left of compiling them."""

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from triptych.flax import devices


@pytest.mark.parametrize(("max_tokens", "rows"), [(None, 8), (1024, 8), (128, 2)])
def test_batch_is_filled_up_to_the_rows_that_are_computed_at_once(max_tokens, rows):
    batch = {"input_ids": np.ones((2, 60), np.int64)}
    config = SimpleNamespace(model_type="bert", max_position_embeddings=512)
    shapes = devices.Shapes((), 0, config, SimpleNamespace(max_tokens_per_batch=max_tokens))
    world = devices.World(jax.make_mesh((1,), ("data",)))
    placed = world.place(batch, 8, shapes)["input_ids"]
    assert placed.shape == (rows, 64)
    assert placed.sum() == 2 * 60
    assert world.own_rows(placed, 2) == np.pad(batch["input_ids"], ((0, 0), (0, 4))).tolist()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone keeps it")
def test_memory_that_a_compilation_freed_is_given_back_to_the_system(monkeypatch):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    listeners = []
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", listeners.append)
    monkeypatch.setattr(jax.config, "update", lambda *setting: None)
    monkeypatch.setattr(jax, "set_mesh", lambda mesh: None)
    devices.start(SimpleNamespace(use_cpu=True))
    blocks = [np.ones(8192) for _ in range(3000)]  # each too small to be given back alone: 197 MB
    last = np.ones(8192)  # holds the end of the heap, which would be given back by itself
    del blocks
    before = resident()
    for listener in listeners:
        listener("/jax/core/compile/backend_compile_duration", 1.0)
    assert before - resident() > 100
    assert last.all()
