"""Classifiers of pictures in flax.nnx against PyTorch: scores, gradients, training, dropout, checkpoints,
heads, pictures of other sizes."""

import json
import logging
import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from pytorch_answers import LARGER, PICTURES, STEPS
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.flax import conversion, models, random
from triptych.models import initial_weights, tensor_files, vision

ONE_OF_EACH = ("vit", "dinov2-gated", "convnextv2", "resnet-bottleneck", "swin")


def load(folder, **options):
    return conversion.load(folder, AutoConfig.from_pretrained(folder), **options)


def inputs_of(folder):
    return dict(np.load(folder / "inputs.npz"))


def tensors_of(model):
    return conversion.to_numpy(nnx.state(model))


def loss_of(params, graphdef, buffers, inputs, key):
    """The cross entropy summed over rows, and the logits."""
    rngs = None if key is None else nnx.Rngs(dropout=key)
    logits = nnx.merge(graphdef, params, buffers)(inputs["pixel_values"], rngs=rngs)
    of_labels = jnp.take_along_axis(jax.nn.log_softmax(logits), inputs["labels"][:, None], axis=1)
    return -of_labels.sum(), logits


def test_scores_gradients_and_training_equal_pytorchs(made_pictures, picture):
    folder = made_pictures / picture
    inputs = inputs_of(folder)
    graphdef, params, buffers = nnx.split(load(folder, gradient_checkpointing=True), nnx.Param, ...)
    adam = optax.scale_by_adam()

    @jax.jit
    def step(params, state, rate):
        difference = jax.value_and_grad(loss_of, has_aux=True)
        result, gradients = difference(params, graphdef, buffers, inputs, None)
        updates, state = adam.update(gradients, state)
        params = jax.tree.map(lambda value, update: value - rate * update, params, updates)
        return result, gradients, params, state

    (loss, logits), gradients, params, state = step(params, adam.init(params), STEPS[0])
    expected = np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    expected = dict(np.load(folder / "gradients.npz"))
    assert float(loss) == pytest.approx(float(expected.pop("loss")), rel=1e-6)
    found = conversion.to_numpy(gradients)
    assert found.keys() == expected.keys(), "PyTorch trains other parameters"
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, wanted in expected.items():
        margin = 2e-5 * np.abs(wanted).max() + 1e-6 * largest
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=margin, err_msg=name)

    losses = [float(loss)]
    for rate in (*STEPS[1:], 0.0):
        (loss, _), _, params, state = step(params, state, rate)
        losses.append(float(loss))
    np.testing.assert_allclose(losses, json.loads((folder / "steps.json").read_text()), rtol=1e-4)


def test_dropout_stands_where_pytorch_has_it(made_pictures, picture, monkeypatch):
    folder = made_pictures / picture
    applied, keeps = [], random.keeps

    def record(key, draw, rate, shape):
        applied.append((pytest.approx(rate), shape[0], math.prod(shape)))
        return keeps(key, draw, rate, shape)

    monkeypatch.setattr(random, "keeps", record)
    graphdef, params, buffers = nnx.split(load(folder), nnx.Param, ...)
    inputs = inputs_of(folder)
    jax.eval_shape(lambda key: loss_of(params, graphdef, buffers, inputs, key), jax.random.key(0))
    # Swin's patches stand in a line there, and in a square here.
    wanted = json.loads((folder / "dropouts.json").read_text())
    assert applied == [(rate, shape[0], math.prod(shape)) for rate, shape in wanted]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bfloat16_is_for_products_only(made_pictures, name):
    folder = made_pictures / name
    graphdef, params, buffers = nnx.split(load(folder, dtype=jnp.bfloat16), nnx.Param, ...)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"float32"}
    inputs = inputs_of(folder)
    logits = jax.jit(lambda params: loss_of(params, graphdef, buffers, inputs, None)[1])(params)
    expected = np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == jnp.float32
    assert 1e-5 < np.abs(logits - expected).max() / np.abs(expected).max() < 0.05


