"""ViT (Dosovitskiy et al. 2021, arXiv:2010.11929), DeiT (Touvron et al. 2021, arXiv:2012.12877) and DINOv2
(Oquab et al. 2024, arXiv:2304.07193) as classifiers of pictures."""

import math
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from triptych.models import vision, vit
from triptych.models.vit import ViTSettings
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
    """Attention of all patches and a dense part, each added to what it read, with norms before."""

    def __init__(self, s: ViTSettings, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)  # residuals stay float32
        self.settings, self.activation = s, activation(s.activation)
        linear = partial(dense, dtype=dtype)
        own = {part: linear(s.width, s.width, name=part, use_bias=s.biases) for part in QUERY_KEY_VALUE}
        own |= {
            "attended": linear(s.width, s.width, name="attended"),
            "inner": linear(s.width, s.inner * (1 + s.gated), name="inner"),
            "outer": linear(s.inner, s.width, name="outer"),
        }
        own |= {part: norm_of(s.width, s.norm_epsilon, part) for part in ("first_norm", "second_norm")}
        if s.scaled:
            for part in ("first_scale", "second_scale"):
                own[part] = self.add_weight(shape=(s.width,), dtype="float32", autocast=False, name=part)
        self.parts = {s.names[part]: layer for part, layer in own.items()}
        self.dropout = keras.layers.Dropout(0.0 if s.scaled else s.dropout, dtype="float32")
        self.attention_dropout = keras.layers.Dropout(s.attention_dropout, dtype=dtype)
        self.path_dropout = path_dropout(s.path_dropout, axes=3)
        self.built = True

    def call(self, hidden, training=False):
        """`hidden` float32 [rows, length, width] after the layer."""
        change = self.attend(self.part("first_norm")(hidden), training)
        hidden = self.add(hidden, change, "first_scale", training)
        change = self.dense(self.part("second_norm")(hidden))
        return self.add(hidden, change, "second_scale", training)

    def part(self, name: str) -> Any:
        return self.parts[self.settings.names[name]]

    def attend(self, read, training):
        width = self.settings.width // self.settings.heads
        query, key, value = (split_heads(self.part(name)(read), width) for name in QUERY_KEY_VALUE)
        drop = partial(self.attention_dropout, training=training)
        return self.part("attended")(attention(query * width**-0.5, (key, value), (), None, drop)[0])

    def dense(self, read):
        inner = self.part("inner")(read)
        if not self.settings.gated:
            return self.part("outer")(self.activation(inner))
        gate, inner = tf.split(inner, 2, axis=-1)
        return self.part("outer")(self.activation(gate) * inner)

    def add(self, hidden, change, scale, training):
        change = self.dropout(tf.cast(change, "float32"), training=training)
        if self.settings.scaled:
            change *= self.part(scale)
        return hidden + self.path_dropout(change, training=training)


QUERY_KEY_VALUE = ("query", "key", "value")


class ViT(ImageClassifier):
    """Layers on the patches of a picture and a token before them, which the head reads; that of DINOv2 reads
    the mean of the patches as well."""

    heads: tuple[str, ...] = ("classifier",)  # by the token that each reads

    def __init__(self, config: Any, dtype: str = "float32"):
        super().__init__(config, dtype)
        s = self.settings = vit.vit_settings(config)
        add = partial(self.add_weight, dtype="float32", autocast=False)
        places = len(s.tokens) + math.prod(s.grid)
        own = {f"embeddings.{token}": add(shape=(1, 1, s.width), name=token) for token in s.tokens}
        own |= {
            vision.POSITIONS: add(shape=(1, places, s.width), name="positions"),
            PROJECTION: Patches(s.channels, s.width, s.patch, self.dtype_policy, "projection"),
            "layernorm": norm_of(s.width, s.norm_epsilon, "layernorm"),
        }
        if s.masks:
            mask = add(shape=(1, s.width), trainable=False, name="mask_token")
            own["embeddings.mask_token"] = mask
        own |= {f"encoder.layer.{i}": Layer(s, self.dtype_policy, f"layer_{i}") for i in range(s.layers)}
        self.parts = {f"{s.base}.{name}": part for name, part in own.items()}
        read = s.width * (1 + s.averages)
        self.parts |= {name: make_head(read, s.outputs, name=name) for name in self.heads}
        self.dropout = keras.layers.Dropout(s.dropout, dtype="float32")
        self.share_seeds()

    def classify(self, pixels, training):
        hidden = self.dropout(self.embed(pixels), training=training)
        for i in range(self.settings.layers):
            hidden = self.run(partial(self.part(f"encoder.layer.{i}"), training=training), hidden)
        hidden = self.part("layernorm")(hidden)
        logits = [self.parts[name](self.read(hidden, place)) for place, name in enumerate(self.heads)]
        return tf.add_n(logits) / len(logits)

    def part(self, name: str) -> Any:
        return self.parts[f"{self.settings.base}.{name}"]

    def embed(self, pixels: tf.Tensor) -> tf.Tensor:
        """Tokens and patches with their positions, float32 [rows, tokens + patches, width]."""
        s = self.settings
        _, height, width, channels = pixels.shape
        vision.require_size((channels, height, width), s.channels, None if s.resizes else s.picture)
        patches = tf.cast(self.part(PROJECTION)(pixels), "float32")
        grid, rows = tuple(patches.shape[1:3]), tf.shape(patches)[0]
        tokens = [tf.repeat(self.part(f"embeddings.{token}"), rows, axis=0) for token in s.tokens]
        hidden = tf.concat((*tokens, tf.reshape(patches, (rows, math.prod(grid), s.width))), axis=1)
        return hidden + self.positions(grid)

    def positions(self, grid: vision.Size) -> tf.Tensor:
        """Those of tokens, and of patches that form a grid, float32 [1, tokens + patches, width]."""
        s, table = self.settings, tf.convert_to_tensor(self.part(vision.POSITIONS))
        if grid == s.grid:
            return table
        down, across = (vision.resizing(*each) for each in zip(s.grid, grid, strict=True))
        special = len(s.tokens)
        square = tf.reshape(table[0, special:], (*s.grid, s.width))
        fitted = tf.einsum("ah,bw,hwc->abc", down, across, square)
        return tf.concat((table[:, :special], tf.reshape(fitted, (1, -1, s.width))), axis=1)

    def read(self, hidden: tf.Tensor, place: int) -> tf.Tensor:
        """What a head reads, [rows, width] or, with the mean of the patches, [rows, twice the width]."""
        if not self.settings.averages:
            return hidden[:, place]
        return tf.concat((hidden[:, place], tf.reduce_mean(hidden[:, 1:], axis=1)), axis=-1)


PROJECTION = "embeddings.patch_embeddings.projection"


class DeiTWithTeacher(ViT):
    """DeiT with a second head, which reads the token that learnt from a teacher: logits are the mean of
    both."""

    class_ending = vision.WITH_TEACHER
    heads = ("cls_classifier", "distillation_classifier")
