"""The search for private uses finds each kind of them, and nothing else."""

import pytest
from private_uses import uses


@pytest.mark.parametrize(
    "line",
    [
        "layer._dropout = 1",
        "names = self._flatten_layers()",
        "save(folder, _internal_call=True)",
        "found = getattr(model, '_no_split_modules', None)",
        "object.__setattr__(layer, 'seeds', 1)",
        "from keras_hub.src.models.t5 import layer",
        "from jax.experimental import multihost_utils",
        "import jax.experimental.multihost_utils",
        "from jax._src import api",
        "from accelerate.utils import _names",
        "event = '/jax/core/compile/backend_compile_duration'",
    ],
)
def test_private_use_is_found(line):
    (found,) = uses(f"import os\n{line}")
    assert found.startswith("2: ")


@pytest.mark.parametrize(
    "line",
    [
        "self._own = self._own",
        "super().__init__()",
        "state = adam._replace(count=1)",
        "found = getattr(model, 'config', None)",
        "from triptych.data import _own",
        "for _ in range(3): pass",
        "parts = strategy.experimental_local_results(value)",
    ],
)
def test_public_and_own_names_are_let_be(line):
    assert list(uses(line, own={"_own"})) == []
