"""ModernBERT: what its configuration says, and what its parameters are at first."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from triptych.models import decoders
from triptych.models.decoders import Rope
from triptych.models.encoders import OUTPUTS

MODEL_TYPE = "modernbert"


class LayerSettings(NamedTuple):
    """What differs from layer to layer.

    Attributes:
        window: how many places are seen to either side; None for all.
    """

    rope: Rope
    window: int | None


class ModernSettings(NamedTuple):
    """What a configuration of ModernBERT says.

    Attributes:
        attention_dropout: of its weights, and of what comes of it.
        pools_mean: whether a head for texts or choices reads the mean of all tokens, not the first.
    """

    width: int
    inner: int  # width between the dense layers
    layers: tuple[LayerSettings, ...]
    heads: int
    activation: str
    norm_epsilon: float
    norm_biases: bool
    attention_biases: bool
    dense_biases: bool
    embedding_dropout: float
    attention_dropout: float
    dense_dropout: float
    head_activation: str
    head_bias: bool
    head_dropout: float
    outputs: int  # of the head
    pools_mean: bool
    decoder_bias: bool


def settings(config: Any, head: str) -> ModernSettings:
    """Those of a configuration of transformers, with a head that is called as in transformers.

    Raises:
        InputError: which names every setting that no model here has.
    """
    decoders.refuse(config, _problems(config))
    sides = {decoders.SLIDING: config.local_attention // 2}
    each = zip(decoders.layer_types(config), decoders.rope_parameters(config), strict=True)
    layers = [LayerSettings(decoders.rope(config, rope), sides.get(kind)) for kind, rope in each]
    return ModernSettings(
        width=config.hidden_size,
        inner=config.intermediate_size,
        layers=tuple(layers[: config.num_hidden_layers]),
        heads=config.num_attention_heads,
        activation=config.hidden_activation,
        norm_epsilon=config.norm_eps,
        norm_biases=config.norm_bias,
        attention_biases=config.attention_bias,
        dense_biases=config.mlp_bias,
        embedding_dropout=config.embedding_dropout,
        attention_dropout=config.attention_dropout,
        dense_dropout=config.mlp_dropout,
        head_activation=config.classifier_activation,
        head_bias=config.classifier_bias,
        head_dropout=config.classifier_dropout,
        outputs=OUTPUTS.get(head, config.num_labels),
        pools_mean=config.classifier_pooling == "mean",
        decoder_bias=config.decoder_bias,
    )


def _problems(config: Any) -> list[str]:
    width, heads, layers = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    problems = decoders.layer_problems(config)
    if width % (2 * heads):
        problems.append(f"hidden_size={width} is no multiple of twice num_attention_heads={heads}.")
    if decoders.head_width(config) * heads != width:
        problems.append(f"head_dim={config.head_dim}: only hidden_size / num_attention_heads is supported.")
    if len(decoders.layer_types(config)) < layers:
        problems.append(f"layer_types: there are fewer than num_hidden_layers={layers}.")
    if config.classifier_pooling not in ("cls", "mean"):
        problems.append(f"classifier_pooling={config.classifier_pooling!r}: there are cls and mean.")
    return problems


def deviation(name: str, config: Any) -> float:
    """The standard deviation with which a matrix is drawn, before what is far out is drawn again. What is
    added to the residual is smaller, by the square root of how many such there are."""
    if name == "classifier.weight":
        return config.hidden_size**-0.5
    if name.endswith((".Wo.weight", "head.dense.weight")):
        return config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
    return config.initializer_range


def truncated_normal(generator: np.random.Generator, shape: Sequence[int], cutoff: float) -> np.ndarray:
    """float32 numbers of a normal distribution whose standard deviation is 1, none beyond the cutoff."""
    values = generator.standard_normal(shape, dtype=np.float32)
    while (beyond := np.abs(values) > cutoff).any():
        values[beyond] = generator.standard_normal(beyond.sum(), dtype=np.float32)
    return values
