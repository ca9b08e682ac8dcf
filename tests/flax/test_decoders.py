"""GPT-2, Llama and its kin in flax.nnx against PyTorch: scores, gradients, files, initial weights, dropout."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.flax import conversion, random
from triptych.models import tensor_files


def load(folder, **arguments):
    return conversion.load(folder, AutoConfig.from_pretrained(folder), **arguments)


def loss_of(params, graphdef, rest, batch, key):
    """The cross entropy summed over labels that are not -100, and the logits."""
    rngs = None if key is None else nnx.Rngs(dropout=key)
    logits = nnx.merge(graphdef, params, rest)(batch["input_ids"], batch["position_ids"], rngs=rngs)
    real = batch["labels"] != -100
    labels = jnp.where(real, batch["labels"], 0)[..., None]
    scores = jnp.take_along_axis(jax.nn.log_softmax(logits), labels, axis=-1)
    return -(scores[..., 0] * real).sum(), logits


def test_scores_and_gradients_equal_pytorchs(made_decoders, packed, decoder):
    folder = made_decoders / decoder
    graphdef, params, rest = nnx.split(load(folder, gradient_checkpointing=True), nnx.Param, ...)
    answers = jax.value_and_grad(loss_of, has_aux=True)(params, graphdef, rest, packed, None)
    (loss, logits), gradients = answers

    real = np.cumsum(packed["labels"][:, ::-1] != -100, axis=1)[:, ::-1] > 0
    expected = np.load(folder / "logits.npz")["logits"][real]
    assert np.abs(np.asarray(logits)[real] - expected).max() <= 1e-5 * np.abs(expected).max()

    expected = dict(np.load(folder / "gradients.npz"))
    assert float(loss) == pytest.approx(float(expected.pop("loss")), rel=1e-6)
    found = conversion.to_numpy(gradients)
    assert found.keys() == expected.keys(), "PyTorch trains other parameters"
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, wanted in expected.items():
        margin = 2e-5 * np.abs(wanted).max() + 1e-7 * largest
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=margin, err_msg=name)


def test_texts_of_a_row_are_as_if_alone(made_decoders, packed, decoder):
    model = load(made_decoders / decoder)
    together = model(packed["input_ids"], packed["position_ids"])
    for row, start, length in ((1, 0, 9), (1, 9, 7), (1, 16, 4), (2, 1, 14)):
        tokens = packed["input_ids"][row : row + 1, start : start + length]
        alone = model(tokens, np.arange(length)[None])
        assert np.abs(together[row, start : start + length] - alone[0]).max() < 1e-5, (row, start)
