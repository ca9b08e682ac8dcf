"""Devices and processes that are not there are told in one sentence, soon."""

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


@pytest.mark.parametrize(
    "text",
    ["{", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'],
)
def test_a_cluster_that_cannot_be_read_is_told(text, monkeypatch):
    monkeypatch.setattr(devices.tf.config, "set_logical_device_configuration", lambda *unused: None)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError) as caught:
        devices.start(SimpleNamespace(tpu=None, use_cpu=False, fp16=False))
    assert "must name workers alone" in caught.value.problems[0]
