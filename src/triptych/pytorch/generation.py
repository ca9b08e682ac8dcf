"""Answers of models by `generate` of transformers, each row perhaps from a beginning of its own, and sampled
by numbers of its own."""

import math
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from triptych.models import decoding
from triptych.models.decoding import Search


class FirstTokens(LogitsProcessor):
    """Leaves each row but one first token, as `forced_bos_token_id` of transformers leaves all rows the same.

    Args:
        tokens: int64 [rows].
    """

    def __init__(self, tokens: torch.Tensor):
        self.tokens = tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows * beams, vocabulary] of what follows `input_ids` [rows * beams, length]."""
        if input_ids.shape[1] > 1:
            return scores
        tokens = self.tokens.repeat_interleave(len(scores) // len(self.tokens))
        return torch.full_like(scores, -math.inf).scatter(1, tokens[:, None], 0.0)


class Sampling(LogitsProcessor):
    """Leaves each row but one token: the one that its number chooses, as in the other forms.

    Args:
        search: with the settings of sampling.
        numbers: float32 [rows, new tokens], from 0 to below 1.
        given: how many tokens prompts have, with padding.
    """

    def __init__(self, search: Search, numbers: torch.Tensor, given: int):
        self.search, self.numbers, self.given = search, numbers, given

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary] of what follows `input_ids` [rows, length]."""
        numbers = self.numbers[:, input_ids.shape[1] - self.given]
        chosen = sample(scores.float(), numbers, self.search)
        return torch.full_like(scores, -math.inf).scatter(1, chosen[:, None], 0.0)


def sample(scores: torch.Tensor, numbers: torch.Tensor, search: Search) -> torch.Tensor:
    """The tokens, int64 [rows], that numbers from 0 to below 1, [rows], choose of those of `scores` [rows,
    vocabulary]: where the sum of probabilities, from the likeliest token on, exceeds the number. Before, as
    in transformers, temperature, top_k and top_p (Holtzman et al. 2020, arXiv:1904.09751) apply."""
    scores, order = (scores / search.temperature).sort(dim=-1, descending=True, stable=True)
    if 0 < search.top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < scores[:, search.top_k - 1, None], -math.inf)
    if search.top_p < 1:
        probabilities = scores.softmax(dim=-1)
        likelier = probabilities.cumsum(dim=-1) - probabilities
        scores = scores.masked_fill(likelier >= search.top_p, -math.inf)
    probabilities = scores.softmax(dim=-1)
    sums = probabilities.cumsum(dim=-1)
    chosen = (sums <= numbers[:, None] * sums[:, -1:]).sum(dim=-1)
    chosen = chosen.minimum((probabilities > 0).sum(dim=-1) - 1)
    return order.gather(1, chosen[:, None])[:, 0]


def generate(model: Any, batch: dict[str, torch.Tensor], settings: dict[str, Any]) -> list[list[int]]:
    """Token ids for each row of a batch: of an encoder-decoder the decoder's start; the tokens with the end,
    and filling.

    Args:
        model: of transformers.
        batch: `input_ids` and `attention_mask` [rows, length of sources or prompts]; what `decoding.OF_ROWS`
            names, int64 [rows], where each row has its own; for sampling `decoding.DRAWN`.
        settings: arguments of transformers' `generate`, for all rows.

    Raises:
        InputError: for settings beside sampling that cannot be honoured.
        ValueError: if there are too few numbers for sampling.
    """
    sources = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if not model.config.is_encoder_decoder:
        return continued(model, sources, batch.get(decoding.DRAWN), settings)
    start, first = map(batch.get, decoding.OF_ROWS)
    if start is not None:
        settings = settings | {"decoder_start_token_id": start.tolist()}
    if first is not None:
        settings = settings | {"logits_processor": LogitsProcessorList([FirstTokens(first)])}
    return model.generate(**sources, **settings).tolist()


def continued(
    model: Any, prompts: dict[str, torch.Tensor], drawn: torch.Tensor | None, settings: dict[str, Any]
) -> list[list[int]]:
    """The tokens that follow prompts, whose padding may stand anywhere; see `generate`."""
    order = (prompts["attention_mask"] != 0).int().argsort(dim=1, stable=True)
    prompts = {name: values.gather(1, order) for name, values in prompts.items()}
    given = order.shape[1]
    if settings.get("do_sample", model.generation_config.do_sample):
        search = decoding.search_of(model.generation_config, prompts=True, **settings)
        numbers = torch.zeros(len(order), 0) if drawn is None else drawn
        search.require_numbers(numbers.shape[1])
        processors = LogitsProcessorList([Sampling(search, numbers, given)])
        settings = {name: value for name, value in settings.items() if name not in decoding.OF_SAMPLING}
        settings |= {"do_sample": False, "logits_processor": processors}
    return model.generate(**prompts, **settings)[:, given:].tolist()
