"""GPT-2, Llama and its kin in Keras against PyTorch: scores, gradients, files, initial weights, dropout."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from pytorch_answers import CAUSAL, FAR
from safetensors.numpy import save_file
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.models import initial_weights, tensor_files
from triptych.tensorflow import conversion


def loss_of(model, batch, seed=None):
    """The cross entropy summed over labels that are not -100, and the logits; a seed means dropout."""
    logits = model(batch, training=seed is not None, seed=seed)
    real = batch["labels"] != -100
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(real, batch["labels"], 0), logits)
    return tf.reduce_sum(tf.where(real, losses, 0.0)), logits


def test_scores_and_gradients_equal_pytorchs(made_decoders, packed, decoder, load):
    folder = made_decoders / decoder
    model = load(folder, gradient_checkpointing=True)
    with tf.GradientTape() as tape:
        loss, logits = loss_of(model, packed)
    gradients = [tf.convert_to_tensor(each) for each in tape.gradient(loss, model.trainable_variables)]

    real = np.cumsum(packed["labels"][:, ::-1] != -100, axis=1)[:, ::-1] > 0
    expected = np.load(folder / "logits.npz")["logits"][real]
    assert np.abs(logits.numpy()[real] - expected).max() <= 1e-5 * np.abs(expected).max()

    expected = dict(np.load(folder / "gradients.npz"))
    assert float(loss) == pytest.approx(float(expected.pop("loss")), rel=1e-6)
    found = conversion.to_numpy(model, gradients)
    assert found.keys() == expected.keys(), "PyTorch trains other parameters"
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, wanted in expected.items():
        margin = 2e-5 * np.abs(wanted).max() + 1e-7 * largest
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=margin, err_msg=name)


@pytest.mark.parametrize("name", ["llama-3", "llama-yarn", "llama-linear", "gemma3"])
def test_scores_far_from_the_beginning_equal_pytorchs(made_decoders, packed, load, name):
    model = load(made_decoders / name)
    far = packed["input_ids"][:1], packed["position_ids"][:1] + FAR
    expected = np.load(made_decoders / name / "far_logits.npz")["logits"]
    assert (
        np.abs(np.asarray(model(dict(zip(("input_ids", "position_ids"), far, strict=True)))) - expected).max()
        <= 1e-5 * np.abs(expected).max()
    )


def test_texts_of_a_row_are_as_if_alone(made_decoders, packed, decoder, load):
    """Alone each is padded, and so only compared where it is."""
    model = load(made_decoders / decoder)
    together, alone = model(packed), np.zeros((3, 24), np.int32)
    texts = (1, 0, 9), (1, 9, 7), (2, 1, 14)
    for number, (row, start, length) in enumerate(texts):
        alone[number, :length] = packed["input_ids"][row, start : start + length]
    scores = model({"input_ids": alone, "position_ids": np.tile(np.arange(24, dtype=np.int32), (3, 1))})
    for number, (row, start, length) in enumerate(texts):
        assert np.abs(together[row, start : start + length] - scores[number, :length]).max() < 1e-5


@pytest.fixture(scope="module")
def saved(made_decoders, load, tmp_path_factory, ask_pytorch):
    """For each of CAUSAL, a folder with what came of loading and saving it, and what PyTorch finds there."""
    root, jobs = tmp_path_factory.mktemp("saved"), []
    for variant in CAUSAL:
        folder = root / variant
        conversion.save(load(made_decoders / variant), folder)
        jobs.append({"command": "check", "folder": folder, "outputs": folder / "check.json"})
        about = {"folder": folder, "inputs": made_decoders / "packed.npz", "outputs": folder / "logits.npz"}
        jobs.append({"command": "logits", **about})
    ask_pytorch(root, jobs)
    return root


def test_pytorch_opens_what_was_saved_and_scores_the_same(made_decoders, saved, decoder):
    folder = saved / decoder
    found = json.loads((folder / "check.json").read_text())
    assert found["missing_keys"] == found["unexpected_keys"] == found["mismatched_keys"] == []
    config = AutoConfig.from_pretrained(made_decoders / decoder)
    assert ("lm_head.weight" in found["tied"]) == config.tie_word_embeddings
    assert AutoConfig.from_pretrained(folder).architectures == config.architectures
    ours, theirs = (np.load(root / decoder / "logits.npz")["logits"] for root in (saved, made_decoders))
    assert np.array_equal(ours, theirs)
    ours, theirs = (tensor_files.read_model(root / decoder) for root in (saved, made_decoders))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def values_of(model):
    """A model's variables as tensors of the file."""
    places = conversion.places(model)
    return conversion.scatter(places, [place.variable.numpy() for place in places])


