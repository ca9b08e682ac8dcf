"""What a configuration of ResNet says, and what is said of its batch normalisation."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)


class Convolution(NamedTuple):
    """A convolution without biases, and what follows its norm.

    Attributes:
        size: of the kernel, as high as wide; the picture is padded by half of it.
        activation: by name, None for none.
    """

    inputs: int
    outputs: int
    size: int
    stride: int
    activation: str | None


class ResNetSettings(NamedTuple):
    """What a configuration of ResNet says.

    Attributes:
        layers: by name, of each its convolutions by name; "shortcut" is that of what the others are added to.
        activation: of the first convolution, and after each layer.
        width: of the last layer.
    """

    channels: int
    embedder: Convolution
    layers: Mapping[str, Mapping[str, Convolution]]
    activation: str
    width: int
    outputs: int


BATCH_NORM_EPSILON = 1e-5  # which no configuration says


def resnet_settings(config: Any) -> ResNetSettings:
    """Those of a configuration of transformers."""
    layers, inputs = {}, config.embedding_size
    for stage, (outputs, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
        for layer in range(depth):
            strides = layer == 0 and (stage > 0 or config.downsample_in_first_stage)
            name = f"encoder.stages.{stage}.layers.{layer}"
            layers[name] = _residual(config, inputs, outputs, 2 if strides else 1)
            inputs = outputs
    first = Convolution(config.num_channels, config.embedding_size, 7, 2, config.hidden_act)
    return ResNetSettings(config.num_channels, first, layers, config.hidden_act, inputs, config.num_labels)


def _residual(config: Any, inputs: int, outputs: int, stride: int) -> dict[str, Convolution]:
    """The convolutions of a layer. Those within have ReLU, whatever the configuration says of the others."""
    if config.layer_type == "bottleneck":
        inner = outputs // 4
        early, late = (stride, 1) if config.downsample_in_bottleneck else (1, stride)
        made = [Convolution(inputs, inner, 1, early, "relu"), Convolution(inner, inner, 3, late, "relu")]
        made.append(Convolution(inner, outputs, 1, 1, None))
    else:
        made = [Convolution(inputs, outputs, 3, stride, "relu"), Convolution(outputs, outputs, 3, 1, None)]
    shortcut = {"shortcut": Convolution(inputs, outputs, 1, stride, None)}
    within = {f"layer.{place}": each for place, each in enumerate(made)}
    return within | (shortcut if inputs != outputs or stride > 1 else {})


def announce_frozen_statistics(trained: bool) -> None:
    """Says that the statistics of batch normalisation stay what they are. Were they those of the batch, then
    accumulated gradients would not be those of a large batch, and a row's answer would depend on its
    neighbours.

    Args:
        trained: whether there is a checkpoint.
    """
    if trained:
        logger.warning("The statistics of batch normalisation stay those of the checkpoint in training.")
    else:
        logger.warning(
            "The statistics of batch normalisation stay 0 and 1 in training, so that it norms nothing: to "
            "train from scratch, a model without it learns better, such as a convnext."
        )
