"""Programs on one device and on two, and devices and processes that are not there, told in one sentence."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

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


@pytest.fixture(params=[1, 2])
def world(request, two_devices):
    return devices.World(tf.distribute.get_strategy() if request.param == 1 else two_devices)


def test_world_says_what_it_found(world):
    assert world.description == ("cpu" if world.devices == 1 else "2 cpu devices")
    assert (world.process, world.processes, world.share, world.shares) == (0, 1, 0, 1)
    assert world.gather([1, None, "a", [2.5]]) == [1, None, "a", [2.5]]


def test_program_gives_each_device_its_rows_by_one_trace_for_all_shapes(world):
    calls = []

    @world.program
    def doubled(batch, scale, seed, wants_rows):
        calls.append(wants_rows)
        rows = tf.reduce_sum(tf.ones_like(batch["ids"][:, 0]))
        total = tf.cast(tf.reduce_sum(batch["ids"]), tf.float32) * scale
        devices_seed = devices.own_seed(seed) - seed
        values = [batch["values"] * 2, batch["ids"][:, 0], tf.repeat(devices_seed, rows)]
        return devices.sum_over_devices(total), values if wants_rows else ()

    for count, width in ((5, 3), (4, 7), (1, 2), (0, 2)):
        ids = np.arange(count * width).reshape(count, width)
        batch = {"ids": ids, "values": np.linspace(0, 1, count)}
        total, rows = doubled(batch, 0.5, 7, True)
        assert total == ids.sum() / 2
        assert rows[0] == pytest.approx(list(np.linspace(0, 1, count) * 2))
        assert rows[1] == ids[:, 0].tolist()
        own = [count // 2, count - count // 2] if world.devices == 2 else [count]
        assert rows[2] == [number * 104_729 for number, size in enumerate(own) for _ in range(size)]
        assert all(isinstance(value, int) for value in rows[1])
        total, rows = doubled(batch, 1.0, 7, False)
        assert total == ids.sum()
        assert rows == ()
    # Once for each device in each trace, which True and False do not share
    assert calls == [True] * world.devices + [False] * world.devices


def test_sums_are_each_devices_own_until_they_are_added_up(world):
    with world.strategy.scope():
        (total,) = devices.zeros_like([np.zeros(2, np.float32)])

    @world.program
    def add(batch):
        total.assign_add([tf.reduce_sum(batch["values"]), 1.0])
        return devices.sum_over_devices(tf.constant(1))

    @world.program
    def take():
        (found,) = devices.sum_over_devices([total / 1.0])
        total.assign(tf.zeros_like(total))
        return found[0], found[1]

    for values in ([1.0, 2.0, 4.0], [8.0]):
        assert add({"values": np.array(values)}) == world.devices
    assert take() == (15.0, 2.0 * world.devices)  # one for each device and call
    assert take() == (0.0, 0.0)
