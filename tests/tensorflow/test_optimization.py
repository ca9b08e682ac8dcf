"""Optimizers whose steps are those of torch.optim, their state, and training on one device and on two."""

from collections import Counter
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from transformers import AutoConfig

from triptych.models import tensor_files
from triptych.run.state import RunState
from triptych.tensorflow import conversion, devices, optimization

SHAPES = ((30, 20), (20,), (7, 3, 5))
DECAY = (0.1, 0.0, 0.1)


@pytest.fixture
def steps():
    """Initial values of variables, and 30 steps: gradients of most different sizes, and learning rates."""
    draw = np.random.default_rng(0)
    initial = [draw.normal(size=shape).astype(np.float32) for shape in SHAPES]
    sizes = 10 ** draw.uniform(-9, 1, (30, len(SHAPES)))
    gradients = [
        [(size * draw.normal(size=shape)).astype(np.float32) for size, shape in zip(row, SHAPES, strict=True)]
        for row in sizes
    ]
    return initial, gradients, np.linspace(1e-2, 1e-4, 30)


def taken(optimizer, variables, gradients, rates):
    @tf.function
    def step(gradients, rate):
        optimizer.learning_rate = rate
        optimizer.apply(gradients, variables)

    for row, rate in zip(gradients, rates, strict=True):
        step([tf.constant(gradient) for gradient in row], tf.constant(rate, tf.float32))
    assert step.experimental_get_tracing_count() == 1
    return [variable.numpy() for variable in variables]


