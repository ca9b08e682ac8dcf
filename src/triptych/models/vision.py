"""Classifiers of pictures: what their configurations say, what their parameters are at first, and positions
for pictures of another size."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from triptych.errors import InputError

logger = logging.getLogger(__name__)

HEAD = "ForImageClassification"
WITH_TEACHER = f"{HEAD}WithTeacher"  # of DeiT: a second head, which was trained to say what a teacher said
VITS = ("vit", "deit", "dinov2")
CONVNEXTS = ("convnext", "convnextv2")
RESNET, SWIN = "resnet", "swin"
MODEL_TYPES = (*VITS, *CONVNEXTS, RESNET, SWIN)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batches, which are not trained
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
    _refuse(config, problems)
    return settings


def _refuse(config: Any, problems: Sequence[str]) -> None:
    if problems:
        raise InputError([f"The configuration of the {config.model_type}: {problem}" for problem in problems])


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
        _refuse(config, ["num_stages, and the numbers of hidden_sizes and of depths differ."])
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
    _refuse(config, problems)
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
            f"A picture becomes {_shown(grid)} patches in a stage of the swin, smaller than its window of "
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


def require_size(picture: Sequence[int | None], channels: int, size: Size | None) -> None:
    """Raises InputError for pictures of another size than the model reads.

    Args:
        picture: channels, height and width.
        size: that positions are for; None if any is read.
    """
    wanted = (channels, *(size or picture[1:]))
    if picture[0] != channels:
        raise InputError(f"The model reads pictures of {channels} channels, and was given {_shown(picture)}.")
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
    tabled = config.model_type in VITS or getattr(config, "use_absolute_embeddings", False)
    if not (trained and tabled) or before == size(image_size):
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
    special = {"deit": 2, SWIN: 0}.get(config.model_type, 1)  # before the patches
    patches = table.shape[1] - special
    tall, wide = size(config.patch_size)
    after = size(config.image_size)[0] // tall, size(config.image_size)[1] // wide
    if patches != math.prod(before):
        raise InputError(
            f"The checkpoint has positions of {patches} patches, and its configuration says {_shown(before)}."
        )
    down, across = (resizing(*each) for each in zip(before, after, strict=True))
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
    if config.model_type == RESNET and (len(shape) > 1 or name.startswith("classifier")):
        return _initial_of_resnet(shape, config, generator)
    zero = ("bias", "mask_token", "distillation_token", "relative_position_bias_table", *STATISTICS)
    constants: dict[str, float] = dict.fromkeys(zero, 0.0) | {"running_var": 1.0}
    constants["lambda1"] = getattr(config, "layerscale_value", 1)
    constants["layer_scale_parameter"] = getattr(config, "layer_scale_init_value", 1)
    if config.model_type in ("deit", SWIN):
        constants |= {"cls_token": 0, "position_embeddings": 0}
    if part in constants or ".grn." in name:
        return np.full(shape, constants.get(part, 0), np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return config.initializer_range * generator.standard_normal(shape, dtype=np.float32)


def _initial_of_resnet(shape: Sequence[int], config: Any, generator: np.random.Generator) -> np.ndarray:
    """A convolution's kernel by its outputs (He et al. 2015, arXiv:1502.01852), the head as torch's
    `Linear`."""
    if len(shape) == 4:
        deviation = math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        return np.float32(deviation) * generator.standard_normal(shape, dtype=np.float32)
    bound = config.hidden_sizes[-1] ** -0.5
    return (bound * (2 * generator.random(shape) - 1)).astype(np.float32)
