"""Classifiers of pictures: their heads, sizes of pictures, positions for pictures of another size, and what
parameters are at first. What the configurations of a family say: `vit`, `convnext`, `resnet`, `swin`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych.errors import InputError

HEAD = "ForImageClassification"
WITH_TEACHER = f"{HEAD}WithTeacher"  # of DeiT: a second head, which was trained to say what a teacher said
VITS = ("vit", "deit", "dinov2")
CONVNEXTS = ("convnext", "convnextv2")
RESNET, SWIN = "resnet", "swin"
MODEL_TYPES = (*VITS, *CONVNEXTS, RESNET, SWIN)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batches, which are not trained
POSITIONS = "embeddings.position_embeddings"  # how the names of tables of positions end

Size = tuple[int, int]  # height, width


def refuse(config: Any, problems: Sequence[str]) -> None:
    """Raises InputError for a configuration, if there are problems."""
    if problems:
        raise InputError([f"The configuration of the {config.model_type}: {problem}" for problem in problems])


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
        raise InputError(f"The model reads pictures of {channels} channels, and was given {shown(picture)}.")
    if tuple(picture) != wanted:
        raise InputError(
            f"The model reads pictures of {shown(wanted)} (channels, height, width), and was given "
            f"{shown(picture)}. Give --image_size to fit it to other sizes."
        )


def shown(shape: Sequence[int | None]) -> str:
    """Numbers as people write sizes: 3 x 224 x 224."""
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
            f"The checkpoint has positions of {patches} patches, and its configuration says {shown(before)}."
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
