"""Generation gives the tokens that `generate` of transformers gives, with models that have learnt to end."""

import numpy as np
import pytest
from transformers import AutoConfig

from triptych.flax import conversion, generation
from triptych.models.decoding import generation_config, search_of

# Together they set everything that can be set, and each setting changes the answers.
SETTINGS = {
    "t5": [
        {},
        {"max_length": 6, "forced_bos_token_id": 7, "eos_token_id": [1, 20], "repetition_penalty": 1.5},
        {"num_beams": 4, "length_penalty": 4.0},
        {"num_beams": 3, "early_stopping": "never", "length_penalty": 4.0, "no_repeat_ngram_size": 2},
    ],
    "bart": [
        {"min_new_tokens": 5, "no_repeat_ngram_size": 1, "max_new_tokens": 9, "decoder_start_token_id": 9},
        {"num_beams": 4, "early_stopping": True, "length_penalty": 4.0},
        {"num_beams": 2, "forced_eos_token_id": 20, "max_length": 5, "forced_bos_token_id": 7},
        {
            "num_beams": 3,
            "repetition_penalty": 2.5,
            "eos_token_id": [1, 20],
            "length_penalty": -4.0,
            "min_length": 6,
        },
    ],
    "marian": [
        {"bad_words_ids": [[0], [8], [12]], "max_length": 14},
        {"num_beams": 4, "bad_words_ids": [[0], [8]], "renormalize_logits": True, "length_penalty": 2.0},
        {"num_beams": 5, "bad_words_ids": [[20], [11]], "renormalize_logits": True, "eos_token_id": [1, 20]},
    ],
    "m2m_100": [
        {"forced_bos_token_id": 7, "bad_words_ids": [[8]]},
        {"num_beams": 4, "forced_bos_token_id": 9, "bad_words_ids": [[0], [8]], "renormalize_logits": True},
        {"num_beams": 3, "forced_bos_token_id": 12, "repetition_penalty": 2.0, "renormalize_logits": True},
    ],
}

# What each third of the rows has for itself, with one search and another
OWN = {
    "bart": ("decoder_start_token_id", [0, 9, 12], [{}, {"num_beams": 3}]),
    "m2m_100": ("forced_bos_token_id", [7, 9, 12], [{}, {"num_beams": 4, "renormalize_logits": True}]),
}


def with_one_less(settings: dict) -> list[dict]:
    return [{name: value for name, value in settings.items() if name != left_out} for left_out in settings]


@pytest.fixture(scope="module")
def sources() -> dict[str, np.ndarray]:
    """40 rows of numbers to sort, half of them longer than any that the models were trained on."""
    draw = np.random.default_rng(7)
    length = np.concatenate([draw.integers(2, 11, 20), draw.integers(11, 24, 20)])[:, None]
    tokens, places = draw.integers(5, 25, (40, 24)), np.arange(24)
    tokens = np.where(places < length, tokens, np.where(places == length, 1, 0))
    return {"input_ids": tokens, "attention_mask": (tokens != 0).astype(int)}


@pytest.fixture(scope="module")
def expected(trained, sources, tmp_path_factory, ask_pytorch) -> dict[str, list[np.ndarray]]:
    """What PyTorch answers: for each of SETTINGS, and after these for each with each of its settings left
    out."""
    root = tmp_path_factory.mktemp("generation")
    np.savez(root / "sources.npz", **sources)
    jobs = []
    for name, settings in SETTINGS.items():
        settings = [*settings, *(less for each in settings for less in with_one_less(each))]
        job = {"command": "generate", "folder": trained[name], "inputs": root / "sources.npz"}
        jobs.append(job | {"outputs": root / f"{name}.npz", "settings": settings})
    ask_pytorch(root, jobs)
    return {name: list(np.load(root / f"{name}.npz").values()) for name in SETTINGS}


@pytest.mark.parametrize("name", OWN)
def test_rows_begin_as_each_of_them_has_to(trained, sources, ask_pytorch, tmp_path, name):
    """As if those with the same beginning were alone, and PyTorch answered."""
    setting, tokens, searches = OWN[name]
    np.savez(tmp_path / "sources.npz", **sources)
    settings = [search | {setting: token} for search in searches for token in tokens]
    job = {"command": "generate", "folder": trained[name], "inputs": tmp_path / "sources.npz"}
    ask_pytorch(tmp_path, [job | {"outputs": tmp_path / "answers.npz", "settings": settings}])
    answers = iter(np.load(tmp_path / "answers.npz").values())
    model = conversion.load(trained[name], AutoConfig.from_pretrained(trained[name]))
    own = np.resize(tokens, 40)
    for changes in searches:
        search = search_of(generation_config(trained[name], None), **changes)
        found = np.asarray(generation.generate(model, sources | {setting: own}, search))
        for token in tokens:
            wanted = next(answers)
            alike = found[:, : wanted.shape[1]] == wanted
            assert alike[own == token].all(), changes
            assert not alike[own != token].all(axis=1).any(), changes


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_equal_pytorchs(trained, sources, expected, name):
    config = AutoConfig.from_pretrained(trained[name])
    model = conversion.load(trained[name], config)
    for changes, wanted in zip(SETTINGS[name], expected[name], strict=False):
        search = search_of(generation_config(trained[name], None), **changes)
        found = np.asarray(generation.generate(model, sources, search))
        assert found.shape == (40, search.max_length)
        width = wanted.shape[1]
        assert np.array_equal(found[:, :width], wanted), changes
        filling = search.beams_filling if search.num_beams > 1 else search.pad_token_id
        assert (found[:, width:] == filling).all(), changes


@pytest.mark.parametrize("name", SETTINGS)
def test_the_answers_could_tell_a_wrong_search(expected, name):
    """Equal tokens mean something only where rows differ, most end by themselves, and each setting
    matters."""
    answers = iter(expected[name])
    with_all = [(changes, next(answers)) for changes in SETTINGS[name]]
    for changes, wanted in with_all:
        assert len(np.unique(wanted, axis=0)) > 20, changes
        if changes.get("max_length", 20) > 6:
            assert (wanted[:, 1:-1] == 1).any(axis=1).mean() > 0.5, changes
    indifferent = [
        (changes, left_out)
        for changes, wanted in with_all
        for left_out in changes
        if np.array_equal(next(answers), wanted)
    ]
    assert indifferent == []
