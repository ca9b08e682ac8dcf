"""T5 and BART in flax.nnx against PyTorch: scores, gradients, initial weights, dropout, precision."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import print_saved_residuals
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.flax import conversion, random
from triptych.flax.architectures import layers
from triptych.models import tensor_files


def load(folder, **arguments):
    return conversion.load(folder, AutoConfig.from_pretrained(folder), **arguments)


def loss_of(params, graphdef, rest, batch, key):
    """The cross entropy summed over labels that are not -100, and the logits."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    rngs = None if key is None else nnx.Rngs(dropout=key)
    logits = nnx.merge(graphdef, params, rest)(**inputs, rngs=rngs)
    real = batch["labels"] != -100
    scores = jnp.take_along_axis(
        jax.nn.log_softmax(logits), jnp.where(real, batch["labels"], 0)[..., None], axis=-1
    )
    return -(scores[..., 0] * real).sum(), logits


def loss_and_gradients(model, batch, key=None):
    """Not in jit: the variants share the shapes of their operations, so that few are compiled."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    (loss, logits), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, graphdef, rest, batch, key)
    return float(loss), logits, conversion.to_numpy(gradients)


def test_scores_and_gradients_equal_pytorchs(made, batch, variant):
    folder = made / variant
    loss, logits, gradients = loss_and_gradients(load(folder, gradient_checkpointing=True), batch)

    real = batch["decoder_attention_mask"] != 0
    expected = np.load(folder / "logits.npz")["logits"][real]
    assert np.abs(np.asarray(logits)[real] - expected).max() <= 1e-5 * np.abs(expected).max()

    expected = dict(np.load(folder / "gradients.npz"))
    assert loss == pytest.approx(expected.pop("loss"), rel=1e-6)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in gradients.items():
        # PyTorch has no gradient for what is not used (the shared table where nothing is tied to it).
        wanted = expected.pop(name, np.zeros_like(gradient))
        np.testing.assert_allclose(
            gradient, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max() + 1e-7 * largest
        )
    assert not expected, "PyTorch trains parameters that this model has not"


def test_initial_weights_have_transformers_distributions(made, variant):
    config = AutoConfig.from_pretrained(made / variant / "initial")
    if variant == "t5-v1.1-untied":  # the reference parts the tables by hand after initialisation
        pytest.skip("a configuration of T5 always ties")
    drawn = conversion.to_numpy(nnx.state(conversion.load(None, config, seed=1)))
    expected = tensor_files.read_model(made / variant / "initial")
    assert drawn.keys() == expected.keys()
    for name, value in drawn.items():
        wanted = expected[name]
        assert value.shape == wanted.shape, name
        assert value.std() == pytest.approx(wanted.std(), rel=5 / np.sqrt(value.size), abs=1e-9), name
        assert value.mean() == pytest.approx(
            wanted.mean(), abs=6 * wanted.std() / np.sqrt(value.size) + 1e-9
        ), name
    if "t5" not in variant:
        assert not drawn["model.shared.weight"][config.pad_token_id].any()


def test_same_seed_same_weights_other_seed_others(made):
    config = AutoConfig.from_pretrained(made / "bart")
    first, again, other = (nnx.state(conversion.load(None, config, seed=seed)) for seed in (3, 3, 4))
    table = "model.shared.weight"
    assert np.array_equal(conversion.to_numpy(first)[table], conversion.to_numpy(again)[table])
    assert not np.array_equal(conversion.to_numpy(first)[table], conversion.to_numpy(other)[table])


@pytest.mark.parametrize("variant", ["t5", "t5-v1.1", "bart", "mbart", "marian", "pegasus", "m2m_100"])
def test_dropout_stands_where_pytorch_has_it(made, batch, variant, monkeypatch):
    applied, keeps = [], random.keeps

    def record(key, draw, rate, shape):
        applied.append([pytest.approx(rate), list(shape)])
        return keeps(key, draw, rate, shape)

    monkeypatch.setattr(random, "keeps", record)
    model = load(made / variant)
    jax.eval_shape(
        lambda key: loss_of(nnx.state(model), nnx.graphdef(model), {}, batch, key), jax.random.key(0)
    )
    assert applied == json.loads((made / variant / "dropouts.json").read_text())


def test_dropout_is_drawn_from_the_key(made, batch):
    model = load(made / "bart")
    first, again, other = (
        model.encode(batch["input_ids"], batch["attention_mask"], nnx.Rngs(dropout=key)) for key in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


class Noisy(nnx.Module):
    """A layer whose gradient depends on what dropout draws."""

    def __init__(self):
        self.linear, self.dropout = nnx.Linear(8, 8, rngs=nnx.Rngs(0)), nnx.Dropout(0.5)

    def __call__(self, hidden, rngs):
        return layers.drop(jnp.tanh(self.linear(hidden)), self.dropout, rngs)


def test_checkpointed_layers_draw_the_same_dropout():
    graphdef, params = nnx.split(Noisy())

    def loss(params, checkpoint):
        layer, rngs, hidden = nnx.merge(graphdef, params), nnx.Rngs(dropout=0), jnp.ones((2, 8))
        for _ in range(3):
            hidden = layers.run_layer(layer, hidden, rngs=rngs, checkpoint=checkpoint)
        return (hidden**2).sum()

    kept, anew = (jax.grad(loss)(params, checkpoint) for checkpoint in (False, True))
    assert all(np.abs(value).max() > 0 for value in jax.tree.leaves(kept))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), kept, anew)


@pytest.mark.parametrize("variant", ["t5", "bart"])
def test_gradient_checkpointing_keeps_less(made, batch, variant, capsys):
    def residuals(gradient_checkpointing):
        model = load(made / variant, gradient_checkpointing=gradient_checkpointing)
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        print_saved_residuals(
            lambda params: loss_of(params, graphdef, rest, batch, jax.random.key(0))[0], params
        )
        return len(capsys.readouterr().out.splitlines()) - len(jax.tree.leaves(params))

    assert 0 < residuals(True) < residuals(False) / 4


def test_layer_dropout_skips_layers(made, batch):
    config = AutoConfig.from_pretrained(made / "bart")
    config.encoder_layerdrop = 1.0
    config.dropout = config.attention_dropout = config.activation_dropout = 0.0
    model = conversion.load(made / "bart", config)
    skipped = model.encode(batch["input_ids"], batch["attention_mask"], nnx.Rngs(dropout=0))
    model.model.encoder.layers = nnx.List([])
    assert np.array_equal(skipped, model.encode(batch["input_ids"], batch["attention_mask"]))


def test_bfloat16_is_for_products_only(made, batch):
    model = load(made / "t5", dtype=jnp.bfloat16)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(model))} == {"float32"}
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    _, logits = loss_of(params, graphdef, rest, batch, None)
    expected = np.load(made / "t5/logits.npz")["logits"]
    real = batch["decoder_attention_mask"] != 0
    off = np.abs(np.asarray(logits) - expected)[real].max() / np.abs(expected[real]).max()
    assert logits.dtype == jnp.float32
    assert 1e-5 < off < 0.03


def test_text_longer_than_barts_positions_is_refused(made):
    model = load(made / "bart")
    tokens = np.ones((1, 65), int)
    with pytest.raises(InputError, match=r"65 tokens.*64 positions"):
        jax.eval_shape(model.encode, tokens, tokens)


def test_unknown_activation_is_refused(made):
    config = AutoConfig.from_pretrained(made / "bart")
    config.activation_function = "laplace"
    with pytest.raises(InputError, match=r"laplace.*gelu_new"):
        conversion.load(made / "bart", config)
