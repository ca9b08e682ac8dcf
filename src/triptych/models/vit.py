"""What the configurations of ViT, DeiT and DINOv2 say."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from triptych.models.vision import Size, refuse, size


class ViTSettings(NamedTuple):
    """What the configurations of ViT, DeiT and DINOv2 say.

    Attributes:
        inner: width between the two dense layers.
        gated: whether the first of these has twice as many outputs, which gate each other.
        scaled: whether what a layer adds is multiplied by a parameter.
        path_dropout: the rate at which a row goes past a part of a layer.
        names: of a layer's parts in files.
        tokens: those before the patches, by name.
        resizes: whether the model itself fits its positions to the size of pictures.
        masks: whether the file has a token for patches that are hidden, which no classifier reads.
        averages: whether the head reads the mean of all patches beside the first token.
    """

    base: str
    width: int
    inner: int
    layers: int
    heads: int
    activation: str
    gated: bool
    scaled: bool
    norm_epsilon: float
    biases: bool  # of queries, keys and values
    dropout: float
    attention_dropout: float
    path_dropout: float
    channels: int
    patch: Size
    picture: Size
    names: Mapping[str, str]
    tokens: tuple[str, ...]
    resizes: bool
    masks: bool
    averages: bool
    outputs: int

    @property
    def grid(self) -> Size:
        """How many patches the table of positions has one below the other, and side by side."""
        return self.picture[0] // self.patch[0], self.picture[1] // self.patch[1]


ATTENTION_NAMES = {
    **{part: f"attention.attention.{part}" for part in ("query", "key", "value")},
    "attended": "attention.output.dense",
}
VIT_NAMES = ATTENTION_NAMES | {
    "first_norm": "layernorm_before",
    "second_norm": "layernorm_after",
    "inner": "intermediate.dense",
    "outer": "output.dense",
}
DINO_NAMES = ATTENTION_NAMES | {
    "first_norm": "norm1",
    "second_norm": "norm2",
    "inner": "mlp.fc1",
    "outer": "mlp.fc2",
    "first_scale": "layer_scale1.lambda1",
    "second_scale": "layer_scale2.lambda1",
}


def vit_settings(config: Any) -> ViTSettings:
    """Those of a configuration of transformers.

    Raises:
        InputError: if widths do not fit each other, or a picture is smaller than a patch.
    """
    dino = config.model_type == "dinov2"
    names, inner = VIT_NAMES, getattr(config, "intermediate_size", 0)
    gated = dino and config.use_swiglu_ffn
    if dino:
        names, inner = DINO_NAMES, int(config.hidden_size * config.mlp_ratio)
    if gated:
        names = names | {"inner": "mlp.weights_in", "outer": "mlp.weights_out"}
        inner = (int(inner * 2 / 3) + 7) // 8 * 8
    settings = ViTSettings(
        base=config.model_type,
        width=config.hidden_size,
        inner=inner,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        activation="silu" if gated else config.hidden_act,
        gated=gated,
        scaled=dino,
        norm_epsilon=config.layer_norm_eps,
        biases=config.qkv_bias,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        path_dropout=getattr(config, "drop_path_rate", 0.0),
        channels=config.num_channels,
        patch=size(config.patch_size),
        picture=size(config.image_size),
        names=names,
        tokens=("cls_token", "distillation_token") if config.model_type == "deit" else ("cls_token",),
        resizes=dino,
        masks=dino and config.use_mask_token,
        averages=dino,
        outputs=config.num_labels,
    )
    problems = []
    if settings.width % settings.heads:
        problems.append(
            f"hidden_size={settings.width} is no multiple of num_attention_heads={settings.heads}."
        )
    if not math.prod(settings.grid):
        problems.append(
            f"image_size={config.image_size} has no room for a patch of patch_size={config.patch_size}."
        )
    refuse(config, problems)
    return settings
