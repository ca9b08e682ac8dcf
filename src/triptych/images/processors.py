"""What a checkpoint does to pictures before it sees them, as its `preprocessor_config.json` says it.

Size, crop and normalising are computed as the image processors of transformers compute them with Pillow
(their other backends give other pixels), but by a table of 256 values, four times as fast.
"""

import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from triptych.errors import InputError
from triptych.images.decoding import Size
from triptych.models import vision

logger = logging.getLogger(__name__)

FILE = "preprocessor_config.json"
STANDARD: dict[str, Any] = {"do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
STANDARD |= {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": False}
CLIP: dict[str, Any] = {"image_mean": [0.48145466, 0.4578275, 0.40821073]}
CLIP |= {"image_std": [0.26862954, 0.26130258, 0.27577711]}
CUBIC: dict[str, Any] = {"resample": 3}
SQUARE, SHORTEST = {"height": 224, "width": 224}, {"shortest_edge": 224}
# The image processors of transformers that are known here, and what a file of theirs need not say
KNOWN: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {"size": SQUARE},
    "DeiTImageProcessor": {**CUBIC, "size": {"height": 256, "width": 256}, "do_center_crop": True},
    "BeitImageProcessor": {**CUBIC, "size": SQUARE},
    "SiglipImageProcessor": {**CUBIC, "size": SQUARE},
    "BitImageProcessor": {**CUBIC, **CLIP, "size": SHORTEST, "do_center_crop": True},
    "CLIPImageProcessor": {**CUBIC, **CLIP, "size": SHORTEST, "do_center_crop": True},
    "ConvNextImageProcessor": {**CUBIC, "size": {"shortest_edge": 384}, "crop_pct": 0.875},
}
SIZES = ({"height", "width"}, {"shortest_edge"})
OF_ONE_SIZE = ("vit", "deit", "beit")  # models with a table of positions that they do not fit themselves
WITHOUT = 224  # height and width of pictures for models from scratch that are for no size
WHOLE = 384  # from this size on ConvNeXT's pictures are not cropped
# Settings of other processors that change pixels, and values of them that do not
HARMLESS = {
    "do_pad": False,
    "do_flip_channel_order": False,
    "do_thumbnail": False,
    "do_align_long_axis": False,
}
HARMLESS |= {"do_reduce_labels": False, "rescale_offset": False, "do_color_quantize": False}


class Processor:
    """How pictures become arrays.

    Attributes:
        settings: what the file says, with all that it need not say.
    """

    def __init__(self, settings: dict[str, Any], source: str = "the settings"):
        name = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
        kind = name.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
        foreign = [key for key, value in HARMLESS.items() if settings.get(key, value) not in (value, None)]
        if kind not in KNOWN or foreign:
            what = f"does {', '.join(foreign)}" if foreign else f"is a {name or 'processor without a name'}"
            raise InputError(
                f"The image processor of {source} {what}, which is not known here. Known are "
                f"{', '.join(KNOWN)}: --image_processor_name takes that of another model."
            )
        given = {key: value for key, value in settings.items() if value is not None}
        self.settings = {
            **STANDARD,
            "crop_size": SQUARE,
            **KNOWN[kind],
            **given,
            "image_processor_type": kind,
        }
        self.settings.pop("feature_extractor_type", None)
        square = set(KNOWN[kind]["size"]) == {"height", "width"}
        for key, is_square in (("size", square), ("crop_size", True)):
            if isinstance(value := self.settings[key], int):  # as files of the first releases have it
                self.settings[key] = (
                    {"height": value, "width": value} if is_square else {"shortest_edge": value}
                )
        if self.output_size is None or set(self.settings["size"]) not in SIZES:
            raise InputError(
                f"The image processor of {source} leaves pictures of different shapes, of which no batch can "
                f"be made: its size is {self.settings['size']}."
            )

    @property
    def _edge(self) -> int | None:
        """Of ConvNeXT's processor the size of what it gives, whose own way to it has no other settings."""
        return self.settings["size"].get("shortest_edge") if "crop_pct" in self.settings else None

    @property
    def output_size(self) -> Size:
        """Height and width of every picture that the model sees."""
        settings = self.settings
        if settings["do_center_crop"]:
            return settings["crop_size"]["height"], settings["crop_size"]["width"]
        if settings["do_resize"] and self._edge:
            return self._edge, self._edge
        size = settings["size"]
        is_fixed = settings["do_resize"] and "height" in size
        return (size["height"], size["width"]) if is_fixed else None  # type: ignore[return-value]

    def resized_to(self, size: int) -> "Processor":
        """Another, that gives squares of `size` pixels of the same parts of pictures."""
        settings = dict(self.settings)
        before = min(self.output_size)
        settings["size"] = {name: round(value * size / before) for name, value in settings["size"].items()}
        if "height" in settings["size"] and not settings["do_center_crop"]:
            settings["size"] = {"height": size, "width": size}
        settings["crop_size"] = {"height": size, "width": size}
        return Processor(settings)

    @cached_property
    def table(self) -> np.ndarray:
        """What becomes of each value of each channel, float32 (3, 256)."""
        settings, values = self.settings, np.tile(np.arange(256, dtype=np.float64), (3, 1))
        if settings["do_rescale"]:
            values = values * settings["rescale_factor"]
        values = values.astype(np.float32)
        if settings["do_normalize"]:
            mean, std = (
                np.broadcast_to(np.array(settings[name], np.float32), 3)[:, None]
                for name in ("image_mean", "image_std")
            )
            values = (values - mean) / std
        return values

    def fitted(self, picture: np.ndarray) -> np.ndarray:
        """A picture (height, width, 3) resized and cropped to `output_size`, all uint8."""
        settings, image = self.settings, Image.fromarray(picture)
        if settings["do_resize"]:
            image = self.resize(image, self._size_for(image.height, image.width))
        if settings["do_center_crop"] or (self._edge and settings["do_resize"] and self._edge < WHOLE):
            return centre(np.asarray(image), self.output_size)
        return np.asarray(image)

    def _size_for(self, height: int, width: int) -> Size:
        size = self.settings["size"]
        if "height" in size:
            return size["height"], size["width"]
        edge = size["shortest_edge"]
        if self._edge:
            if edge >= WHOLE:
                return edge, edge
            edge = int(edge / self.settings["crop_pct"])
        short, long = sorted((height, width))
        longer = int(edge * long / short)
        return (edge, longer) if height < width else (longer, edge)

    def resize(self, image: Image.Image, size: Size) -> Image.Image:
        """To height and width, by the filter that the settings name."""
        return image.resize(size[::-1], Image.Resampling(self.settings["resample"]))

    def normalised(self, picture: np.ndarray, out: np.ndarray) -> None:
        """Puts a fitted picture, uint8 (height, width, 3), into `out`, float32 (3, height, width), as models
        see it."""
        for channel in range(3):
            np.take(self.table[channel], picture[..., channel], out=out[channel], mode="clip")

    def save_pretrained(self, folder: str | Path, **unused: Any) -> None:
        """Writes `preprocessor_config.json`, from which transformers makes the same processor."""
        text = json.dumps(self.settings, indent=2, sort_keys=True) + "\n"
        Path(folder, FILE).write_text(text, encoding="utf-8")


def centre(picture: np.ndarray, size: Size) -> np.ndarray:
    """The middle of a picture (height, width, 3), or with black around it where it is smaller."""
    for axis, wanted in enumerate(size):
        own = picture.shape[axis]
        if own >= wanted:
            begin = (own - wanted) // 2
            picture = picture[begin : begin + wanted] if axis == 0 else picture[:, begin : begin + wanted]
        else:
            before = -((own - wanted) // 2)
            missing = [(0, 0)] * 3
            missing[axis] = (before, wanted - own - before)
            picture = np.pad(picture, missing)
    return picture


def load(model_args: Any, data_args: Any, config: Any) -> Processor:
    """The image processor of the run: that of the checkpoint, or of `--image_processor_name`; a model from
    scratch without one gets ViT's, for the size that its configuration says. With `--image_size` it gives
    pictures of that size.

    Args:
        config: of the model.

    Raises:
        InputError: if it cannot be had, is of a kind that is not known here, or does not go with the model.
    """
    name = model_args.image_processor_name or model_args.model_name_or_path
    reads: Size = vision.size(getattr(config, "image_size", None) or WITHOUT)
    if name is None:
        size = dict(zip(("height", "width"), reads, strict=True))
        processor = Processor({"image_processor_type": "ViTImageProcessor", "size": size})
    else:
        processor = Processor(_settings(name, model_args), name)
    if (channels := getattr(config, "num_channels", 3)) != 3:
        raise InputError(
            f"The model reads pictures of {channels} channels; only those of three are made here."
        )
    if data_args.image_size is not None:
        return processor.resized_to(data_args.image_size)
    if config.model_type in OF_ONE_SIZE and processor.output_size != reads:
        given, read = (" x ".join(map(str, pair)) for pair in (processor.output_size, reads))
        raise InputError(
            f"The image processor gives pictures of {given}, and the model reads those of {read}: give "
            f"--image_size {reads[0]}, or another size to fit the model's positions to it."
        )
    return processor


def _settings(name: str, model_args: Any) -> dict[str, Any]:
    path = Path(name, FILE)
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        place = {"revision": model_args.model_revision, "cache_dir": model_args.cache_dir}
        try:
            path = Path(hf_hub_download(name, FILE, **place))
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"The image processor of {name} cannot be had from the hub. Give a local folder, or fetch it "
                f"once while online and set HF_HUB_OFFLINE=1. ({reason})"
            ) from error
    if not path.is_file():
        raise InputError(
            f"{name} holds no {FILE}, which says what the model does to pictures: --image_processor_name "
            "takes that of another folder."
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return settings if isinstance(settings, dict) else {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
