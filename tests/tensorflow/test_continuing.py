"""Decoders alone continue prompts as transformers does, and sample what the form in PyTorch samples."""

import numpy as np
import pytest
import tensorflow as tf
from pytorch_answers import CONTINUED, OF_ALL_PROMPTS, SAMPLED
from transformers import AutoConfig

from triptych.models.decoding import DRAWN, generation_config, search_of
from triptych.tensorflow import generation


def of(folder):
    return generation_config(folder, AutoConfig.from_pretrained(folder))


def steps_of(model, search):
    signature = dict.fromkeys(("input_ids", "attention_mask"), tf.TensorSpec((None, None), tf.int32))
    signature |= {DRAWN: tf.TensorSpec((None, None), tf.float32)} if search.do_sample else {}

    @tf.function(input_signature=[signature])
    def generate_step(batch):
        return generation.generate(model, batch, search)

    return lambda batch: generate_step({name: batch[name] for name in signature}).numpy()


@pytest.mark.parametrize("name", CONTINUED)
def test_tokens_equal_pytorchs(continuing, prompts, load, name):
    model, config = load(continuing / name), of(continuing / name)
    answers = np.load(continuing / name / "generate.npz").values()
    for changes, wanted in zip(CONTINUED[name], answers, strict=True):
        config.eos_token_id = (OF_ALL_PROMPTS | changes)["eos_token_id"]
        search = search_of(config, prompts=True, **OF_ALL_PROMPTS | changes)
        assert np.array_equal(steps_of(model, search)(prompts), wanted), changes


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_equal_pytorchs(continuing, prompts, load, name):
    model, config = load(continuing / name), of(continuing / name)
    answers = np.load(continuing / name / "sample.npz").values()
    for changes, wanted in zip(SAMPLED[name], answers, strict=True):
        search = search_of(config, prompts=True, do_sample=True, **OF_ALL_PROMPTS | changes)
        assert np.array_equal(steps_of(model, search)(prompts), wanted), changes


def test_prompts_may_be_padded_anywhere_and_be_of_one_token(continuing, prompts, load):
    model, config = load(continuing / "mistral"), of(continuing / "mistral")
    search = search_of(config, prompts=True, **OF_ALL_PROMPTS)
    wanted = next(iter(np.load(continuing / "mistral/generate.npz").values()))
    left = {name: np.zeros((40, 20), np.int32) for name in ("input_ids", "attention_mask")}
    for row, length in enumerate(prompts["attention_mask"].sum(axis=1)):
        for name, values in left.items():
            values[row, 17 - length : 17] = prompts[name][row, :length]
    generate_step = steps_of(model, search)
    assert np.array_equal(generate_step(left), wanted)
    one = prompts["attention_mask"].sum(axis=1) == 1
    assert one.any()
    short = {name: prompts[name][one, :1] for name in left}
    found = generate_step(short)
    assert np.array_equal(found, wanted[one, : found.shape[1]])


def test_sampling_needs_its_numbers(continuing, prompts, load):
    model, config = load(continuing / "gpt2"), of(continuing / "gpt2")
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
