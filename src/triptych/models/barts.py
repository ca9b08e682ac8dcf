"""BART and its kin: what differs between the architectures, and their fixed positions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from triptych.errors import InputError


class Kind(NamedTuple):
    """What sets one of BART's kin apart from the others."""

    norm_first: bool = False  # before each part of a layer instead of after it, and once more behind the last
    embedding_norm: bool = False  # before the first layer
    sinusoids: bool = False  # positions that are computed, not learnt
    # Positions are counted without padding, the first is 1 more than the number of the padding token, and
    # there is one for every place, whatever `max_position_embeddings` says.
    from_padding: bool = False
    positions_in_file: bool = True
    logits_bias: bool = True


SIDES = ("encoder", "decoder")
KINDS = {
    "bart": Kind(embedding_norm=True),
    "mbart": Kind(embedding_norm=True, norm_first=True),
    "marian": Kind(sinusoids=True, positions_in_file=False),
    "pegasus": Kind(sinusoids=True, norm_first=True),
    "m2m_100": Kind(
        sinusoids=True, from_padding=True, norm_first=True, positions_in_file=False, logits_bias=False
    ),
}
# Tensors of old files that no model reads
UNUSED = [f"model.{side}.{name}" for side in SIDES for name in ("version", "embed_positions.weights")]
LEARNT_OFFSET = 2  # tables of learnt positions begin with two rows that are never read


def require_shared_vocabulary(config: Any) -> None:
    """Raises InputError for a Marian whose sources and targets have tables of their own."""
    if not getattr(config, "share_encoder_decoder_embeddings", True):
        raise InputError(
            "The configuration has share_encoder_decoder_embeddings=false, a table of tokens for each side, "
            "which only the form in PyTorch can run. Use that one, or a model with one vocabulary."
        )


def kind(config: Any) -> Kind:
    """What sets the architecture of a configuration apart; what is none of BART's kin has no such thing."""
    return KINDS.get(config.model_type, Kind())


def frequencies(width: int, from_padding: bool) -> np.ndarray:
    """The frequencies [width / 2] of fixed positions.

    Those of Marian and Pegasus are as in Vaswani et al. 2017, arXiv:1706.03762, float64. The last one of
    M2M100, which counts from its padding, is 1/10000; they are float32, as transformers computes them.
    """
    half = width // 2
    if not from_padding:
        return 10000.0 ** (-np.arange(half) / half)
    return np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(10000) / (half - 1)))


def sinusoids(places: int, width: int, from_padding: bool) -> np.ndarray:
    """Fixed positions, float32 [places, width]: the sines in the first half, the cosines in the second."""
    steps = frequencies(width, from_padding)
    angles = np.arange(places, dtype=steps.dtype)[:, None] * steps
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def settled(tensors: Mapping[str, np.ndarray], config: Any, positions: int | None = None) -> dict[str, Any]:
    """The tensors of a file, of T5 or of one of BART's kin, as its model has them: without those that it does
    not read, and with those that a file may lack.

    Args:
        positions: how many a table of them is to have (default: as many as it has).
    """
    known, bias = KINDS.get(config.model_type), "final_logits_bias"
    if known is None:
        return dict(tensors)
    if not any(name.startswith("model.") for name in tensors):  # saved without the head
        heads = ("lm_head.weight", bias)
        tensors = {name if name in heads else f"model.{name}": value for name, value in tensors.items()}
    found = {name: value for name, value in tensors.items() if name not in UNUSED}
    if known.logits_bias:
        found.setdefault(bias, np.zeros((1, config.vocab_size), np.float32))
    for name in (f"model.{side}.embed_positions.weight" for side in SIDES):
        if not known.positions_in_file:
            found.pop(name, None)
        elif known.sinusoids and (positions or name not in found):
            rows = positions or config.max_position_embeddings
            found[name] = sinusoids(rows, config.d_model, known.from_padding)
        elif positions and name in found:
            found[name] = longer_positions(found[name], positions)
    return found


def longer_positions(table: np.ndarray, wanted: int, offset: int = LEARNT_OFFSET) -> np.ndarray:
    """A table (offset + positions, width) made to have `wanted` positions by repeating its own."""
    repeated = np.resize(table[offset:], (wanted, table.shape[1]))
    return np.concatenate([table[:offset], repeated])
