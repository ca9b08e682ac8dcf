"""Checkpoints between flax.nnx and PyTorch: every tensor in its place, both ways, or an error that names
it."""

import json
import shutil

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors.numpy import save_file
from transformers import AutoConfig, GenerationConfig

from triptych.errors import InputError
from triptych.flax import conversion
from triptych.models import tensor_files


@pytest.fixture(scope="module")
def saved(made, tmp_path_factory, ask_pytorch):
    """For each variant, a folder with what came of loading and saving it, and what PyTorch finds there."""
    root, jobs = tmp_path_factory.mktemp("saved"), []
    for variant in (folder.name for folder in made.iterdir() if (folder / "logits.npz").exists()):
        folder = root / variant
        config = AutoConfig.from_pretrained(made / variant)
        conversion.save(
            conversion.load(made / variant, config), config, folder, GenerationConfig(num_beams=3)
        )
        jobs.append({"command": "check", "folder": folder, "outputs": folder / "check.json"})
        about = {"folder": folder, "inputs": made / "batch.npz", "outputs": folder / "logits.npz"}
        jobs.append({"command": "logits", **about})
    ask_pytorch(root, jobs)
    return root


def load(folder):
    return conversion.load(folder, AutoConfig.from_pretrained(folder))


def test_pytorch_opens_what_was_saved_and_scores_the_same(made, saved, variant):
    folder = saved / variant
    found = json.loads((folder / "check.json").read_text())
    assert found["missing_keys"] == found["unexpected_keys"] == found["mismatched_keys"] == []
    assert ("lm_head.weight" in found["tied"]) == (not variant.endswith("untied"))
    assert np.array_equal(
        np.load(folder / "logits.npz")["logits"], np.load(made / variant / "logits.npz")["logits"]
    )
    assert GenerationConfig.from_pretrained(folder).num_beams == 3


def test_the_file_holds_the_tensors_that_pytorch_saves(made, saved, variant):
    ours, theirs = (tensor_files.read_model(root / variant) for root in (saved, made))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_files_of_half_precision_become_float32(made, tmp_path):
    for folder in (made / "bf16", made / "fp16"):
        params = conversion.to_numpy(nnx.state(load(folder)))
        stored = tensor_files.read_model(folder)
        assert {str(value.dtype) for value in params.values()} == {"float32"}
        assert {value.dtype.itemsize for value in stored.values()} == {2}
        assert all(np.array_equal(params[name], stored[name].astype(np.float32)) for name in stored)
    config = AutoConfig.from_pretrained(made / "bf16")
    conversion.save(load(made / "bf16"), config, tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).dtype == "float32", "PyTorch would round what was trained"


def test_several_files_with_an_index_are_one_checkpoint(made, tmp_path):
    assert len(list((made / "shards").glob("*.safetensors"))) > 3
    whole, shards = (conversion.to_numpy(nnx.state(load(made / name))) for name in ("bart", "shards"))
    assert all(np.array_equal(whole[name], shards[name]) for name in whole)
    folder = shutil.copytree(made / "shards", tmp_path / "incomplete")
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(InputError, match=lost.name):
        load(folder)


def rewritten(folder, copy, change):
    """`copy`, a copy of the folder with its tensors changed in place by `change`."""
    shutil.copytree(folder, copy)
    tensors = tensor_files.read_model(copy)
    change(tensors)
    save_file(tensors, copy / "model.safetensors")
    return copy


def test_what_is_missing_superfluous_or_misshapen_is_named(made, tmp_path):
    def spoil(tensors):
        del tensors["encoder.block.1.layer.1.DenseReluDense.wi.weight"]
        tensors["classification_head.weight"] = np.zeros((3, 3), np.float32)
        tensors["encoder.final_layer_norm.weight"] = np.zeros(7, np.float32)

    with pytest.raises(InputError) as refusal:
        load(rewritten(made / "t5", tmp_path / "spoiled", spoil))
    assert len(refusal.value.problems) == 3
    for name in (
        "encoder.block.1.layer.1.DenseReluDense.wi",
        "classification_head",
        "encoder.final_layer_norm",
    ):
        assert any(f"{name}.weight" in problem for problem in refusal.value.problems)


