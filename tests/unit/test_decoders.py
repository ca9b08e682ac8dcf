"""What configurations of decoders say, and what is refused of them."""

import math

import numpy as np
import pytest
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.models import configs, decoders, initial_weights

SMALL = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3 |= dict(original_max_position_embeddings=8192)


def small(kind, **changes):
    return AutoConfig.for_model(kind, **SMALL | changes)


def test_rotations_are_read_as_todays_and_older_folders_write_them():
    today = small("llama", rope_parameters=LLAMA3 | {"rope_theta": 5e5})
    older = small("llama", rope_theta=5e5, rope_scaling=LLAMA3)
    oldest = small("llama", rope_theta=5e5, rope_scaling={"type": "linear", "factor": 4.0})
    assert decoders.settings(today).layers == decoders.settings(older).layers
    plain = decoders.rope(today, {"rope_type": "default", "rope_theta": 5e5}).frequencies
    scaled = decoders.settings(today).layers[0].rope.frequencies
    assert scaled[0] == plain[0] == 1.0, "fast rotations stay"
    assert scaled[-1] == pytest.approx(plain[-1] / 8), "slow ones become slower"
    of_oldest = decoders.settings(oldest).layers[0].rope.frequencies
    assert of_oldest == pytest.approx([each / 4 for each in plain])


def test_yarn_states_its_factor_or_has_it_computed():
    parameters = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=1024)
    config = small("llama", rope_parameters=parameters)
    assert decoders.settings(config).layers[0].rope.factor == pytest.approx(0.1 * math.log(4) + 1)
    for change, factor in (
        ({"attention_factor": 0.5}, 0.5),
        ({"mscale": 2.0, "mscale_all_dim": 1.0}, (0.2 * math.log(4) + 1) / (0.1 * math.log(4) + 1)),
    ):
        assert decoders.rope(config, config.rope_parameters | change).factor == pytest.approx(factor)


def test_layers_of_a_model_differ_where_its_configuration_says_so():
    found = decoders.settings(small("gemma3_text", sliding_window=7, sliding_window_pattern=2, head_dim=8))
    assert [layer.window for layer in found.layers] == [7, None, 7, None]
    assert found.layers[0].rope != found.layers[1].rope
    assert (found.embedding_scale, found.attention_scale) == (math.sqrt(32), 256**-0.5)
    found = decoders.settings(small("smollm3", sliding_window=7, no_rope_layers=[1, 0, 1, 1]))
    assert [layer.rope is None for layer in found.layers] == [False, True, False, False]
    assert {layer.window for layer in found.layers} == {None}, "use_sliding_window is false"
    found = decoders.settings(small("qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=3))
    assert [layer.window for layer in found.layers] == [None, None, None, 7]
    assert {layer.window for layer in decoders.settings(small("mistral", sliding_window=7)).layers} == {7}


def test_biases_are_those_of_each_architecture():
    biased = {
        kind: decoders.settings(small(kind, attention_bias=True, mlp_bias=True, head_dim=8))
        for kind in decoders.KINDS
    }
    has = {
        kind: (each.attention_biases, each.output_bias, each.dense_biases) for kind, each in biased.items()
    }
    assert has == {
        "llama": (True, True, True),
        "mistral": (False, False, False),
        "qwen2": (True, False, False),
        "qwen3": (True, True, False),
        "smollm3": (True, True, True),
        "olmo2": (True, True, False),
        "gemma3_text": (True, True, False),
    }


@pytest.mark.parametrize(
    ("kind", "changes", "names"),
    [
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            ["dynamic"],
        ),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, ["partial_rotary"]),
        ("llama", {"num_key_value_heads": 3}, ["num_key_value_heads=3"]),
        ("gemma3_text", {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}, ["final", "attn"]),
        ("gemma3_text", {"use_bidirectional_attention": True}, ["use_bidirectional_attention=True"]),
        ("qwen2", {"layer_types": ["full_attention", "chunked_attention"] * 2}, ["chunked_attention"]),
        ("gpt2", {"add_cross_attention": True, "hidden_size": 30}, ["add_cross_attention", "n_embd=30"]),
    ],
)
def test_what_no_model_here_has_is_refused_by_its_name(kind, changes, names):
    with pytest.raises(InputError) as refusal:
        decoders.require_supported(small(kind, **changes))
    assert len(refusal.value.problems) == len(names)
    for name in names:
        assert any(name in problem for problem in refusal.value.problems), name


def test_only_gpt2_has_a_table_of_positions():
    assert configs.positions(AutoConfig.for_model("gpt2", n_positions=77)) == 77
    assert {configs.positions(small(kind)) for kind in decoders.KINDS} == {None}


def test_first_values_are_transformers_own_distributions():
    gpt2, gemma = AutoConfig.for_model("gpt2", n_layer=8), small("gemma3_text")
    added = initial_weights.initial("transformer.h.0.mlp.c_proj.weight", (200, 100), gpt2, 0)
    other = initial_weights.initial("transformer.h.0.mlp.c_fc.weight", (200, 100), gpt2, 0)
    assert added.std() == pytest.approx(0.02 / 4, rel=0.03)
    assert other.std() == pytest.approx(0.02, rel=0.03)
    assert not initial_weights.initial("model.norm.weight", (8,), gemma, 0).any(), "1 is added"
    assert initial_weights.initial("model.norm.weight", (8,), small("llama"), 0).all()
    tokens = initial_weights.initial("model.embed_tokens.weight", (9, 4), gemma, 0)
    assert np.flatnonzero(~tokens.any(axis=1)).tolist() == [gemma.pad_token_id]
