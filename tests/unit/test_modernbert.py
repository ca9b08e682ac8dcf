"""What a configuration of ModernBERT says."""

from pathlib import Path

import numpy as np
import pytest
import transformers

from triptych.errors import InputError
from triptych.models import modernbert

SMALL = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=4)
HEAD = "ForSequenceClassification"


def test_layers_differ_in_window_and_rotation(tmp_path: Path):
    config = transformers.ModernBertConfig(**SMALL, local_attention=10)
    config.save_pretrained(tmp_path)
    for each in (config, transformers.AutoConfig.from_pretrained(tmp_path)):
        layers = modernbert.settings(each, HEAD).layers
        assert [layer.window for layer in layers] == [None, 5, 5, None]
        slowest = [layer.rope.frequencies[-1] for layer in layers]
        expected = [theta ** (-6 / 8) for theta in (160_000, 10_000, 10_000, 160_000)]
        assert slowest == pytest.approx(expected, rel=1e-6)


def test_settings_of_older_files_are_heeded():
    old = dict(global_attn_every_n_layers=2, global_rope_theta=500.0, local_rope_theta=50.0)
    layers = modernbert.settings(transformers.ModernBertConfig(**SMALL, **old), HEAD).layers
    assert [layer.window for layer in layers] == [None, 64, None, 64]
    assert [layer.rope.frequencies[1] for layer in layers] == pytest.approx([500**-0.25, 50**-0.25] * 2)


def test_all_that_is_not_supported_is_named_at_once():
    config = transformers.ModernBertConfig(**SMALL | dict(hidden_size=36), head_dim=8)
    config.num_hidden_layers = 5
    config.layer_types = ["sliding_attention", "chunked_attention"]
    config.rope_parameters["sliding_attention"]["rope_type"] = "dynamic"
    config.rope_parameters["sliding_attention"]["partial_rotary_factor"] = 0.5
    config.__dict__["classifier_pooling"] = "max"
    with pytest.raises(InputError) as refusal:
        modernbert.settings(config, HEAD)
    problems = refusal.value.problems
    assert all(problem.startswith("The configuration of the modernbert: ") for problem in problems)
    said = "\n".join(problems)
    for name in ("chunked_attention", "rope_type='dynamic'", "partial_rotary_factor=0.5", "head_dim=8"):
        assert name in said
    for name in ("hidden_size=36", "num_hidden_layers=5", "classifier_pooling='max'"):
        assert name in said


def test_numbers_beyond_the_cutoff_are_drawn_anew():
    found = modernbert.truncated_normal(np.random.default_rng(0), (50, 40), 0.5)
    plain = np.random.default_rng(0).standard_normal((50, 40), dtype=np.float32)
    kept = np.abs(plain) <= 0.5
    assert np.array_equal(found[kept], plain[kept])
    assert np.abs(found).max() <= 0.5
    assert found.std() == pytest.approx(1 / np.sqrt(12), rel=0.05), "nearly uniform"
