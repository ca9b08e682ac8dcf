"""Parameters that are new: of a decoder from scratch; of a classifier, or of its head where a checkpoint has
another one or none.

What is new is drawn from its name and the seed alone, so that it is the same in every framework.
"""

import logging
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triptych.errors import InputError
from triptych.models import deberta, decoders, encoders, modernbert, tensor_files, vision

logger = logging.getLogger(__name__)

BERTS = ("bert", "roberta", "xlm-roberta", "distilbert", "electra")
# What files hold of an encoder that a classifier may not read, by how the names end; the last, where a
# DeBERTa has distances alone
UNREAD = (
    *("embeddings.position_ids", "embeddings.mask_token", "relative_position_index"),
    "embeddings.position_embeddings.weight",
)
ENCODERS = (*BERTS, modernbert.MODEL_TYPE, deberta.MODEL_TYPE)
ALL = (*ENCODERS, *decoders.MODEL_TYPES, *vision.MODEL_TYPES)  # of which `initial` gives every parameter

Mismatch = tuple[str, Sequence[int], Sequence[int]]  # name, shape in the checkpoint, shape in the model


def complete(
    folder: Path | None,
    shapes: Mapping[str, tuple[int, ...]],
    config: Any,
    seed: int,
    ignore_mismatched_sizes: bool = False,
    grid: vision.Size | None = None,
) -> dict[str, np.ndarray]:
    """The tensors of a classifier: of a checkpoint with its head, with another one, or with none; or all new.

    Files of the model within, whose names lack its prefix, are read as well. What a classifier has no use
    for, as the head of a language model, is left out; surplus parameters of the encoder are not.

    Args:
        folder: see `tensor_files.read_model`; None for a model from scratch.
        shapes: of each parameter of the model, under Hugging Face's name and in PyTorch's layout.
        config: of transformers, of one of ENCODERS or `vision.MODEL_TYPES`; for a model from scratch of one
            of ALL.
        grid: of the patches whose positions the checkpoint has, if they must be fitted to the configuration.

    Raises:
        InputError: see `new_parameters`.
    """
    if folder is None:
        return {name: initial(name, shape, config, seed) for name, shape in shapes.items()}
    base, tensors = encoders.base(config), {}
    stored = tensor_files.read_model(folder)
    bare = not any(name.startswith(f"{base}.") for name in stored)
    for name, value in stored.items():
        # Names of the first releases, which the best-known BERT still has
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        tensors[f"{base}.{name}" if bare else name] = value
    for name in shapes.keys() - tensors.keys():
        # The bias of a head for hidden tokens has two names, of which old files may have the other alone
        other = name.removesuffix("bias") + "decoder.bias"
        if other in tensors:
            tensors[name] = tensors[other]
    positions = f"{base}.{vision.POSITIONS}"
    if grid and positions in tensors:
        tensors[positions] = vision.fit_positions(tensors[positions], grid, config)
    differing = [
        (name, tensors[name].shape, shape)
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    new = new_parameters(shapes.keys() - tensors.keys(), differing, base, ignore_mismatched_sizes)
    unused = {name for name in tensors.keys() - shapes.keys() if of_head(name, base) or name.endswith(UNREAD)}
    if unused:
        logger.info("Not used of the checkpoint: %s.", ", ".join(sorted(unused)))
    tensors |= {name: initial(name, shapes[name], config, seed) for name in new}
    return {name: value for name, value in tensors.items() if name not in unused}


def of_head(name: str, base: str) -> bool:
    """Whether a parameter is outside the encoder with the prefix `base`. The pooler is: models of language
    and heads that read every token are without it."""
    return not name.startswith(f"{base}.") or name.startswith(f"{base}.pooler.")


def new_parameters(
    missing: Iterable[str],
    differing: Iterable[Mismatch],
    base: str | None,
    ignore_mismatched_sizes: bool = False,
) -> list[str]:
    """Which parameters must start anew; the log says so.

    Args:
        missing: names of those that the checkpoint lacks.
        differing: those that have other shapes there.
        base: the prefix of the encoder; None for a model whose head may not be new.
        ignore_mismatched_sizes: whether a head of another shape is replaced.

    Raises:
        InputError: for parameters of the encoder, and for a head of another shape unless that is ignored.
    """
    new: list[str] = []
    lacking: list[str] = []
    problems: list[str] = []
    for name in sorted(missing):
        (new if base and of_head(name, base) else lacking).append(name)
    if lacking:
        more = f" and {len(lacking) - 5} others" if len(lacking) > 5 else ""
        problems.append(f"The checkpoint has no weights for {', '.join(lacking[:5])}{more}.")
    if new:
        logger.warning("Not in the checkpoint, so new and to be trained: %s.", ", ".join(new))
    for name, stored, wanted in sorted(differing):
        found = f"{name} has shape {list(stored)} in the checkpoint and {list(wanted)} in the model"
        if not base or not of_head(name, base):
            problems.append(f"{found}.")
        elif ignore_mismatched_sizes:
            logger.warning("%s: it starts anew.", found)
            new.append(name)
        else:
            problems.append(
                f"{found}: the number of labels differs. Give --ignore_mismatched_sizes for a new head."
            )
    if problems:
        raise InputError(problems)
    return new


def initial(name: str, shape: Sequence[int], config: Any, seed: int) -> np.ndarray:
    """What a parameter is before any training, float32, by transformers' distributions: biases 0, scales of
    norms 1, else normal with the standard deviation `initializer_range`, and 0 for the padding token. What
    GPT-2's layers add to the residual is smaller, by the square root of how many such there are. ModernBERT's
    are cut off, and have deviations of their own. Of classifiers of pictures see `vision.initial`."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if config.model_type in vision.MODEL_TYPES:
        return vision.initial(name, shape, config, generator)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.full(shape, 1 - decoders.kind(config).norm_offset, np.float32)
    positions = name.endswith("position_embeddings.weight")
    if positions and getattr(config, "sinusoidal_pos_embds", False):
        return sinusoids(*shape)
    if config.model_type == modernbert.MODEL_TYPE:
        cutoff = config.initializer_cutoff_factor or 3
        return modernbert.deviation(name, config) * modernbert.truncated_normal(generator, shape, cutoff)
    deviation = config.initializer_range
    if config.model_type == decoders.GPT2 and name.endswith("c_proj.weight"):
        deviation /= math.sqrt(2 * config.num_hidden_layers)
    values = deviation * generator.standard_normal(shape, dtype=np.float32)
    padded = name.endswith(("word_embeddings.weight", "embed_tokens.weight"))
    padded |= positions and encoders.counts_from_padding(config)
    if padded and config.pad_token_id is not None:
        values[config.pad_token_id] = 0
    return values


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Positions as sines and cosines (Vaswani et al. 2017, arXiv:1706.03762), in turn."""
    angles = np.arange(positions)[:, None] / 10000 ** (np.arange(width) // 2 * 2 / width)
    return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)