def test_untied_table_of_outputs_that_the_file_has_not_is_missed(made, tmp_path):
    folder = rewritten(
        made / "bart-untied", tmp_path / "headless", lambda tensors: tensors.pop("lm_head.weight")
    )
    with pytest.raises(InputError, match=r"lm_head\.weight is missing"):
        load(folder)


def test_files_of_older_releases_load_alike(made, tmp_path):
    """Without the head's prefix and buffer, with tied tables written out or under another of their names
    only, and with parameters that nothing uses."""

    def bare(tensors):
        del tensors["final_logits_bias"]
        tensors["model.encoder.version"] = np.zeros(1, np.float32)
        tensors["model.encoder.embed_tokens.weight"] = tensors["model.shared.weight"]
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    def other_name(tensors):
        tensors["decoder.embed_tokens.weight"] = tensors["lm_head.weight"] = tensors.pop("shared.weight")
        tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = np.zeros(
            (8, 4), np.float32
        )

    for variant, change in (("bart", bare), ("t5", other_name)):
        plain = conversion.to_numpy(nnx.state(load(made / variant)))
        older = conversion.to_numpy(nnx.state(load(rewritten(made / variant, tmp_path / variant, change))))
        assert plain.keys() == older.keys()
        if variant == "bart":
            plain["final_logits_bias"] = np.zeros_like(plain["final_logits_bias"])
        assert all(np.array_equal(plain[name], older[name]) for name in older)


def test_optimizer_state_travels_under_the_parameters_names(made, tmp_path):
    _, params, _ = nnx.split(load(made / "bart"), nnx.Param, ...)
    like = jax.eval_shape(optax.adam(1e-3).init, params)[0].mu
    moment = {name: 3 * value for name, value in conversion.to_numpy(params).items()}
    assert moment.keys() == tensor_files.read_model(made / "bart").keys() - {"final_logits_bias"}
    tree = conversion.from_numpy(moment, like)
    assert jax.tree.structure(tree) == jax.tree.structure(like)
    jax.tree.map(
        lambda value, parameter: np.testing.assert_array_equal(value, 3 * np.asarray(parameter)), tree, params
    )
    back = conversion.to_numpy(tree)
    assert back.keys() == moment.keys()
    assert all(np.array_equal(back[name], moment[name]) and back[name].flags.c_contiguous for name in moment)


def test_computed_positions_go_on_as_pytorchs_do(made, long_batch, tmp_path, ask_pytorch):
    """M2M100's without being asked to."""
    np.savez(tmp_path / "long.npz", **long_batch)
    jobs, ours = [], {}
    for name in ("marian", "pegasus", "m2m_100"):
        folder, config = tmp_path / name, AutoConfig.from_pretrained(made / name)
        model = conversion.load(made / name, config, positions=None if name == "m2m_100" else 100)
        ours[name] = np.asarray(model(**long_batch))
        conversion.save(model, config, folder)
        about = {"folder": folder, "inputs": tmp_path / "long.npz", "outputs": folder / "logits.npz"}
        jobs.append({"command": "logits", **about})
    ask_pytorch(tmp_path, jobs)
    real = long_batch["decoder_attention_mask"] != 0
    for name, logits in ours.items():
        expected = np.load(tmp_path / name / "logits.npz")["logits"][real]
        assert np.abs(logits[real] - expected).max() <= 1e-5 * np.abs(expected).max(), name


def test_unsupported_architecture_lists_those_that_work(made, tmp_path):
    config = AutoConfig.for_model("led")
    with pytest.raises(InputError, match=r"led.*t5, mt5, bart, mbart, marian, pegasus, m2m_100"):
        conversion.load(made / "bart", config)


def test_marian_with_a_vocabulary_for_each_side_is_refused(made):
    config = AutoConfig.from_pretrained(made / "marian")
    config.share_encoder_decoder_embeddings = False
    with pytest.raises(InputError, match="share_encoder_decoder_embeddings=false"):
        conversion.load(made / "marian", config)
