"""Which parameters of a classifier are new, and what they are at first."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import transformers
from safetensors.numpy import save_file

from triptych.errors import InputError
from triptych.models import configs, initial_weights, tensor_files

CONFIG = SimpleNamespace(model_type="bert", initializer_range=0.02, pad_token_id=0)
SHAPES = {
    "bert.embeddings.word_embeddings.weight": (9, 4),
    "bert.embeddings.LayerNorm.weight": (4,),
    "bert.embeddings.LayerNorm.bias": (4,),
    "bert.pooler.dense.weight": (4, 4),
    "classifier.weight": (3, 4),
    "classifier.bias": (3,),
}


def stored(folder, rename=lambda name: name, **changes):
    """A file with all of SHAPES but for `changes`, its names given by `rename`, if any."""
    draw = np.random.default_rng(0)
    tensors = {name: draw.random(shape, np.float32) for name, shape in SHAPES.items()} | changes
    tensors = {rename(name): value for name, value in tensors.items() if rename(name) and value is not None}
    save_file(tensors, folder / tensor_files.MODEL)
    return tensors


def test_complete_checkpoint_stays_as_it_is(tmp_path, caplog):
    tensors = stored(tmp_path)
    found = initial_weights.complete(tmp_path, SHAPES, CONFIG, seed=0)
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)
    assert not caplog.text


def test_encoder_without_prefix_or_under_its_first_names_is_found(tmp_path):
    def bare(name):
        return name.removeprefix("bert.") if name.startswith("bert.") else None

    def first(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    for rename in (bare, first):
        tensors = stored(tmp_path, rename)
        found = initial_weights.complete(tmp_path, SHAPES, CONFIG, seed=0)
        assert found.keys() == SHAPES.keys()
        for name in tensors:
            same = f"bert.{name}" if rename is bare else name
            same = same.replace("gamma", "weight").replace("beta", "bias")
            assert np.array_equal(found[same], tensors[name])


def test_encoder_of_xlm_r_has_the_name_of_robertas(tmp_path):
    names = {name: name.replace("bert.", "roberta.") for name in SHAPES}
    shapes = {names[name]: shape for name, shape in SHAPES.items()}
    config = SimpleNamespace(**vars(CONFIG) | {"model_type": "xlm-roberta"})
    for rename in (names.get, lambda name: name.removeprefix("bert.") if name.startswith("bert.") else None):
        tensors = stored(tmp_path, rename)
        found = initial_weights.complete(tmp_path, shapes, config, seed=0)
        assert found.keys() == shapes.keys()
        for name, value in tensors.items():
            same = name if rename == names.get else f"roberta.{name}"
            assert np.array_equal(found[same], value), name


def test_pooler_is_left_out_where_the_head_reads_every_token(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    stored(tmp_path)
    shapes = {name: shape for name, shape in SHAPES.items() if ".pooler." not in name}
    assert initial_weights.complete(tmp_path, shapes, CONFIG, seed=0).keys() == shapes.keys()
    assert "Not used of the checkpoint: bert.pooler.dense.weight." in caplog.text


def test_what_other_heads_have_is_left_out_and_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    others = ("cls.predictions.bias", "lm_head.dense.weight", "bert.embeddings.position_ids")
    stored(tmp_path, **dict.fromkeys(others, np.zeros(2, np.float32)))
    assert initial_weights.complete(tmp_path, SHAPES, CONFIG, seed=0).keys() == SHAPES.keys()
    assert all(name in caplog.text for name in others)


def test_surplus_of_the_encoder_is_not_left_out(tmp_path):
    """A file with more layers than the configuration says would be cut without a word."""
    stored(tmp_path, **{"bert.encoder.layer.7.output.dense.bias": np.zeros(4, np.float32)})
    assert "bert.encoder.layer.7.output.dense.bias" in initial_weights.complete(
        tmp_path, SHAPES, CONFIG, seed=0
    )


def test_missing_head_and_pooler_are_new_and_said(tmp_path, caplog):
    new = ("bert.pooler.dense.weight", "classifier.weight", "classifier.bias")
    tensors = stored(tmp_path, **dict.fromkeys(new))
    found = initial_weights.complete(tmp_path, SHAPES, CONFIG, seed=5)
    for name, value in found.items():
        expected = initial_weights.initial(name, SHAPES[name], CONFIG, 5) if name in new else tensors[name]
        assert np.array_equal(value, expected), name
    assert all(name in caplog.text for name in new)
    assert found["classifier.weight"].any()
    assert not found["classifier.bias"].any()


def test_encoder_that_lacks_something_or_has_another_size_is_refused(tmp_path):
    norm, words = "bert.embeddings.LayerNorm.bias", "bert.embeddings.word_embeddings.weight"
    stored(tmp_path, **{norm: None, words: np.zeros((8, 4), np.float32)})
    with pytest.raises(InputError) as refusal:
        initial_weights.complete(tmp_path, SHAPES, CONFIG, seed=0, ignore_mismatched_sizes=True)
    lacking, other = refusal.value.problems
    assert norm in lacking
    assert words in other
    assert "[8, 4] in the checkpoint and [9, 4] in the model" in other


def test_other_number_of_labels_needs_the_flag(tmp_path, caplog):
    sizes = {"classifier.weight": np.ones((2, 4), np.float32), "classifier.bias": np.ones(2, np.float32)}
    stored(tmp_path, **sizes)
    with pytest.raises(InputError) as refusal:
        initial_weights.complete(tmp_path, SHAPES, CONFIG, seed=0)
    assert len(refusal.value.problems) == 2
    assert all("--ignore_mismatched_sizes" in problem for problem in refusal.value.problems)
    found = initial_weights.complete(tmp_path, SHAPES, CONFIG, seed=0, ignore_mismatched_sizes=True)
    for name in sizes:
        assert np.array_equal(found[name], initial_weights.initial(name, SHAPES[name], CONFIG, 0))
        assert name in caplog.text


def test_head_that_may_not_be_new_is_missed():
    with pytest.raises(InputError, match=r"has no weights for a, b, c, d, e and 2 others\."):
        initial_weights.new_parameters("gfedcba", [], base=None)
    with pytest.raises(InputError, match=r"lm_head has shape \[1\]"):
        initial_weights.new_parameters([], [("lm_head", [1], [2])], base=None, ignore_mismatched_sizes=True)


def test_first_values_follow_from_seed_and_name():
    first, again = (initial_weights.initial("classifier.weight", (300, 40), CONFIG, 1) for _ in range(2))
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert first.std() == pytest.approx(0.02, rel=0.05)
    for other in (("classifier.weight", 2), ("pre_classifier.weight", 1)):
        assert not np.array_equal(first, initial_weights.initial(other[0], (300, 40), CONFIG, other[1]))


MODERNBERT = transformers.ModernBertConfig(hidden_size=64, num_hidden_layers=8, num_attention_heads=4)


def test_what_modernbert_adds_to_its_residual_is_smaller_and_nothing_is_far_out():
    deviations = {"model.layers.1.attn.Wqkv": 0.02, "model.layers.0.mlp.Wo": 0.005, "head.dense": 0.005}
    for name, deviation in (deviations | {"classifier": 0.125}).items():
        first = initial_weights.initial(f"{name}.weight", (300, 40), MODERNBERT, 1)
        assert first.dtype == np.float32
        assert np.array_equal(first, initial_weights.initial(f"{name}.weight", (300, 40), MODERNBERT, 1))
        # Between two standard deviations a normal distribution has one of 0.8796.
        assert first.std() == pytest.approx(0.8796 * deviation, rel=0.03), name
        assert 1.99 * deviation < np.abs(first).max() <= np.float32(2 * deviation), name


ROBERTA = SimpleNamespace(model_type="roberta", max_position_embeddings=514, pad_token_id=1)


def test_lengths_are_held_to_the_positions_that_a_text_can_have():
    assert configs.positions(ROBERTA) == 512
    assert configs.positions(SimpleNamespace(**vars(ROBERTA) | {"model_type": "xlm-roberta"})) == 512
    assert configs.positions(SimpleNamespace(model_type="bert", max_position_embeddings=512)) == 512
    assert configs.positions(SimpleNamespace(model_type="t5")) is None
    assert configs.positions(SimpleNamespace(model_type="modernbert", max_position_embeddings=512)) is None
    assert not configs.require_positions(512, SimpleNamespace(max_seq_length=512))
    with pytest.raises(InputError) as refusal:
        configs.require_positions(512, SimpleNamespace(max_seq_length=513))
    assert refusal.value.problems == [
        "--max_seq_length 513: the model has only 512 positions. Give --max_seq_length 512."
    ]