@pytest.mark.parametrize("name", ["gpt2", "llama-3"])
def test_files_without_a_head_and_of_older_releases_load_alike(made_decoders, load, tmp_path, name):
    folder = shutil.copytree(made_decoders / f"{name}-bare", tmp_path / "old")
    tensors = tensor_files.read_model(folder)
    assert "wte.weight" in tensors or "embed_tokens.weight" in tensors
    old = {
        "h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32),
        "h.1.attn.masked_bias": np.zeros(1, np.float32),
    }
    old |= {"layers.1.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    save_file(tensors | old, folder / tensor_files.MODEL)
    found = values_of(load(folder, head="ForCausalLM"))
    assert found.keys() == tensor_files.read_model(made_decoders / name).keys()
    for bare, value in tensors.items():
        assert np.array_equal(found[f"{'transformer' if name == 'gpt2' else 'model'}.{bare}"], value), bare


def test_head_of_its_own_that_the_file_has_not_is_missed(made_decoders, load, tmp_path):
    folder = shutil.copytree(made_decoders / "llama", tmp_path / "headless")
    tensors = tensor_files.read_model(folder)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / tensor_files.MODEL)
    with pytest.raises(InputError, match=r"lm_head\.weight is missing"):
        load(folder)


def test_initial_weights_are_those_of_all_forms(made_decoders, decoder):
    config = AutoConfig.from_pretrained(made_decoders / decoder / "initial")
    drawn = values_of(conversion.load(None, config, seed=1))
    expected = tensor_files.read_model(made_decoders / decoder / "initial")
    assert drawn.keys() == expected.keys()
    for name, value in drawn.items():
        assert np.array_equal(value, initial_weights.initial(name, expected[name].shape, config, 1)), name


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_dropout_stands_where_pytorch_has_it(made_decoders, packed, load, name, monkeypatch):
    applied, drop = [], tf.nn.experimental.stateless_dropout

    def record(values, rate, **others):
        applied.append([rate, list(values.shape)])
        return drop(values, rate=rate, **others)

    monkeypatch.setattr(tf.nn.experimental, "stateless_dropout", record)
    loss_of(load(made_decoders / name), packed, seed=1)
    assert applied == json.loads((made_decoders / name / "dropouts.json").read_text())


@pytest.mark.parametrize(("dtype", "margin"), [("mixed_bfloat16", 0.03), ("mixed_float16", 0.005)])
def test_half_precision_is_for_products_only(made_decoders, packed, load, dtype, margin):
    folder = made_decoders / "qwen3"
    model = load(folder, dtype=dtype)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    logits = model(packed)
    real, expected = packed["labels"] != -100, np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == tf.float32
    assert 1e-5 < np.abs(logits.numpy() - expected)[real].max() / np.abs(expected[real]).max() < margin


def test_one_trace_serves_all_shapes(made_decoders, packed, load):
    model = load(made_decoders / "gemma3")
    names = ("input_ids", "position_ids")

    @tf.function(input_signature=[dict.fromkeys(names, tf.TensorSpec((None, None), tf.int32))])
    def scores(inputs):
        return model(inputs)

    whole = scores({name: packed[name] for name in names})
    part = scores({name: packed[name][:2, :9] for name in names})
    assert np.abs(whole[:2, :9] - part).max() < 1e-5
    assert scores.experimental_get_tracing_count() == 1
