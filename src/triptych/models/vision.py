"""Classifiers of pictures: what their configurations say, what their parameters are at first, and positions
for pictures of another size."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from triptych.errors import InputError

HEAD = "ForImageClassification"
WITH_TEACHER = f"{HEAD}WithTeacher"  # of DeiT: a second head, which was trained to say what a teacher said
VITS = ("vit", "deit", "dinov2")
MODEL_TYPES = VITS
POSITIONS = "embeddings.position_embeddings"  # how the names of tables of positions end

Size = tuple[int, int]  # height, width


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
    if problems:
        raise InputError([f"The configuration of the {config.model_type}: {problem}" for problem in problems])
    return settings


def size(setting: int | Sequence[int]) -> Size:
    """Height and width, which a configuration states as one number where they are the same."""
    height, width = (setting, setting) if isinstance(setting, int) else setting
    return height, width


def head(config: Any, name: str) -> str:
    """The head of the class with which transformers' `AutoModel` opens a classifier of pictures: DeiT has
    two, and the configuration says which. Other names are returned as they are."""
    teacher = (config.architectures or ("",))[0].endswith(WITH_TEACHER)
    return WITH_TEACHER if name == HEAD and config.model_type == "deit" and teacher else name


def settle_class(config: Any) -> None:
    """Has a configuration of a new DeiT name its class, without which transformers' `AutoModel` fails."""
    if config.model_type == "deit" and not config.architectures:
        config.architectures = [f"DeiT{HEAD}"]


def require_size(picture: Sequence[int | None], settings: ViTSettings) -> None:
    """Raises InputError for pictures of another size than the positions are for.

    Args:
        picture: channels, height and width.
    """
    wanted = (settings.channels, *(picture[1:] if settings.resizes else settings.picture))
    if tuple(picture) != wanted:
        raise InputError(
            f"The model reads pictures of {_shown(wanted)} (channels, height, width), and was given "
            f"{_shown(picture)}. Give --image_size to fit it to other sizes."
        )


def _shown(shape: Sequence[int | None]) -> str:
    return " x ".join(map(str, shape))


def set_image_size(config: Any, image_size: int | None, *, trained: bool) -> Size | None:
    """Has a configuration state the height and width of pictures that `--image_size` names, if it does.

    Args:
        trained: whether there is a checkpoint, whose table of positions must then be fitted. DINOv2 does that
            itself with each picture: its configuration keeps the size that the table is for.

    Returns:
        The grid of patches that the checkpoint's table is for, if it must be fitted.
    """
    if image_size is None or not hasattr(config, "image_size"):
        return None
    if config.model_type == "dinov2" and trained:
        return None
    before = size(config.image_size)
    config.image_size = image_size
    if not trained or config.model_type not in VITS or before == size(image_size):
        return None
    tall, wide = size(config.patch_size)
    return before[0] // tall, before[1] // wide


def fit_positions(table: np.ndarray, before: Size, config: Any) -> np.ndarray:
    """A table of positions, float32 [1, tokens + patches, width], for pictures of the size that the
    configuration states.

    Args:
        before: the grid that the table's patches form.

    Raises:
        InputError: if they form another.
    """
    settings = vit_settings(config)
    special, patches = len(settings.tokens), table.shape[1] - len(settings.tokens)
    if patches != math.prod(before):
        raise InputError(
            f"The checkpoint has positions of {patches} patches, and its configuration says {_shown(before)}."
        )
    down, across = (resizing(*each) for each in zip(before, settings.grid, strict=True))
    square = table[0, special:].astype(np.float32).reshape(*before, -1)
    fitted = np.einsum("ah,bw,hwc->abc", down, across, square).reshape(1, -1, table.shape[2])
    return np.concatenate((table[:, :special], fitted), axis=1).astype(np.float32)


def resizing(before: int, after: int) -> np.ndarray:
    """The matrix, float32 [after, before], that resizes a line of values: bicubic interpolation (Keys 1981,
    with a = -0.75) between the centres of places, the outermost repeated, as torch's `interpolate` does."""
    centres = (np.arange(after) + 0.5) * (before / after) - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((after, before))
    for offset in range(-1, 3):
        places = np.clip(first + offset, 0, before - 1)
        np.add.at(matrix, (np.arange(after), places), _cubic(np.abs(first + offset - centres)))
    return matrix.astype(np.float32)


def _cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * a * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def is_fixed(name: str) -> bool:
    """Whether a parameter is not trained, because no classifier reads it."""
    return name.endswith("embeddings.mask_token")


def initial(name: str, shape: Sequence[int], config: Any, generator: np.random.Generator) -> np.ndarray:
    """What a parameter is before any training, float32, by transformers' distributions."""
    part = name.rpartition(".")[2]
    constants = {"bias": 0, "mask_token": 0, "lambda1": getattr(config, "layerscale_value", None)}
    if config.model_type == "deit":
        constants |= dict.fromkeys(("cls_token", "distillation_token", "position_embeddings"), 0)
    if part in constants:
        return np.full(shape, constants[part], np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return config.initializer_range * generator.standard_normal(shape, dtype=np.float32)
