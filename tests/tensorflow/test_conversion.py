"""Checkpoints between KerasHub and PyTorch: every tensor in its place, both ways, or an error that names
it."""

import json
import shutil
from types import SimpleNamespace

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras_hub.src.utils.transformers import convert_gpt2
from keras_hub.src.utils.transformers.safetensor_utils import SafetensorLoader
from safetensors.numpy import save_file
from transformers import AutoConfig, GenerationConfig

from triptych.errors import InputError
from triptych.models import tensor_files
from triptych.tensorflow import conversion, devices, models


def values_of(model):
    """A model's variables as tensors of the file."""
    places = conversion.places(model)
    return conversion.scatter(places, [place.variable.numpy() for place in places])


@pytest.fixture(scope="module")
def saved(made, load, tmp_path_factory, ask_pytorch):
    """For each variant, a folder with what came of loading and saving it, and what PyTorch finds there."""
    root, jobs = tmp_path_factory.mktemp("saved"), []
    for variant in (folder.name for folder in made.iterdir() if (folder / "logits.npz").exists()):
        folder = root / variant
        conversion.save(load(made / variant), folder, GenerationConfig(num_beams=3))
        jobs.append({"command": "check", "folder": folder, "outputs": folder / "check.json"})
        about = {"folder": folder, "inputs": made / "batch.npz", "outputs": folder / "logits.npz"}
        jobs.append({"command": "logits", **about})
    ask_pytorch(root, jobs)
    return root


def test_pytorch_opens_what_was_saved_and_scores_the_same(made, saved, variant):
    folder = saved / variant
    found = json.loads((folder / "check.json").read_text())
    assert found["missing_keys"] == found["unexpected_keys"] == found["mismatched_keys"] == []
    assert ("lm_head.weight" in found["tied"]) == (not variant.endswith("untied"))
    ours, theirs = (np.load(root / variant / "logits.npz")["logits"] for root in (saved, made))
    assert np.array_equal(ours, theirs)
    assert GenerationConfig.from_pretrained(folder).num_beams == 3


def test_the_file_holds_the_tensors_that_pytorch_saves(made, saved, variant):
    ours, theirs = (tensor_files.read_model(root / variant) for root in (saved, made))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_files_of_half_precision_become_float32(made, load, tmp_path):
    for name in ("bf16", "fp16"):
        model, stored = load(made / name), tensor_files.read_model(made / name)
        assert {value.dtype.itemsize for value in stored.values()} == {2}
        assert {variable.dtype for variable in model.weights} == {"float32"}
        ours = values_of(model)
        assert all(np.array_equal(ours[name], stored[name].astype(np.float32)) for name in stored)
    conversion.save(load(made / "bf16"), tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).dtype == "float32", "PyTorch would round what was trained"


def test_several_files_with_an_index_are_one_checkpoint(made, load, tmp_path):
    assert len(list((made / "shards").glob("*.safetensors"))) > 3
    whole, shards = (values_of(load(made / name)) for name in ("bart", "shards"))
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


def test_what_is_missing_superfluous_or_misshapen_is_named(made, load, tmp_path):
    wrong = ("encoder.block.1.layer.1.DenseReluDense.wi", "classification_head", "encoder.final_layer_norm")

    def spoil(tensors):
        del tensors[f"{wrong[0]}.weight"]
        tensors[f"{wrong[1]}.weight"] = np.zeros((3, 3), np.float32)
        tensors[f"{wrong[2]}.weight"] = np.zeros(7, np.float32)

    with pytest.raises(InputError) as refusal:
        load(rewritten(made / "t5", tmp_path / "spoiled", spoil))
    assert len(refusal.value.problems) == 3
    for name in wrong:
        assert any(f"{name}.weight" in problem for problem in refusal.value.problems)


def test_head_of_its_own_that_the_file_has_not_is_missed(made, load, tmp_path):
    """Left at random it would train, and nobody would know."""

    def behead(tensors):
        del tensors["lm_head.weight"]

    with pytest.raises(InputError, match=r"lm_head\.weight is missing"):
        load(rewritten(made / "bart-untied", tmp_path / "headless", behead))


def test_files_of_older_releases_load_alike(made, load, tmp_path):
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
        unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        tensors[unused] = np.zeros((8, 4), np.float32)

    for variant, change in (("bart", bare), ("t5", other_name)):
        plain = values_of(load(made / variant))
        older = values_of(load(rewritten(made / variant, tmp_path / variant, change)))
        assert plain.keys() == older.keys()
        if variant == "bart":
            plain["final_logits_bias"] = np.zeros_like(plain["final_logits_bias"])
        assert all(np.array_equal(plain[name], older[name]) for name in older)


def test_values_of_the_variables_travel_under_the_parameters_names(made, load):
    model = load(made / "bart")
    moment = conversion.to_numpy(model, [3 * variable.numpy() for variable in model.trainable_variables])
    stored = tensor_files.read_model(made / "bart")
    assert moment.keys() == stored.keys() - {"final_logits_bias"}
    assert all(np.array_equal(moment[name], 3 * stored[name]) for name in moment)
    for variable, value in zip(model.trainable_variables, conversion.from_numpy(model, moment), strict=True):
        assert np.array_equal(value, 3 * variable.numpy())
    del moment["model.shared.weight"]
    with pytest.raises(InputError, match=r"model\.shared\.weight is missing"):
        conversion.from_numpy(model, moment)


