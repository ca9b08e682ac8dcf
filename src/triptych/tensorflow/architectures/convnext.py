"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545) and ConvNeXt V2 (Woo et al. 2023, arXiv:2301.00808) as
classifiers of pictures."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from triptych.models import convnext, vision
from triptych.models.convnext import CONVNEXT_EPSILON, ConvNextSettings
from triptych.tensorflow.architectures.layers import activation
from triptych.tensorflow.architectures.pictures import (
    ImageClassifier,
    Patches,
    dense,
    make_head,
    norm_of,
    path_dropout,
)


class ResponseNorm(keras.layers.Layer):
    """Each channel's response to the whole picture, by the mean of all channels."""

    def __init__(self, width: int):
        super().__init__(dtype="float32", name="response_norm")
        self.parts = {
            name: self.add_weight(shape=(1, 1, 1, width), name=name, dtype="float32")
            for name in ("weight", "bias")
        }
        self.built = True

    def call(self, hidden):
        squares = tf.reduce_sum(tf.square(hidden), axis=(1, 2), keepdims=True)
        # Where a channel is 0 everywhere, the square root has no gradient.
        responses = tf.where(squares > 0, tf.sqrt(tf.where(squares > 0, squares, 1)), 0)
        normed = responses / (tf.reduce_mean(responses, axis=-1, keepdims=True) + 1e-6)
        return self.parts["weight"] * (hidden * normed) + self.parts["bias"] + hidden


class Layer(keras.layers.Layer):
    """Each channel convolved by itself, and a dense part, added to what was read."""

    def __init__(self, s: ConvNextSettings, width: int, rate: float, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)  # residuals stay float32
        convolution = keras.layers.DepthwiseConv2D(7, padding="same", dtype=dtype, name="dwconv")
        convolution.build((None, None, None, width))
        self.parts = {
            "dwconv": convolution,
            "layernorm": norm_of(width, CONVNEXT_EPSILON, "layernorm"),
            "pwconv1": dense(width, 4 * width, dtype, "pwconv1"),
            "pwconv2": dense(4 * width, width, dtype, "pwconv2"),
        }
        if s.response_norm:
            self.parts["grn"] = ResponseNorm(4 * width)
        if s.scaled:
            scale = self.add_weight(shape=(width,), name="scale", dtype="float32", autocast=False)
            self.parts["layer_scale_parameter"] = scale
        self.activation, self.path_dropout = activation(s.activation), path_dropout(rate, axes=4)
        self.built = True

    def call(self, hidden, training=False):
        """`hidden` float32 [rows, height, width, channels] after the layer."""
        parts = self.parts
        inner = self.activation(parts["pwconv1"](parts["layernorm"](parts["dwconv"](hidden))))
        change = parts["pwconv2"](parts["grn"](inner) if "grn" in parts else inner)
        change = tf.cast(change, "float32")
        if "layer_scale_parameter" in parts:
            change *= parts["layer_scale_parameter"]
        return hidden + self.path_dropout(change, training=training)


class ConvNext(ImageClassifier):
    """Stages of layers, each but the first at half the height and width, and a head on the mean of all
    places."""

    def __init__(self, config: Any, dtype: str = "float32"):
        super().__init__(config, dtype)
        s = self.settings = convnext.convnext_settings(config)
        policy, width = self.dtype_policy, s.widths[0]
        parts = {
            "embeddings.patch_embeddings": Patches(s.channels, width, s.patch, policy, "patches"),
            "embeddings.layernorm": norm_of(width, CONVNEXT_EPSILON, "first_norm"),
            "layernorm": norm_of(s.widths[-1], s.norm_epsilon, "last_norm"),
        }
        for stage, (before, after) in enumerate(zip(s.widths, s.widths[1:], strict=False), start=1):
            name = f"encoder.stages.{stage}.downsampling_layer"
            parts[f"{name}.0"] = norm_of(before, CONVNEXT_EPSILON, f"norm_{stage}")
            parts[f"{name}.1"] = Patches(before, after, (2, 2), policy, f"halving_{stage}")
        for name, (stage, rate) in s.layers.items():
            parts[name] = Layer(s, s.widths[stage], rate, policy, name.replace(".", "_"))
        self.parts = {f"{s.base}.{name}": part for name, part in parts.items()}
        self.parts["classifier"] = make_head(s.widths[-1], s.outputs, name="classifier")
        self.share_seeds()

    def classify(self, pixels, training):
        s = self.settings
        require_channels(pixels, s.channels)
        hidden = self.part("embeddings.patch_embeddings")(pixels)
        hidden, now = self.part("embeddings.layernorm")(hidden), 0
        for name, (stage, _) in s.layers.items():
            if stage > now:
                halve = f"encoder.stages.{stage}.downsampling_layer"
                hidden = self.part(f"{halve}.1")(self.part(f"{halve}.0")(hidden))
                hidden, now = tf.cast(hidden, "float32"), stage
            hidden = self.run(partial(self.part(name), training=training), hidden)
        return self.parts["classifier"](self.part("layernorm")(tf.reduce_mean(hidden, axis=(1, 2))))

    def part(self, name: str) -> Any:
        return self.parts[f"{self.settings.base}.{name}"]


def require_channels(pixels: tf.Tensor, channels: int) -> None:
    """Raises InputError for pictures [rows, height, width, channels] with others than the model reads."""
    vision.require_size((pixels.shape[3], *pixels.shape[1:3]), channels, None)
