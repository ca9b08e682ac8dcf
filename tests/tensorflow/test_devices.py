"""A TPU that is not there is one clear error, soon, by whatever name it is asked for."""

from types import SimpleNamespace

import pytest

from triptych.errors import InputError
from triptych.tensorflow import devices


@pytest.mark.parametrize("name", ["local", "grpc://127.0.0.1:9"])
def test_a_tpu_that_is_not_there_is_told(name):
    with pytest.raises(InputError) as caught:
        devices.start(SimpleNamespace(tpu=name))
    assert len(caught.value.problems) == 1
    assert f"--tpu {name}: there is no such TPU" in caught.value.problems[0]
