"""Rows that begin with tokens of their own get the answers of transformers to rows that all begin so."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_answers import trained
from transformers import AutoModelForSeq2SeqLM

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
