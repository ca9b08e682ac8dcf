"""Generation gives the tokens that `generate` of transformers gives, with models that have learnt to end."""

import numpy as np
import pytest
import tensorflow as tf

from triptych.errors import InputError
from triptych.models.decoding import generation_config, search_of
from triptych.tensorflow import generation

# Together they set everything that can be set, the three ways to stop early with lengths favoured and not.
SETTINGS = {
    "t5": [
        {},
        {"max_length": 6, "forced_bos_token_id": 7, "eos_token_id": [1, 20]},
        {"num_beams": 4, "no_repeat_ngram_size": 2, "min_length": 9, "max_length": 14},
        {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0, "max_new_tokens": 16},
        {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.6},
    ],
    "bart": [
        {"min_new_tokens": 5, "no_repeat_ngram_size": 1, "max_new_tokens": 12, "decoder_start_token_id": 9},
        {"num_beams": 4, "length_penalty": -1.0, "early_stopping": "never"},
        {"num_beams": 2, "forced_eos_token_id": 1, "max_length": 5, "forced_bos_token_id": 7},
        {"num_beams": 3, "repetition_penalty": 2.5, "eos_token_id": [1, 20], "length_penalty": 0.0},
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


@pytest.fixture(scope="module")
def sources() -> dict[str, np.ndarray]:
    """40 rows of numbers to sort, half of them longer than any that the models were trained on."""
    draw = np.random.default_rng(7)
    length = np.concatenate([draw.integers(2, 11, 20), draw.integers(11, 24, 20)])[:, None]
    tokens, places = draw.integers(5, 25, (40, 24), dtype=np.int32), np.arange(24)
    tokens = np.where(places < length, tokens, np.where(places == length, 1, 0)).astype(np.int32)
    return {"input_ids": tokens, "attention_mask": (tokens != 0).astype(np.int32)}


@pytest.fixture(scope="module")
def expected(trained, sources, tmp_path_factory, ask_pytorch) -> dict[str, list[np.ndarray]]:
    """What PyTorch answers, for each of SETTINGS."""
    root = tmp_path_factory.mktemp("generation")
    np.savez(root / "sources.npz", **sources)
    jobs = [
        {"command": "generate", "folder": trained[name], "inputs": root / "sources.npz", "settings": settings}
        | {"outputs": root / f"{name}.npz"}
        for name, settings in SETTINGS.items()
    ]
    ask_pytorch(root, jobs)
    return {name: list(np.load(root / f"{name}.npz").values()) for name in SETTINGS}


def steps_of(model, search, *own):
    of_sources = dict.fromkeys(("input_ids", "attention_mask"), tf.TensorSpec((None, None), tf.int32))

    @tf.function(input_signature=[of_sources | dict.fromkeys(own, tf.TensorSpec((None,), tf.int32))])
    def generate_step(batch):
        return generation.generate(model, batch, search)

    return generate_step


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_equal_pytorchs_by_one_trace_for_all_shapes(trained, sources, expected, load, name):
    model, config = load(trained[name]), generation_config(trained[name], None)
    for changes, wanted in zip(SETTINGS[name], expected[name], strict=True):
        search = search_of(config, **changes)
        generate_step = steps_of(model, search)
        assert np.array_equal(generate_step(sources), wanted), changes
        few = {key: values[:7, :11] for key, values in sources.items()}
        found = generate_step(few).numpy()
        filling = search.beams_filling if search.num_beams > 1 else search.pad_token_id
        assert np.array_equal(found, wanted[:7, : found.shape[1]]), changes
        assert (wanted[:7, found.shape[1] :] == filling).all(), changes
        assert generate_step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", OWN)
def test_rows_begin_as_each_of_them_has_to(trained, sources, ask_pytorch, tmp_path, load, name):
    """As if those with the same beginning were alone, and PyTorch answered."""
    setting, tokens, searches = OWN[name]
    np.savez(tmp_path / "sources.npz", **sources)
    settings = [search | {setting: token} for search in searches for token in tokens]
    job = {"command": "generate", "folder": trained[name], "inputs": tmp_path / "sources.npz"}
    ask_pytorch(tmp_path, [job | {"outputs": tmp_path / "answers.npz", "settings": settings}])
    answers = iter(np.load(tmp_path / "answers.npz").values())
    model, config = load(trained[name]), generation_config(trained[name], None)
    own = np.resize(tokens, 40).astype(np.int32)
    for changes in searches:
        generate_step = steps_of(model, search_of(config, **changes), setting)
        found = generate_step(sources | {setting: own}).numpy()
        for token in tokens:
            wanted = next(answers)[:, : found.shape[1]]
            alike = found[:, : wanted.shape[1]] == wanted
            assert alike[own == token].all(), changes
            assert not alike[own != token].all(axis=1).any(), changes


@pytest.mark.parametrize("name", SETTINGS)
def test_the_answers_could_tell_a_wrong_search(expected, name):
    """Equal tokens mean something only where rows differ, most end by themselves, and settings matter."""
    for changes, wanted in zip(SETTINGS[name], expected[name], strict=True):
        assert len(np.unique(wanted, axis=0)) > 20, changes
        if changes.get("max_length", 20) > 6:
            assert (wanted[:, 1:-1] == 1).any(axis=1).mean() > 0.5, changes
    assert len({wanted.tobytes() for wanted in expected[name]}) == len(SETTINGS[name])


def test_text_longer_than_barts_positions_is_refused(made, sources, load):
    search = search_of(generation_config(made / "bart", None), max_length=66)
    with pytest.raises(InputError, match=r"65 tokens.*64 positions"):
        generation.generate(load(made / "bart"), sources, search)
