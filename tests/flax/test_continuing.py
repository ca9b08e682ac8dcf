"""Decoders alone continue prompts as transformers does, and sample what the form in PyTorch samples."""

import numpy as np
import pytest
from pytorch_answers import CONTINUED, OF_ALL_PROMPTS, SAMPLED
from transformers import AutoConfig

from triptych.flax import conversion, generation
from triptych.models.decoding import DRAWN, generation_config, search_of


def load(folder):
    config = AutoConfig.from_pretrained(folder)
    return conversion.load(folder, config), generation_config(folder, config)


@pytest.mark.parametrize("name", CONTINUED)
def test_tokens_equal_pytorchs(continuing, prompts, name):
    model, config = load(continuing / name)
    answers = np.load(continuing / name / "generate.npz").values()
    for changes, wanted in zip(CONTINUED[name], answers, strict=True):
        config.eos_token_id = (OF_ALL_PROMPTS | changes)["eos_token_id"]
        search = search_of(config, prompts=True, **OF_ALL_PROMPTS | changes)
        found = np.asarray(generation.generate(model, prompts, search))
        filling = search.beams_filling if search.num_beams > 1 else 0
        assert found.shape == (40, 16)
        assert np.array_equal(found[:, : wanted.shape[1]], wanted), changes
        assert (found[:, wanted.shape[1] :] == filling).all(), changes


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_equal_pytorchs(continuing, prompts, name):
    model, config = load(continuing / name)
    answers = np.load(continuing / name / "sample.npz").values()
    for changes, wanted in zip(SAMPLED[name], answers, strict=True):
        search = search_of(config, prompts=True, do_sample=True, **OF_ALL_PROMPTS | changes)
        found = np.asarray(generation.generate(model, prompts, search))
        assert np.array_equal(found[:, : wanted.shape[1]], wanted), changes
        assert not found[:, wanted.shape[1] :].any(), changes


def test_prompts_may_be_padded_anywhere_and_be_of_one_token(continuing, prompts):
    model, config = load(continuing / "mistral")
    search = search_of(config, prompts=True, **OF_ALL_PROMPTS)
    wanted = next(iter(np.load(continuing / "mistral/generate.npz").values()))
    left = {name: np.zeros((40, 20), np.int32) for name in ("input_ids", "attention_mask")}
    for row, length in enumerate(prompts["attention_mask"].sum(axis=1)):
        for name, values in left.items():
            values[row, 17 - length : 17] = prompts[name][row, :length]
    assert np.array_equal(np.asarray(generation.generate(model, left, search))[:, : wanted.shape[1]], wanted)
    one = prompts["attention_mask"].sum(axis=1) == 1
    assert one.any()
    short = {name: prompts[name][one, :1] for name in left}
    found = np.asarray(generation.generate(model, short, search))
    assert np.array_equal(found[:, : wanted.shape[1]], wanted[one])


def test_sampling_needs_its_numbers(continuing, prompts):
    model, config = load(continuing / "gpt2")
    search = search_of(config, prompts=True, do_sample=True, **OF_ALL_PROMPTS)
    for numbers in (None, prompts[DRAWN][:, :15]):
        batch = {name: prompts[name] for name in ("input_ids", "attention_mask")}
        with pytest.raises(ValueError, match="16 numbers a row"):
            generation.generate(model, batch if numbers is None else batch | {DRAWN: numbers}, search)


def test_the_answers_could_tell_a_wrong_search(continuing):
    """Equal tokens mean something only where rows differ, and many end by themselves."""
    ended = []
    for name in CONTINUED:
        answers = [*np.load(continuing / name / "generate.npz").values()]
        answers += np.load(continuing / name / "sample.npz").values() if name in SAMPLED else []
        assert all(len(np.unique(wanted, axis=0)) > 30 for wanted in answers), name
        assert len({wanted.tobytes() for wanted in answers}) == len(answers), name
        ends = [np.isin(wanted[:, :-1], OF_ALL_PROMPTS["eos_token_id"]) for wanted in answers]
        ended += [each.any(axis=1).mean() for each in ends]
    assert np.mean(np.array(ended) > 0.4) > 0.7