def test_thirty_steps_of_adamw_are_pytorchs(steps):
    """By the definition of torch.optim.AdamW, in double precision. Keras' own is off by 1e-3 here."""
    initial, gradients, rates = steps
    variables = [keras.Variable(value) for value in initial]
    optimizer = optimization.AdamW(variables, DECAY, betas=(0.9, 0.98), epsilon=1e-6)
    found = taken(optimizer, variables, gradients, rates)
    for i, value in enumerate(initial):
        value, first, second = value.astype(np.float64), 0.0, 0.0
        for t, (row, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
            gradient = row[i].astype(np.float64)
            value = value * (1 - rate * DECAY[i])
            first = 0.9 * first + 0.1 * gradient
            second = 0.98 * second + 0.02 * gradient**2
            corrected = np.sqrt(second / (1 - 0.98**t)) + 1e-6
            value = value - rate * first / (1 - 0.9**t) / corrected
        moved = np.abs(value - initial[i]).max()
        assert np.abs(found[i] - value).max() < 2e-5 * moved
        np.testing.assert_allclose(optimizer.moments()["exp_avg"][i], first, rtol=1e-4, atol=1e-7)


def test_thirty_steps_of_sgd_are_pytorchs(steps):
    initial, gradients, rates = steps
    variables = [keras.Variable(value) for value in initial]
    found = taken(optimization.SGD(variables, DECAY), variables, gradients, rates)
    for i, value in enumerate(initial):
        for row, rate in zip(gradients, rates, strict=True):
            value = value - rate * (row[i] + DECAY[i] * value)
        np.testing.assert_allclose(found[i], value, rtol=1e-4, atol=1e-5)


def test_clipping_counts_all_gradients_together_and_sums_sparse_rows_first():
    rows = tf.IndexedSlices(tf.constant([[3.0], [1.0]]), indices=[2, 2], dense_shape=[5, 1])
    gradients = [rows, tf.constant([0.0, 3.0])]
    clipped, norm = optimization.clip_by_global_norm(gradients, 1.0)
    assert float(norm) == pytest.approx(5)
    np.testing.assert_allclose(clipped[0][:, 0], [0, 0, 0.8, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(clipped[1], [0, 0.6], rtol=1e-6)
    for largest in (0, 6):
        kept, norm = optimization.clip_by_global_norm(gradients, largest)
        assert float(norm) == pytest.approx(5)
        np.testing.assert_allclose(kept[1], [0, 3])


def test_loss_scale_halves_at_once_and_doubles_in_time():
    state = RunState()
    scale = optimization.LossScale(True, state)
    first = scale.value
    scale.update(finite=False)
    assert scale.value == first / 2
    for _ in range(2000):
        assert scale.value == first / 2
        scale.update(finite=True)
    assert scale.value == first
    scale.update(finite=True)
    again = optimization.LossScale(True, RunState(loss_scale=state.loss_scale))  # of a continued run
    assert (again.value, again.steps) == (first, 1)
    unused = optimization.LossScale(False, RunState())
    unused.update(finite=False)
    assert unused.value == 1


def test_step_with_an_infinite_gradient_is_left_out_where_that_is_asked_for():
    variables = [keras.Variable(np.ones((2, 3), np.float32)), keras.Variable(np.ones(3, np.float32))]
    optimizer = optimization.AdamW(variables, [0.1, 0.0], skips_infinite=True)
    optimizer.learning_rate.assign(0.5)

    @tf.function
    def step(first, second):
        optimizer.apply([first, second], variables)

    step(tf.ones((2, 3)), tf.constant([1.0, np.inf, 1.0]))
    assert all((variable.numpy() == 1).all() for variable in variables)
    assert int(optimizer.iterations) == 0
    step(tf.ones((2, 3)), tf.ones(3))
    assert all((variable.numpy() < 0.6).all() for variable in variables)
    assert int(optimizer.iterations) == 1


def arguments(**changes):
    values = {"optim": "adamw_torch", "weight_decay": 0.1, "fp16": False}
    values |= {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
    return SimpleNamespace(**values | changes)


def test_state_is_written_under_pytorchs_names_and_comes_back(made, load, tmp_path):
    model = load(made / "bart")
    optimizer = optimization.optimizer(model, arguments())
    draw = np.random.default_rng(0)
    taken(
        optimizer,
        model.trainable_variables,
        [[draw.normal(size=variable.shape).astype(np.float32) for variable in model.trainable_variables]],
        [1e-3],
    )
    optimization.save_state(tmp_path, optimizer, model)
    stored, tensors = load_file(tmp_path / tensor_files.OPTIMIZER), tensor_files.read_model(made / "bart")
    parameters = tensors.keys() - {"final_logits_bias"}
    assert stored.keys() == {
        f"{kind}.{name}" for kind in ("exp_avg", "exp_avg_sq", "step") for name in parameters
    }
    for name in parameters:
        assert stored[f"exp_avg.{name}"].shape == tensors[name].shape
        assert stored[f"step.{name}"].shape == ()
        assert stored[f"step.{name}"] == 1

    again = optimization.optimizer(model, arguments())
    optimization.load_state(tmp_path, again, model)
    assert int(again.iterations) == 1
    for kind, variables in optimizer.moments().items():
        for variable, other in zip(variables, again.moments()[kind], strict=True):
            assert np.array_equal(variable, other)


def test_optimizer_without_a_state_writes_and_reads_none(made, load, tmp_path):
    model = load(made / "t5")
    optimizer = optimization.optimizer(model, arguments(optim="sgd"))
    optimization.save_state(tmp_path, optimizer, model)
    assert load_file(tmp_path / tensor_files.OPTIMIZER) == {}
    optimization.load_state(tmp_path, optimizer, model)


def train(world, folder, batches):
    """Two micro-batches a step, as in a script: each device has its rows, gradients are summed over
    micro-batches and devices, divided by the number of targets, clipped and applied. Returns losses and norms
    of the steps, the tensors, and how often a device traced each of the two programs."""
    config = AutoConfig.from_pretrained(folder)
    config.dropout_rate = 0.0
    with world.strategy.scope():
        model = conversion.load(folder, config)
        optimizer = optimization.optimizer(model, arguments())
        sums = devices.zeros_like(model.trainable_variables)
    variables, traces = model.trainable_variables, Counter()

    @world.program
    def add_gradients(batch, targets, seed):
        traces["add_gradients"] += 1
        inputs, labels = {name: values for name, values in batch.items() if name != "labels"}, batch["labels"]
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True, seed=devices.own_seed(seed))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
            loss = tf.reduce_sum(tf.where(labels != -100, losses, 0.0)) / targets
        for total, gradient in zip(sums, tape.gradient(loss, variables), strict=True):
            total.assign_add(gradient)
        return devices.sum_over_devices(loss)

    @world.program
    def update(rate):
        traces["update"] += 1
        gradients = devices.sum_over_devices([total / 1.0 for total in sums])
        gradients, norm = optimization.clip_by_global_norm(gradients, 1.0)
        optimizer.learning_rate.assign(rate)
        optimizer.apply(gradients, variables)
        for total in sums:
            total.assign(tf.zeros_like(total))
        return norm

    results = []
    for pair in zip(batches[::2], batches[1::2], strict=True):
        targets = float(sum((batch["labels"] != -100).sum() for batch in pair))
        loss = sum(add_gradients(batch, targets, 0) for batch in pair)
        results.append([loss, update(1e-3)])
    traces = {name: count / world.devices for name, count in traces.items()}
    return np.array(results), conversion.to_numpy(model, variables), traces


def test_two_devices_take_the_steps_of_one_with_one_trace_for_all_shapes(made, batch, two_devices):
    """The last batch has one row: a device without rows must add nothing."""
    cuts = [(4, 12, 7), (3, 5, 4), (4, 9, 3), (2, 12, 7), (3, 7, 5), (1, 12, 2)]
    batches = []
    for rows, source, target in cuts:
        lengths = {name: source if name in ("input_ids", "attention_mask") else target for name in batch}
        batches.append({name: batch[name][:rows, :length] for name, length in lengths.items()})
    folder = made / "t5-v1.1-untied"
    one, tensors, traces = train(devices.World(tf.distribute.get_strategy()), folder, batches)
    two, others, other_traces = train(devices.World(two_devices), folder, batches)
    assert traces == other_traces == {"add_gradients": 1, "update": 1}
    np.testing.assert_allclose(two, one, rtol=1e-5)
    assert one[0, 1] > 1, "the gradients of this test are to be clipped"
    for name, values in tensors.items():
        assert np.abs(others[name] - values).max() < 1e-4 * np.abs(values).max() + 1e-7, name
