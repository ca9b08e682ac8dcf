"""The scripts' functions of a step, imported from them: gradients, updates and losses worked out by hand."""

import importlib.util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from harness import all_forms

from triptych.flax import optimization
from triptych.flax.architectures.layers import drop

SMOOTHING, RATE, DECAY, EPSILON = 0.1, 0.05, 0.3, 1e-8
# By task, two micro-batches: the tokens that logits are looked up for, and the labels. The first two share a
# row of the table; where the label is -100, nothing counts.
TOKENS = {
    "summarization": [([[3, 3, 0], [1, 4, 4]], [[2, 5, -100], [0, -100, -100]]), ([[2, 3]], [[-100, 1]])],
    "text-classification": [([3, 3, 1], [2, 5, -100]), ([4, 2], [0, 1])],
}
FORMS = [form for form in all_forms() if form.framework == "flax" and form.task in TOKENS]


class Table(nnx.Module):
    """Logits are the rows of a square table, whose gradients are differences of probabilities."""

    def __init__(self, dropout: float = 0.0):
        table = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
        self.table, self.dropout = nnx.Param(jnp.asarray(table)), nnx.Dropout(dropout)

    def __call__(self, input_ids, rngs=None, **others):
        return drop(self.table[...][input_ids], self.dropout, rngs)


@pytest.fixture(params=FORMS, ids=str)
def scripts_form(request):
    return request.param


@pytest.fixture
def script(scripts_form):
    """The script as a module; its main() does not run."""
    specification = importlib.util.spec_from_file_location(
        f"steps_{scripts_form.task}".replace("-", "_"), scripts_form.script
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def batches(scripts_form):
    read = ("input_ids", "attention_mask", "decoder_input_ids")
    return [
        {**dict.fromkeys(read, jnp.array(tokens)), "labels": jnp.array(labels)}
        for tokens, labels in TOKENS[scripts_form.task]
    ]


def by_hand(table, batches, smoothing):
    """The loss summed over the targets, its gradient, and the number of targets; in double precision."""
    loss, gradient, targets = 0.0, np.zeros(table.shape), 0
    for batch in batches:
        for token, label in zip(batch["input_ids"].ravel(), batch["labels"].ravel(), strict=True):
            if label == -100:
                continue
            logits = table[token].astype(np.float64)
            probabilities = np.exp(logits) / np.exp(logits).sum()
            wanted = np.full(len(table), smoothing / len(table)) + (1 - smoothing) * np.eye(len(table))[label]
            loss -= wanted @ np.log(probabilities)
            gradient[token] += probabilities - wanted
            targets += 1
    return loss, gradient, targets


def gradients_of(script, model, batches, targets, key=0):
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    sums = jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters)
    for batch in batches:
        step = graphdef, SMOOTHING, parameters, buffers, sums, batch, targets, jax.random.key(key)
        sums = script.add_gradients(*step)
    return sums


def test_gradients_of_micro_batches_add_up_to_those_of_the_mean_over_all_targets(script, batches):
    model = Table()
    expected, expected_gradient, targets = by_hand(np.asarray(model.table[...]), batches, SMOOTHING)
    assert targets in (4, 5)
    loss, gradients = gradients_of(script, model, batches, targets)
    assert float(loss) == pytest.approx(expected / targets, rel=1e-6)
    (gradient,) = jax.tree.leaves(gradients)
    np.testing.assert_allclose(gradient, expected_gradient / targets, rtol=1e-5, atol=1e-7)


def test_gradients_depend_on_the_key_of_dropout(script, batches):
    first, again, other = (
        jax.tree.leaves(gradients_of(script, Table(dropout=0.5), batches, 4, key)[1])[0] for key in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.01, 100.0])
@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_update_clips_decays_and_subtracts(script, batches, optim, max_grad_norm):
    settings = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": EPSILON}
    optimizer = optimization.optimizer(SimpleNamespace(optim=optim, weight_decay=DECAY, **settings))
    model = Table()
    table = np.asarray(model.table[...], np.float64)
    _, gradient, targets = by_hand(table, batches, SMOOTHING)
    gradient = gradient / targets
    norm = np.sqrt((gradient**2).sum())
    assert 0.01 < norm < 100
    if max_grad_norm:
        gradient *= min(1, max_grad_norm / norm)
    # Adam's first step, in which both moments are corrected to those of the gradient itself
    change = gradient if optim == "sgd" else gradient / (np.abs(gradient) + EPSILON)
    expected = table - RATE * (change + DECAY * table)

    _, gradients = gradients_of(script, model, batches, targets)
    parameters = nnx.state(model, nnx.Param)
    state = optimizer.init(parameters)
    parameters, state, found = script.update(optimizer, max_grad_norm, parameters, state, gradients, RATE)
    assert float(found) == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(jax.tree.leaves(parameters)[0], expected, rtol=1e-5, atol=1e-6)
    if optim != "sgd":
        assert int(state[0].count) == 1


def test_loss_of_an_evaluation_is_a_sum_without_smoothing_or_dropout(script, scripts_form, batches):
    model = Table(dropout=0.5)
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    for batch in batches:
        expected, _, _ = by_hand(np.asarray(model.table[...]), [batch], 0.0)
        loss, outputs = script.evaluation_step(graphdef, parameters, buffers, batch)
        assert float(loss) == pytest.approx(expected, rel=1e-6)
        if scripts_form.task == "text-classification":
            assert np.array_equal(outputs, model(batch["input_ids"]))
