"""What a configuration of Swin says, and its windows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from triptych.errors import InputError
from triptych.models.vision import Size, refuse, shown, size
from triptych.models.vit import VIT_NAMES


class SwinLayer(NamedTuple):
    """What differs from layer to layer of a Swin.

    Attributes:
        shifted: whether its windows are moved by half of their size.
        path_dropout: the rate at which a row goes past the attention.
    """

    width: int
    heads: int
    shifted: bool
    path_dropout: float


class SwinSettings(NamedTuple):
    """What a configuration of Swin says.

    Attributes:
        stages: by name, the layers of each by name; between two the picture is halved.
        window: the height and width in which places attend to one another.
        positions: whether there is a table of positions beside the distances in a window.
    """

    channels: int
    patch: Size
    picture: Size
    width: int  # of the patches
    stages: Mapping[str, Mapping[str, SwinLayer]]
    window: int
    ratio: float  # of the width between the two dense layers to that of the layer
    activation: str
    norm_epsilon: float
    biases: bool  # of queries, keys and values
    dropout: float
    attention_dropout: float
    positions: bool
    outputs: int

    @property
    def grid(self) -> Size:
        """How many patches a table of positions has one below the other, and side by side."""
        return self.picture[0] // self.patch[0], self.picture[1] // self.patch[1]

    @property
    def last_width(self) -> int:
        return self.width * 2 ** (len(self.stages) - 1)


SWIN_EPSILON = 1e-5  # of the norms of patches and between stages, which no configuration says
SWIN_NAMES = {
    **{part: f"attention.self.{part}" for part in ("query", "key", "value")},
    "distances": "attention.self.relative_position_bias_table",
    **{part: VIT_NAMES[part] for part in ("attended", "first_norm", "second_norm", "inner", "outer")},
}


def swin_settings(config: Any) -> SwinSettings:
    """Those of a configuration of transformers.

    Raises:
        InputError: if the widths of heads are no whole numbers.
    """
    total, place, stages, problems = max(1, sum(config.depths) - 1), 0, {}, []
    for stage, (depth, heads) in enumerate(zip(config.depths, config.num_heads, strict=True)):
        width = config.embed_dim * 2**stage
        if width % heads:
            problems.append(f"the width {width} of a stage is no multiple of its num_heads={heads}.")
        layers = {}
        for layer in range(depth):
            rate = config.drop_path_rate * place / total
            layers[f"blocks.{layer}"] = SwinLayer(width, heads, layer % 2 == 1, rate)
            place += 1
        stages[f"encoder.layers.{stage}"] = layers
    refuse(config, problems)
    return SwinSettings(
        channels=config.num_channels,
        patch=size(config.patch_size),
        picture=size(config.image_size),
        width=config.embed_dim,
        stages=stages,
        window=config.window_size,
        ratio=config.mlp_ratio,
        activation=config.hidden_act,
        norm_epsilon=config.layer_norm_eps,
        biases=config.qkv_bias,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        positions=config.use_absolute_embeddings,
        outputs=config.num_labels,
    )


class Windows(NamedTuple):
    """How a picture of patches is cut into windows.

    Attributes:
        padded: the height and width that windows divide.
        shift: by how much it is rolled up and to the left before.
        bias: what attention adds to its scores, float32 [windows, places, places], so that places that were
            not neighbours before do not see one another; None where all were.
    """

    padded: Size
    shift: int
    bias: np.ndarray | None


def windows(grid: Size, window: int, shifted: bool) -> Windows:
    """See `Windows`. A picture as high or as wide as a window is not shifted.

    Raises:
        InputError: for one that is smaller: the table of distances is not for it.
    """
    if min(grid) < window:
        raise InputError(
            f"A picture becomes {shown(grid)} patches in a stage of the swin, smaller than its window of "
            f"{window} x {window}. Give a larger --image_size."
        )
    shift = window // 2 if shifted and min(grid) > window else 0
    down, across = (-(-side // window) * window for side in grid)
    if not shift:
        return Windows((down, across), 0, None)
    regions = [
        (np.arange(side) >= side - window).astype(int) + (np.arange(side) >= side - shift)
        for side in (down, across)
    ]
    numbers = (regions[0][:, None] * 3 + regions[1]).reshape(down // window, window, across // window, window)
    numbers = numbers.swapaxes(1, 2).reshape(-1, window**2)
    apart = numbers[:, None, :] != numbers[:, :, None]
    return Windows((down, across), shift, np.where(apart, np.float32(-100), np.float32(0)))


def distances(window: int) -> np.ndarray:
    """The row of the table of distances for each two places of a window, int [places * places]."""
    places = np.stack(np.meshgrid(*2 * [np.arange(window)], indexing="ij")).reshape(2, -1)
    down, across = places[:, :, None] - places[:, None, :] + window - 1
    return (down * (2 * window - 1) + across).ravel()
