"""Rows that begin with tokens of their own get the answers of transformers to rows that all begin so;
sampling by numbers has the distribution that transformers samples from."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_answers import trained
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPT2Config, LlamaConfig
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from triptych.models.decoding import DRAWN, Search
from triptych.pytorch import generation

__all__ = ["trained"]

# What each third of the rows has for itself, and what the model may hold for all
OWN = {
    "bart": ("decoder_start_token_id", [0, 9, 12], {"forced_bos_token_id": 8}),
    "m2m_100": ("forced_bos_token_id", [7, 9, 12], {"forced_bos_token_id": 8}),
}
SEARCHES = [
    {"max_length": 20},
    {"max_length": 20, "num_beams": 4, "renormalize_logits": True, "bad_words_ids": [[5]]},
]


@pytest.fixture(scope="module")
def sources() -> dict[str, torch.Tensor]:
    """40 rows of numbers to sort, half of them longer than any that the models were trained on."""
    draw = np.random.default_rng(7)
    length = np.concatenate([draw.integers(2, 11, 20), draw.integers(11, 24, 20)])[:, None]
    tokens, places = draw.integers(5, 25, (40, 24)), np.arange(24)
    tokens = torch.from_numpy(np.where(places < length, tokens, np.where(places == length, 1, 0)))
    return {"input_ids": tokens, "attention_mask": (tokens != 0).long()}


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beams"])
@pytest.mark.parametrize("name", OWN)
def test_rows_begin_as_each_of_them_has_to(trained, sources, name, search):
    setting, tokens, held = OWN[name]
    model = AutoModelForSeq2SeqLM.from_pretrained(trained[name]).eval()
    model.generation_config.update(**held)
    own = torch.from_numpy(np.resize(tokens, 40))
    found = torch.tensor(generation.generate(model, sources | {setting: own}, search))
    for token in tokens:
        wanted = model.generate(**sources, **search, **{setting: token})[:, : found.shape[1]]
        alike = found[:, : wanted.shape[1]] == wanted
        assert alike[own == token].all()
        assert not alike[own != token].all(dim=1).any()
        alone = {key: values[own == token] for key, values in sources.items()}
        few = model.generate(**alone, **search, **{setting: token})
        assert torch.equal(found[own == token][:, : few.shape[1]], few)


def test_settings_of_all_rows_go_to_transformers_as_they_are(sources):
    seen = {}

    class Model:
        config = SimpleNamespace(is_encoder_decoder=True)

        def generate(self, **settings):
            seen.update(settings)
            return sources["input_ids"]

    generation.generate(Model(), sources | {"labels": None}, {"num_beams": 2, "forced_bos_token_id": 7})
    assert seen == {**sources, "num_beams": 2, "forced_bos_token_id": 7}


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.6, 0, 0.7), (1.4, 5, 1.0), (0.9, 8, 0.8), (1.0, 1, 1.0)],
)
def test_numbers_choose_as_often_as_transformers_samples(temperature, top_k, top_p):
    """Of scores among which are forbidden ones and equal ones, at the border of the likeliest five too. Of
    equal ones at top_p's border the first stay here, and any in transformers."""
    scores = torch.tensor([2.0, 3.0, 1.0, 1.0, 0.5, 1.0, -math.inf, 1.0, -2.0, 2.5, 0.0, -math.inf])[None]
    expected = TemperatureLogitsWarper(temperature)(None, scores)
    expected = TopKLogitsWarper(top_k)(None, expected) if top_k else expected
    expected = TopPLogitsWarper(top_p)(None, expected).softmax(dim=-1)[0]
    search = Search(None, 0, (1,), do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p)
    numbers = (torch.arange(20_000) + 0.5) / 20_000
    found = generation.sample(scores.expand(20_000, -1), numbers, search)
    shares = torch.bincount(found, minlength=12) / 20_000
    for score in scores.unique():
        equal = scores[0] == score
        wanted = expected[equal].sort(descending=True).values
        assert torch.equal(shares[equal] > 0, wanted > 0)
        assert (shares[equal] - wanted).abs().max() < 1e-4
    last = generation.sample(scores, torch.tensor([1 - 2.0**-24]), search)
    assert shares[last] > 0


@pytest.fixture(params=["gpt2", "llama"])
def decoder(request):
    torch.manual_seed(0)
    sizes = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=60, initializer_range=0.4
    )
    kind = GPT2Config if request.param == "gpt2" else LlamaConfig
    config = kind(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config.intermediate_size = 48
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_beams": 3, "repetition_penalty": 1.2}, {"do_sample": True, "top_p": 0.9, "temperature": 0.8}],
    ids=["greedy", "beams", "sampling"],
)
def test_prompts_of_a_batch_go_on_as_if_alone(decoder, settings):
    """Whatever others it is padded to; what a row samples depends on its numbers alone."""
    draw = np.random.default_rng(0)
    lengths, settings = [5, 1, 9], settings | {"max_new_tokens": 12}
    prompts = [torch.from_numpy(draw.integers(3, 60, length)) for length in lengths]
    batch = {"input_ids": torch.zeros(3, 11).long(), "attention_mask": torch.zeros(3, 11).long()}
    for row, tokens in enumerate(prompts):
        batch["input_ids"][row, : len(tokens)] = tokens
        batch["attention_mask"][row, : len(tokens)] = 1
    numbers = torch.from_numpy(draw.random((3, 12), np.float32))
    found = generation.generate(decoder, batch | {DRAWN: numbers}, settings)
    assert len({tuple(row) for row in found}) == 3
    for row, tokens in enumerate(prompts):
        if "do_sample" in settings:
            one = {"input_ids": tokens[None], "attention_mask": torch.ones(1, len(tokens)).long()}
            alone = generation.generate(decoder, one | {DRAWN: numbers[row : row + 1]}, settings)[0]
        else:
            alone = decoder.generate(tokens[None], **settings)[0, len(tokens) :].tolist()
        assert found[row][: len(alone)] == alone
        assert set(found[row][len(alone) :]) <= {0, 2}


def test_sampling_needs_its_numbers(decoder):
    tokens = torch.full((1, 3), 7)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    for numbers in ({}, {DRAWN: torch.zeros(1, 4)}):
        with pytest.raises(ValueError, match="5 numbers a row"):
            generation.generate(decoder, batch | numbers, {"do_sample": True, "max_new_tokens": 5})
