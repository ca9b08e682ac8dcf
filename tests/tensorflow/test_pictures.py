"""Classifiers of pictures in Keras against PyTorch: scores, gradients, training, dropout, checkpoints,
heads, pictures of other sizes."""

import json
import logging
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from pytorch_answers import LARGER, PICTURES, STEPS
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.models import initial_weights, tensor_files, vision
from triptych.tensorflow import conversion, devices, models, optimization

ONE_OF_EACH = ("vit", "dinov2-gated", "convnextv2", "resnet-bottleneck", "swin")


def load(folder, **options):
    return conversion.load(folder, AutoConfig.from_pretrained(folder), **options)


def inputs_of(folder):
    return dict(np.load(folder / "inputs.npz"))


def scores(model, pixels):
    return model({"pixel_values": pixels}).numpy()


def tensors_of(model):
    places = conversion.places(model)
    return conversion.scatter(places, [place.variable.numpy() for place in places])


def loss_of(model, inputs, seed=None):
    """The cross entropy summed over rows, and the logits; a seed means dropout."""
    logits = model({"pixel_values": inputs["pixel_values"]}, training=seed is not None, seed=seed)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(inputs["labels"], logits)
    return tf.reduce_sum(losses), logits


def loss_and_gradients(model, inputs, seed=None):
    with tf.GradientTape() as tape:
        loss, logits = loss_of(model, inputs, seed)
    gradients = tape.gradient(loss, model.trainable_variables)
    return loss, logits, [tf.convert_to_tensor(gradient) for gradient in gradients]


def test_scores_gradients_and_training_equal_pytorchs(made_pictures, picture):
    folder = made_pictures / picture
    inputs, model = inputs_of(folder), load(folder)
    loss, logits, gradients = loss_and_gradients(model, inputs)
    expected = np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    expected = dict(np.load(folder / "gradients.npz"))
    assert float(loss) == pytest.approx(float(expected.pop("loss")), rel=1e-6)
    found = conversion.to_numpy(model, gradients)
    assert found.keys() == expected.keys(), "PyTorch trains other parameters"
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, wanted in expected.items():
        margin = 2e-5 * np.abs(wanted).max() + 1e-6 * largest
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=margin, err_msg=name)

    losses, details = [float(loss)], {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
    args = SimpleNamespace(optim="adamw", weight_decay=0.0, fp16=False, **details)
    adam = optimization.optimizer(model, args)
    for rate in STEPS:
        adam.learning_rate = rate
        adam.apply(gradients)
        loss, _, gradients = loss_and_gradients(model, inputs)
        losses.append(float(loss))
    np.testing.assert_allclose(losses, json.loads((folder / "steps.json").read_text()), rtol=1e-4)


def test_dropout_stands_where_pytorch_has_it(made_pictures, picture, monkeypatch):
    folder = made_pictures / picture
    applied, drop = [], tf.nn.experimental.stateless_dropout

    def record(values, rate, noise_shape=None, **others):
        shape = [*map(int, values.shape if noise_shape is None else noise_shape)]
        applied.append((pytest.approx(rate), shape[0], math.prod(shape)))
        return drop(values, rate=rate, noise_shape=noise_shape, **others)

    monkeypatch.setattr(tf.nn.experimental, "stateless_dropout", record)
    loss_of(load(folder), inputs_of(folder), seed=1)
    # Swin's patches stand in a line there, and in a square here.
    wanted = json.loads((folder / "dropouts.json").read_text())
    assert applied == [(rate, shape[0], math.prod(shape)) for rate, shape in wanted]


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_gradient_checkpointing_drops_the_same_and_dropout_follows_the_seed(made_pictures, name, monkeypatch):
    folder = made_pictures / name
    inputs = inputs_of(folder)
    anew, recompute = [], tf.recompute_grad
    monkeypatch.setattr(tf, "recompute_grad", lambda layer: anew.append(layer) or recompute(layer))

    def gradients(seed=1, **options):
        model = load(folder, **options)
        found = tf.function(lambda: loss_and_gradients(model, inputs, seed)[2])()
        return np.concatenate([gradient.numpy().ravel() for gradient in found])

    expected = gradients()
    assert not anew
    assert np.abs(gradients(gradient_checkpointing=True) - expected).max() < 1e-5 * np.abs(expected).max()
    assert len(anew) == 2
    assert np.array_equal(gradients(), expected)
    assert not np.array_equal(gradients(seed=2), expected)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_for_products_only(made_pictures, name, dtype):
    folder = made_pictures / name
    model, inputs = load(folder, dtype=dtype), inputs_of(folder)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    logits, expected = loss_of(model, inputs)[1], np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == tf.float32
    assert 1e-5 < np.abs(logits - expected).max() / np.abs(expected).max() < 0.05


def test_weight_decay_spares_what_has_one_dimension_in_pytorch(made_pictures, picture):
    model = load(made_pictures / picture)
    pairs = zip(model.trainable_variables, conversion.decayed(model), strict=True)
    marked = conversion.to_numpy(model, [np.full(variable.shape, decays) for variable, decays in pairs])
    for name, decays in marked.items():
        assert (decays == (decays.ndim > 1)).all(), name


def test_pytorch_opens_what_was_saved_and_scores_the_same(made_pictures, tmp_path, ask_pytorch):
    jobs = []
    for name in PICTURES:
        source, folder = made_pictures / name, tmp_path / name
        conversion.save(load(source), folder)
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
    found = scores(model, pixels["pixel_values"])
    np.testing.assert_allclose(found, expected["logits"], rtol=0, atol=margin)
    conversion.save(model, tmp_path)
    np.testing.assert_array_equal(scores(load(tmp_path), pixels["pixel_values"]), found)
    with pytest.raises(InputError, match=r"pictures of . x 12 x \d+ .* --image_size"):
        scores(load(folder), pixels["pixel_values"])


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
    args = SimpleNamespace(seed=0, bf16=False, fp16=False, gradient_checkpointing=False)
    world = devices.World(tf.distribute.get_strategy())

    def run(labels=3, **options):
        config = AutoConfig.from_pretrained(folder, num_labels=labels)
        return models.load(model_args, SimpleNamespace(**options), args, config, vision.HEAD, world)

    def trained(model):
        return conversion.to_numpy(model, model.trainable_variables).keys()

    with pytest.raises(InputError, match=r"\[3, 64\].*\[7, 64\].*--ignore_mismatched_sizes"):
        run(labels=7)
    model = run(labels=7, ignore_mismatched_sizes=True)
    assert tensors_of(model)["classifier.weight"].shape == (7, 64)
    assert "classifier.weight has shape [3, 64]" in caplog.text
    assert tensors_of(model).keys() - trained(model) == {"dinov2.embeddings.mask_token"}
    assert trained(run(freeze_backbone=True)) == {"classifier.weight", "classifier.bias"}


def test_refusal_of_another_architecture_lists_those_that_work():
    with pytest.raises(InputError, match=r"'bert' is not supported.*: vit, deit, dinov2"):
        conversion.load(None, AutoConfig.for_model("bert"), vision.HEAD)
