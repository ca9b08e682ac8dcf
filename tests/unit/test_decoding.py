"""The settings of a search: read as transformers reads them, and none ignored without a word."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import GenerationConfig

from triptych.batching.draws import IN_EVALUATION, Draws
from triptych.errors import InputError
from triptych.models import decoding


def test_settings_that_cannot_be_honoured_are_named_all_at_once():
    given = GenerationConfig(do_sample=True, eos_token_id=1, decoder_start_token_id=0)
    given.bad_words_ids = [[3], [3, 4]]
    asked = {"encoder_no_repeat_ngram_size": 3, "early_stopping": "always", "max_length": 1, "num_beams": 0}
    with pytest.raises(InputError) as refusal:
        decoding.search_of(given, stop_strings=["."], **asked)
    for name in ("do_sample", "bad_words_ids", "stop_strings", "'always'", *asked):
        assert sum(name in problem for problem in refusal.value.problems) == 1, name
    with pytest.raises(InputError, match="no eos_token_id"):
        decoding.search_of(GenerationConfig(decoder_start_token_id=0))
    with pytest.raises(InputError, match="neither decoder_start_token_id nor bos_token_id"):
        decoding.search_of(GenerationConfig(eos_token_id=1))


def test_every_setting_of_transformers_is_honoured_refused_or_without_effect():
    """A setting that a newer transformers adds must not be ignored without a word."""
    given = GenerationConfig(eos_token_id=1, decoder_start_token_id=0)
    honoured = {*decoding.Search.__dataclass_fields__, "max_new_tokens", "min_new_tokens", "bos_token_id"}
    names = {name for name in vars(given).keys() - honoured - decoding.WITHOUT_EFFECT if name[0] != "_"}
    assert len(names) > 20
    for name in names - {*decoding.OTHERS_OF_SAMPLING}:
        with pytest.raises(InputError, match=name):
            decoding.search_of(given, **{name: 17})
    for name in names - {"early_stopping"}:
        with pytest.raises(InputError, match=name):
            decoding.search_of(given, prompts=True, do_sample=True, **{name: 17})
    assert set(decoding.OTHERS_OF_SAMPLING) < names
    decoding.search_of(given, prompts=True, **dict.fromkeys(decoding.OTHERS_OF_SAMPLING, 17))


def test_forbidden_tokens_of_marians_checkpoints_are_read_and_its_end_stays_possible():
    """A search that refused them could use none of these; one whose end is forbidden never stops."""
    given = GenerationConfig(eos_token_id=0, decoder_start_token_id=9, bad_words_ids=[[9], [0]])
    found = decoding.search_of(given, renormalize_logits=True)
    assert (found.bad_words_ids, found.renormalize_logits) == ((9,), True)


def test_prompts_are_continued_by_lengths_that_do_not_count_them():
    given = GenerationConfig(eos_token_id=1, max_length=50, min_length=3, forced_bos_token_id=4)
    with pytest.raises(InputError) as refusal:
        decoding.search_of(given, prompts=True)
    for name in ("max_length=50", "min_length=3", "forced_bos_token_id"):
        assert sum(name in problem for problem in refusal.value.problems) == 1, name
    given.forced_bos_token_id = None
    found = decoding.search_of(given, prompts=True, max_new_tokens=7, min_new_tokens=2)
    assert (found.max_length, found.min_length, found.decoder_start_token_id) == (8, 3, None)
    assert decoding.search_of(GenerationConfig(eos_token_id=1), prompts=True).max_length == 21
    endless = decoding.search_of(GenerationConfig(), prompts=True)
    assert (endless.eos_token_id, endless.pad_token_id, endless.beams_filling) == ((), 0, 0)


def test_sampling_is_for_prompts_and_refuses_what_means_nothing():
    given = GenerationConfig(eos_token_id=1, decoder_start_token_id=0, do_sample=True, top_p=0.9)
    with pytest.raises(InputError, match="do_sample=True"):
        decoding.search_of(given)
    found = decoding.search_of(given, prompts=True, temperature=0.5)
    assert (found.do_sample, found.temperature, found.top_k, found.top_p) == (True, 0.5, 50, 0.9)
    with pytest.raises(InputError) as refusal:
        decoding.search_of(given, prompts=True, temperature=0.0, top_k=-1, top_p=1.5, num_beams=2)
    for name in ("temperature=0.0", "top_k=-1", "top_p=1.5", "num_beams=2"):
        assert sum(name in problem for problem in refusal.value.problems) == 1, name
    with pytest.raises(ValueError, match="20 numbers a row"):
        found.require_numbers(19)
    found.require_numbers(20)


def test_numbers_of_a_row_are_its_own_and_below_1():
    numbers = IN_EVALUATION + np.arange(3)
    found = decoding.drawn(Draws(1, numbers), 500)[decoding.DRAWN]
    assert (found.dtype, found.shape) == ("float32", (3, 500))
    assert 0 <= found.min() < 0.01 < 0.99 < found.max() < 1
    assert np.array_equal(decoding.drawn(Draws(1, numbers[2:]), 7)[decoding.DRAWN], found[2:, :7])
    assert len(np.unique(found)) > 1490


def test_beginnings_of_rows_are_arrays_of_a_batch_where_features_have_them():
    found = decoding.of_rows({"input_ids": [[1], [2]], "forced_bos_token_id": [7, 9]})
    assert {name: (array.tolist(), array.dtype) for name, array in found.items()} == {
        "forced_bos_token_id": ([7, 9], "int64")
    }
    assert decoding.of_rows({"input_ids": [[1]], "labels": [[2]]}) == {}


def test_settings_that_change_nothing_are_no_problem():
    given = GenerationConfig(
        do_sample=False, top_k=10, num_return_sequences=1, eos_token_id=[2, 3], bos_token_id=0, of_ours="x"
    )
    found = decoding.search_of(given, num_beams=None, repetition_penalty=None)
    assert (found.num_beams, found.max_length, found.eos_token_id) == (1, 21, (2, 3))
    assert (found.decoder_start_token_id, found.pad_token_id) == (0, 2)


def test_settings_of_older_folders_are_read_from_the_configuration(tmp_path):
    content = {"model_type": "bart", "num_beams": 4, "no_repeat_ngram_size": 3, "eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = SimpleNamespace(decoder_start_token_id=0)
    found = decoding.search_of(decoding.generation_config(tmp_path, config))
    assert (found.num_beams, found.no_repeat_ngram_size, found.decoder_start_token_id) == (4, 3, 0)


def test_model_from_scratch_takes_its_configurations_tokens():
    config = SimpleNamespace(decoder_start_token_id=5, eos_token_id=1, pad_token_id=0)
    found = decoding.search_of(decoding.generation_config(None, config), max_length=7)
    assert (found.decoder_start_token_id, found.eos_token_id, found.max_length) == (5, (1,), 7)
