"""What is used of JAX and not public: that it is still there, and that nothing else is used."""

import inspect

import jax
import numpy as np
import private_uses
from jax.experimental import multihost_utils

from triptych.flax import jax_private

FILE = private_uses.PACKAGE / "flax/jax_private.py"


def test_nothing_private_is_used_outside_the_file_for_it():
    assert private_uses.outside("flax", FILE) == []
    assert private_uses.overridden("flax") == set()


def test_file_uses_what_these_tests_name():
    uses = {use.partition(": ")[2] for use in private_uses.uses(FILE.read_text())}
    assert uses == {"jax.experimental.multihost_utils", jax_private.LOWERED, jax_private.COMPILED}
    assert jax_private.PRIVATE[multihost_utils] == ("process_allgather",)
    assert len(jax_private.PRIVATE) == 1


def test_process_allgather_takes_an_array_and_whether_it_is_in_tiles():
    parameters = inspect.signature(multihost_utils.process_allgather).parameters
    assert next(iter(parameters)) == "in_tree"
    assert parameters["tiled"].default is False


def test_arrays_are_gathered_as_numpys():
    for found in (
        jax_private.gather_array(jax.numpy.arange(3)),
        jax_private.gather_over_processes([0, 1, 2]),
    ):
        assert isinstance(found, np.ndarray)
        assert found.ravel().tolist() == [0, 1, 2]


def test_each_compilation_is_told_before_and_after():
    events, size = [], 7919  # of no other test: what is compiled already is not compiled again
    jax_private.on_lowered(lambda: events.append("begins"))
    jax_private.on_compiled(lambda seconds: events.append(seconds))
    jax.jit(lambda x: x * 2 + 1)(np.zeros(size, np.float32)).block_until_ready()
    begins, seconds = events[-2:]
    assert begins == "begins"
    assert 0 < seconds < 60
