"""What the configurations of ConvNeXt and ConvNeXt V2 say."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from triptych.models.vision import Size, refuse, size


class ConvNextSettings(NamedTuple):
    """What the configurations of ConvNeXt and ConvNeXt V2 say.

    Attributes:
        widths: of the stages.
        layers: by name, of each its stage and the rate at which a row goes past it.
        scaled: whether what a layer adds is multiplied by a parameter, as in the first version.
        response_norm: whether the responses of each channel are normed, as in the second.
    """

    base: str
    channels: int
    patch: Size
    widths: tuple[int, ...]
    layers: Mapping[str, tuple[int, float]]
    activation: str
    norm_epsilon: float  # of the last norm
    scaled: bool
    response_norm: bool
    outputs: int


CONVNEXT_EPSILON = 1e-6  # of all norms but the last, which no configuration says


def convnext_settings(config: Any) -> ConvNextSettings:
    """Those of a configuration of transformers.

    Raises:
        InputError: if it has not a width and a depth for each stage.
    """
    stages = {len(config.hidden_sizes), len(config.depths), config.num_stages}
    if len(stages) > 1:
        refuse(config, ["num_stages, and the numbers of hidden_sizes and of depths differ."])
    numbered = [(stage, layer) for stage, depth in enumerate(config.depths) for layer in range(depth)]
    last = max(1, len(numbered) - 1)
    return ConvNextSettings(
        base=config.model_type,
        channels=config.num_channels,
        patch=size(config.patch_size),
        widths=tuple(config.hidden_sizes),
        layers={
            f"encoder.stages.{stage}.layers.{layer}": (stage, config.drop_path_rate * place / last)
            for place, (stage, layer) in enumerate(numbered)
        },
        activation=config.hidden_act,
        norm_epsilon=config.layer_norm_eps,
        scaled=getattr(config, "layer_scale_init_value", 0) > 0,
        response_norm=config.model_type == "convnextv2",
        outputs=config.num_labels,
    )