def test_pytorch_opens_what_was_saved_and_scores_the_same(made_pictures, tmp_path, ask_pytorch):
    jobs = []
    for name in PICTURES:
        source, folder = made_pictures / name, tmp_path / name
        conversion.save(load(source), AutoConfig.from_pretrained(source), folder)
        about = {"folder": folder, "inputs": source / "inputs.npz", "outputs": folder / "logits.npz"}
        jobs += [{"command": "check", "folder": folder, "outputs": folder / "check.json"}]
        jobs += [{"command": "logits", **about}]
    ask_pytorch(tmp_path, jobs)
    for name in PICTURES:
        source, folder = made_pictures / name, tmp_path / name
        found = json.loads((folder / "check.json").read_text())
        assert found["missing_keys"] == found["unexpected_keys"] == found["mismatched_keys"] == []
        ours, theirs = tensor_files.read_model(folder), tensor_files.read_model(source)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert np.array_equal(ours[key], value), key
            assert ours[key].dtype == value.dtype, key
        ours, theirs = (np.load(place / "logits.npz")["logits"] for place in (folder, source))
        assert np.array_equal(ours, theirs)
        architectures = [AutoConfig.from_pretrained(place).architectures for place in (folder, source)]
        assert architectures[0] == architectures[1]


@pytest.mark.parametrize("name", LARGER)
def test_positions_fitted_to_another_size_are_transformers(made_pictures, name, tmp_path):
    folder, (_, height, _) = made_pictures / name, LARGER[name]
    config = AutoConfig.from_pretrained(folder)
    model = conversion.load(folder, config, image_size=height)
    assert config.image_size == height
    pixels, expected = (np.load(folder / file) for file in ("larger.npz", "larger_logits.npz"))
    margin = 1e-5 * np.abs(expected["logits"]).max()
    np.testing.assert_allclose(model(pixels["pixel_values"]), expected["logits"], rtol=0, atol=margin)
    conversion.save(model, config, tmp_path)
    np.testing.assert_array_equal(load(tmp_path)(pixels["pixel_values"]), model(pixels["pixel_values"]))
    with pytest.raises(InputError, match=r"pictures of . x 12 x \d+ .* --image_size"):
        load(folder)(pixels["pixel_values"])


@pytest.mark.parametrize(
    ("name", "new", "unused"),
    [("vit-bare", 2, "vit.pooler.dense.weight"), ("vit-masked", 2, "vit.embeddings.mask_token")],
)
def test_backbone_alone_gets_a_new_head_by_the_seed(made_pictures, name, new, unused, caplog):
    caplog.set_level(logging.INFO)
    folder = made_pictures / name
    config, stored = AutoConfig.from_pretrained(folder), tensor_files.read_model(folder)
    drawn = 0
    for key, value in tensors_of(conversion.load(folder, config, vision.HEAD, seed=3)).items():
        same = key.partition(".")[2] if name.endswith("-bare") else key
        if same in stored:
            assert np.array_equal(value, stored[same]), key
        else:
            assert np.array_equal(value, initial_weights.initial(key, value.shape, config, 3)), key
            assert key in caplog.text
            drawn += 1
    assert drawn == new
    assert re.search(rf"Not used of the checkpoint: .*\b{re.escape(unused)}\b", caplog.text)


def test_new_model_is_drawn_by_the_seed(picture, made_pictures):
    config = AutoConfig.from_pretrained(made_pictures / picture)
    found = tensors_of(conversion.load(None, config, vision.HEAD, seed=3))
    assert found.keys() == tensor_files.read_model(made_pictures / picture).keys()
    for name, value in found.items():
        assert np.array_equal(value, initial_weights.initial(name, value.shape, config, 3)), name


def test_run_states_its_labels_and_size_and_what_is_trained(made_pictures, caplog):
    folder = made_pictures / "dinov2"
    model_args = SimpleNamespace(model_name_or_path=folder)
    args = SimpleNamespace(seed=0, bf16=False, gradient_checkpointing=False)

    def run(labels=3, **options):
        config = AutoConfig.from_pretrained(folder, num_labels=labels)
        return models.load(model_args, SimpleNamespace(**options), args, config, vision.HEAD)

    def trained(model):
        return conversion.to_numpy(nnx.state(model, nnx.Param)).keys()

    with pytest.raises(InputError, match=r"\[3, 64\].*\[7, 64\].*--ignore_mismatched_sizes"):
        run(labels=7)
    model = run(labels=7, ignore_mismatched_sizes=True)
    assert model.classifier.kernel.shape == (64, 7)
    assert "classifier.weight has shape [3, 64]" in caplog.text
    assert tensors_of(model).keys() - trained(model) == {"dinov2.embeddings.mask_token"}
    assert trained(run(freeze_backbone=True)) == {"classifier.weight", "classifier.bias"}


def test_refusal_of_another_architecture_lists_those_that_work():
    with pytest.raises(InputError, match=r"'bert' is not supported.*: vit, deit, dinov2"):
        conversion.load(None, AutoConfig.for_model("bert"), vision.HEAD)