def test_weight_decay_spares_what_has_one_dimension_in_pytorch(made, load):
    model = load(made / "bart")
    ones = [
        np.full(variable.shape, decays)
        for variable, decays in zip(model.trainable_variables, conversion.decayed(model), strict=True)
    ]
    for name, decays in conversion.to_numpy(model, ones).items():
        assert (decays == (not name.endswith("bias") and "norm" not in name)).all(), name


def test_what_kerashub_converts_is_exported_by_the_same_code(tmp_path):
    """GPT-2: weights that are not transposed, and one tensor that becomes three variables."""
    config = {
        "model_type": "gpt2",
        "vocab_size": 50,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 8,
        "n_positions": 16,
    }
    config |= {"resid_pdrop": 0.1}
    shapes = {"wte.weight": (50, 8), "wpe.weight": (16, 8), "ln_f.weight": (8,), "ln_f.bias": (8,)}
    sizes = {"attn.c_attn": (8, 24), "attn.c_proj": (8, 8), "mlp.c_fc": (8, 32), "mlp.c_proj": (32, 8)}
    for i in range(2):
        shapes |= {f"h.{i}.{norm}.{kind}": (8,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        for name, shape in sizes.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
    draw = np.random.default_rng(0)
    tensors = {f"transformer.{name}": draw.random(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")

    backbone = keras_hub.models.GPT2Backbone(**convert_gpt2.convert_backbone_config(config))
    with SafetensorLoader(str(tmp_path)) as loader:
        convert_gpt2.convert_weights(backbone, loader, config)
    notes = conversion.Notes({name: tensor.shape for name, tensor in tensors.items()})
    convert_gpt2.convert_weights(backbone, notes, config)
    exported = conversion.scatter(notes.places, [place.variable.numpy() for place in notes.places])
    assert exported.keys() == tensors.keys()
    assert all(np.array_equal(exported[name], tensors[name]) for name in tensors)
    query = next(place for place in notes.places if place.name.endswith("c_attn.weight"))
    without = [place for place in notes.places if place is not query]
    with pytest.raises(ValueError, match=r"only a part of transformer\.h\.0\.attn\.c_attn\.weight"):
        conversion.scatter(without, [place.variable.numpy() for place in without])


def test_hook_that_copies_is_followed_by_position():
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3)
    variable = SimpleNamespace(shape=(6,))
    place = conversion.Place(variable, "t", (2, 3), lambda tensor, shape: tensor.T.reshape(shape))
    assert not np.may_share_memory(place.view(tensor), tensor)
    assert np.array_equal(conversion.scatter([place], [place.view(tensor)])["t"], tensor)


def test_variables_of_a_run_are_replaced_by_a_checkpoints(made, saved, load):
    model = load(made / "bart")
    before = values_of(model)
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    conversion.restore(model, saved / "bart")
    assert all(np.array_equal(value, before[name]) for name, value in values_of(model).items())
    with pytest.raises(InputError, match=r"model\.shared\.weight is missing"):
        conversion.restore(model, made / "t5")


def test_positions_of_bart_are_continued_where_that_is_asked_for(made):
    stored = tensor_files.read_model(made / "bart")["model.encoder.embed_positions.weight"]

    world = devices.World(tf.distribute.get_strategy())

    def build(folder, **data):
        lengths = {"max_source_length": 64, "max_target_length": 9, "val_max_target_length": None}
        data_args = SimpleNamespace(**{"resize_position_embeddings": False} | lengths | data)
        args = SimpleNamespace(seed=0, gradient_checkpointing=False, bf16=False, fp16=False)
        model_args = SimpleNamespace(model_name_or_path=folder)
        config = AutoConfig.from_pretrained(made / "bart")
        return models.load(model_args, data_args, args, config, "ForConditionalGeneration", world)

    longer = build(made / "bart", max_source_length=100, resize_position_embeddings=True)
    assert longer.config.max_position_embeddings == 100
    table = longer.positions["encoder"].position_embeddings.numpy()
    assert np.array_equal(table, np.concatenate([stored, stored[2:38]]))
    assert build(None, max_source_length=100, resize_position_embeddings=True).weights
    assert build(made / "bart").config.max_position_embeddings == 64
    with pytest.raises(InputError, match="--max_source_length 100: the model has only 64 positions"):
        build(made / "bart", max_source_length=100)


def test_computed_positions_go_on_as_pytorchs_do(made, long_batch, tmp_path, ask_pytorch):
    """M2M100's without being asked to."""
    np.savez(tmp_path / "long.npz", **long_batch)
    jobs, ours = [], {}
    for name in ("marian", "pegasus", "m2m_100"):
        folder, config = tmp_path / name, AutoConfig.from_pretrained(made / name)
        model = conversion.load(made / name, config, positions=None if name == "m2m_100" else 100)
        ours[name] = model(long_batch).numpy()
        conversion.save(model, folder)
        about = {"folder": folder, "inputs": tmp_path / "long.npz", "outputs": folder / "logits.npz"}
        jobs.append({"command": "logits", **about})
    ask_pytorch(tmp_path, jobs)
    real = long_batch["decoder_attention_mask"] != 0
    for name, logits in ours.items():
        expected = np.load(tmp_path / name / "logits.npz")["logits"][real]
        assert np.abs(logits[real] - expected).max() <= 1e-5 * np.abs(expected).max(), name


def test_marian_with_a_vocabulary_for_each_side_is_refused(made):
    config = AutoConfig.from_pretrained(made / "marian")
    config.share_encoder_decoder_embeddings = False
    with pytest.raises(InputError, match="share_encoder_decoder_embeddings=false"):
        conversion.load(made / "marian", config)
