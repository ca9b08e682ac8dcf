"""GPT-2, Llama and its kin in flax.nnx against PyTorch: scores, gradients, files, initial weights,
dropout."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pytorch_answers import CAUSAL, FAR
from safetensors.numpy import save_file
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.flax import conversion, random
from triptych.models import initial_weights, tensor_files


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


@pytest.mark.parametrize("name", ["llama-3", "llama-yarn", "llama-linear", "gemma3"])
def test_scores_far_from_the_beginning_equal_pytorchs(made_decoders, packed, name):
    model = load(made_decoders / name)
    far = packed["input_ids"][:1], packed["position_ids"][:1] + FAR
    expected = np.load(made_decoders / name / "far_logits.npz")["logits"]
    assert np.abs(np.asarray(model(*far)) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_texts_of_a_row_are_as_if_alone(made_decoders, packed, decoder):
    """Alone each is padded, and so only compared where it is."""
    model = load(made_decoders / decoder)
    together, alone = model(packed["input_ids"], packed["position_ids"]), np.zeros((3, 24), np.int32)
    texts = (1, 0, 9), (1, 9, 7), (2, 1, 14)
    for number, (row, start, length) in enumerate(texts):
        alone[number, :length] = packed["input_ids"][row, start : start + length]
    scores = model(alone, np.broadcast_to(np.arange(24), (3, 24)))
    for number, (row, start, length) in enumerate(texts):
        assert np.abs(together[row, start : start + length] - scores[number, :length]).max() < 1e-5


@pytest.fixture(scope="module")
def saved(made_decoders, tmp_path_factory, ask_pytorch):
    """For each of CAUSAL, a folder with what came of loading and saving it, and what PyTorch finds there."""
    root, jobs = tmp_path_factory.mktemp("saved"), []
    for variant in CAUSAL:
        folder = root / variant
        config = AutoConfig.from_pretrained(made_decoders / variant)
        conversion.save(conversion.load(made_decoders / variant, config), config, folder)
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


@pytest.mark.parametrize("name", ["gpt2", "llama-3"])
def test_files_without_a_head_and_of_older_releases_load_alike(made_decoders, tmp_path, name):
    folder = shutil.copytree(made_decoders / f"{name}-bare", tmp_path / "old")
    tensors = tensor_files.read_model(folder)
    assert "wte.weight" in tensors or "embed_tokens.weight" in tensors
    old = {
        "h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32),
        "h.1.attn.masked_bias": np.zeros(1, np.float32),
    }
    old |= {"layers.1.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    save_file(tensors | old, folder / tensor_files.MODEL)
    found = conversion.to_numpy(nnx.state(load(folder, head="ForCausalLM")))
    assert found.keys() == tensor_files.read_model(made_decoders / name).keys()
    for bare, value in tensors.items():
        assert np.array_equal(found[f"{'transformer' if name == 'gpt2' else 'model'}.{bare}"], value), bare


def test_head_of_its_own_that_the_file_has_not_is_missed(made_decoders, tmp_path):
    folder = shutil.copytree(made_decoders / "llama", tmp_path / "headless")
    tensors = tensor_files.read_model(folder)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / tensor_files.MODEL)
    with pytest.raises(InputError, match=r"lm_head\.weight is missing"):
        load(folder)


def test_initial_weights_are_those_of_all_forms(made_decoders, decoder):
    config = AutoConfig.from_pretrained(made_decoders / decoder / "initial")
    drawn = conversion.to_numpy(nnx.state(conversion.load(None, config, seed=1)))
    expected = tensor_files.read_model(made_decoders / decoder / "initial")
    assert drawn.keys() == expected.keys()
    for name, value in drawn.items():
        assert np.array_equal(value, initial_weights.initial(name, expected[name].shape, config, 1)), name


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_dropout_stands_where_pytorch_has_it(made_decoders, packed, name, monkeypatch):
    applied, keeps = [], random.keeps

    def record(key, draw, rate, shape):
        applied.append([pytest.approx(rate), list(shape)])
        return keeps(key, draw, rate, shape)

    monkeypatch.setattr(random, "keeps", record)
    graphdef, params = nnx.split(load(made_decoders / name))
    jax.eval_shape(lambda key: loss_of(params, graphdef, {}, packed, key), jax.random.key(0))
    assert applied == json.loads((made_decoders / name / "dropouts.json").read_text())


def test_bfloat16_is_for_products_only(made_decoders, packed):
    folder = made_decoders / "qwen3"
    model = load(folder, dtype=jnp.bfloat16)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(model))} == {"float32"}
    logits = model(packed["input_ids"], packed["position_ids"])
    real, expected = packed["labels"] != -100, np.load(folder / "logits.npz")["logits"]
    off = np.abs(np.asarray(logits) - expected)[real].max() / np.abs(expected[real]).max()
    assert logits.dtype == jnp.float32
    assert 1e-5 < off < 0.03
