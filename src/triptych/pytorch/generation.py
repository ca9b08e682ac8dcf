"""Answers of models by `generate` of transformers, each row perhaps from a beginning of its own."""

import math
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from triptych.models import decoding


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


def generate(model: Any, batch: dict[str, torch.Tensor], settings: dict[str, Any]) -> list[list[int]]:
    """Token ids for each row of a batch: the decoder's start, the tokens with the end, and filling.

    Args:
        model: of transformers.
        batch: `input_ids` and `attention_mask` [rows, source length], and what `decoding.OF_ROWS` names,
            int64 [rows], where each row has its own.
        settings: arguments of transformers' `generate`, for all rows.
    """
    sources = {name: batch[name] for name in ("input_ids", "attention_mask")}
    start, first = map(batch.get, decoding.OF_ROWS)
    if start is not None:
        settings = settings | {"decoder_start_token_id": start.tolist()}
    if first is not None:
        settings = settings | {"logits_processor": LogitsProcessorList([FirstTokens(first)])}
    return model.generate(**sources, **settings).tolist()
