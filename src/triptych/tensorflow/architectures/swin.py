"""Swin (Liu et al. 2021, arXiv:2103.14030) as a classifier of pictures."""

import math
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from triptych.models import swin, vision
from triptych.models.swin import SWIN_EPSILON, SWIN_NAMES, SwinLayer, SwinSettings
from triptych.tensorflow.architectures.causal import attention, split_heads
from triptych.tensorflow.architectures.layers import activation
from triptych.tensorflow.architectures.pictures import (
    ImageClassifier,
    Patches,
    dense,
    make_head,
    norm_of,
    path_dropout,
)


class Layer(keras.layers.Layer):
    """Attention within windows and a dense part, each added to what it read, with norms before."""

    def __init__(self, s: SwinSettings, own: SwinLayer, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)  # residuals stay float32
        width, inner = own.width, int(own.width * s.ratio)
        linear = partial(dense, dtype=dtype)
        parts = {part: linear(width, width, name=part, use_bias=s.biases) for part in QUERY_KEY_VALUE}
        parts |= {
            "attended": linear(width, width, name="attended"),
            "inner": linear(width, inner, name="inner"),
            "outer": linear(inner, width, name="outer"),
            "distances": self.add_weight(
                shape=((2 * s.window - 1) ** 2, own.heads), dtype="float32", autocast=False, name="distances"
            ),
        }
        parts |= {part: norm_of(width, s.norm_epsilon, part) for part in ("first_norm", "second_norm")}
        self.parts = {SWIN_NAMES[part]: layer for part, layer in parts.items()}
        self.own, self.window, self.activation = own, s.window, activation(s.activation)
        self.dropout = keras.layers.Dropout(s.dropout, dtype="float32")
        self.attention_dropout = keras.layers.Dropout(s.attention_dropout, dtype=dtype)
        self.path_dropout = path_dropout(own.path_dropout, axes=4)
        self.built = True

    def call(self, hidden, training=False):
        """`hidden` float32 [rows, height, width, channels] after the layer."""
        change = self.attend(self.part("first_norm")(hidden), training)
        hidden += self.path_dropout(change, training=training)
        change = self.part("outer")(self.activation(self.part("inner")(self.part("second_norm")(hidden))))
        return hidden + self.dropout(tf.cast(change, "float32"), training=training)

    def part(self, name: str) -> Any:
        return self.parts[SWIN_NAMES[name]]

    def attend(self, read, training):
        _, tall, wide, channels = read.shape
        window, width = self.window, channels // self.own.heads
        (down, across), shift, apart = swin.windows((tall, wide), window, self.own.shifted)
        cut = tf.pad(read, [[0, 0], [0, down - tall], [0, across - wide], [0, 0]])
        cut = tf.roll(cut, (-shift, -shift), axis=(1, 2))
        cut = tf.reshape(cut, (-1, down // window, window, across // window, window, channels))
        cut = tf.reshape(tf.transpose(cut, (0, 1, 3, 2, 4, 5)), (-1, window**2, channels))
        query, key, value = (split_heads(self.part(name)(cut), width) for name in QUERY_KEY_VALUE)
        bias = tf.gather(tf.convert_to_tensor(self.part("distances")), swin.distances(window))
        bias = tf.transpose(tf.reshape(bias, (window**2, window**2, -1)), (2, 0, 1))[None]
        if apart is not None:  # for each window of each row
            bias = tf.tile(bias + apart[:, None], (tf.shape(read)[0], 1, 1, 1))
        drop = partial(self.attention_dropout, training=training)
        bias = tf.cast(bias, query.dtype)
        mixed = self.part("attended")(attention(query * width**-0.5, (key, value), (), bias, drop)[0])
        mixed = self.dropout(tf.cast(mixed, "float32"), training=training)
        whole = tf.reshape(mixed, (-1, down // window, across // window, window, window, channels))
        whole = tf.reshape(tf.transpose(whole, (0, 1, 3, 2, 4, 5)), (-1, down, across, channels))
        return tf.roll(whole, (shift, shift), axis=(1, 2))[:, :tall, :wide]


QUERY_KEY_VALUE = ("query", "key", "value")


class Halving(keras.layers.Layer):
    """Four neighbours become one place of twice the width."""

    def __init__(self, width: int, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)
        self.parts = {
            "norm": norm_of(4 * width, SWIN_EPSILON, "norm"),
            "reduction": dense(4 * width, 2 * width, dtype, "reduction", use_bias=False),
        }
        self.built = True

    def call(self, hidden):
        _, tall, wide, _ = hidden.shape
        hidden = tf.pad(hidden, [[0, 0], [0, tall % 2], [0, wide % 2], [0, 0]])
        four = [hidden[:, down::2, across::2] for across in range(2) for down in range(2)]
        return tf.cast(self.parts["reduction"](self.parts["norm"](tf.concat(four, axis=-1))), "float32")


class Swin(ImageClassifier):
    """Stages of layers, each but the first at half the height and width, and a head on the mean of all
    places."""

    def __init__(self, config: Any, dtype: str = "float32"):
        super().__init__(config, dtype)
        s, policy = swin.swin_settings(config), self.dtype_policy
        self.settings = s
        parts = {
            PROJECTION: Patches(s.channels, s.width, s.patch, policy, "projection"),
            "embeddings.norm": norm_of(s.width, SWIN_EPSILON, "first_norm"),
            "layernorm": norm_of(s.last_width, s.norm_epsilon, "last_norm"),
        }
        if s.positions:
            shape = (1, math.prod(s.grid), s.width)
            parts[vision.POSITIONS] = self.add_weight(
                shape=shape, name="positions", dtype="float32", autocast=False
            )
        for stage, (name, layers) in enumerate(s.stages.items()):
            for of_layer, own in layers.items():
                full = f"{name}.{of_layer}"
                parts[full] = Layer(s, own, policy, full.replace(".", "_"))
            if stage + 1 < len(s.stages):
                parts[f"{name}.downsample"] = Halving(s.width * 2**stage, policy, f"halving_{stage}")
        self.parts = {f"swin.{name}": part for name, part in parts.items()}
        self.parts["classifier"] = make_head(s.last_width, s.outputs, name="classifier")
        self.dropout = keras.layers.Dropout(s.dropout, dtype="float32")
        self.share_seeds()

    def classify(self, pixels, training):
        s = self.settings
        _, tall, wide, channels = pixels.shape
        vision.require_size((channels, tall, wide), s.channels, s.picture if s.positions else None)
        pixels = tf.pad(pixels, [[0, 0], [0, -tall % s.patch[0]], [0, -wide % s.patch[1]], [0, 0]])
        hidden = self.part("embeddings.norm")(self.part(PROJECTION)(pixels))
        if s.positions:
            table = tf.convert_to_tensor(self.part(vision.POSITIONS))
            hidden += tf.reshape(table, (1, *hidden.shape[1:]))
        hidden = self.dropout(hidden, training=training)
        for name, layers in s.stages.items():
            for of_layer in layers:
                hidden = self.run(partial(self.part(f"{name}.{of_layer}"), training=training), hidden)
            if f"swin.{name}.downsample" in self.parts:
                hidden = self.part(f"{name}.downsample")(hidden)
        return self.parts["classifier"](tf.reduce_mean(self.part("layernorm")(hidden), axis=(1, 2)))

    def part(self, name: str) -> Any:
        return self.parts[f"swin.{name}"]


PROJECTION = "embeddings.patch_embeddings.projection"
