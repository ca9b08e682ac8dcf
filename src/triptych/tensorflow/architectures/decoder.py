"""Llama (Touvron et al. 2023, arXiv:2302.13971) and its kin: Mistral (Jiang et al. 2023, arXiv:2310.06825),
Qwen2 (Yang et al. 2024, arXiv:2407.10671), Qwen3 (Yang et al. 2025, arXiv:2505.09388), SmolLM3, OLMo 2 (Walsh
et al. 2024, arXiv:2501.00656) and Gemma 3 (arXiv:2503.19786). See `triptych.models.decoders` for what sets
them apart. The layers' parts have Hugging Face's names."""

from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf

from triptych.models import decoders
from triptych.models.decoders import DecoderSettings, Rope
from triptych.tensorflow.architectures.causal import Causal, attention, padding_unlearnt, split_heads
from triptych.tensorflow.architectures.layers import activation

Rotation = tuple[tf.Tensor, tf.Tensor]  # cosines and sines, float32 [rows, 1, length, half of a head]


class Norm(keras.layers.Layer):
    """RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) over the last axis, in float32."""

    def __init__(self, width: int, settings: DecoderSettings, name: str):
        super().__init__(dtype="float32", name=name)
        self.epsilon, self.offset = settings.norm_epsilon, settings.kind.norm_offset
        self.scale = self.add_weight((width,), "ones", name="scale")
        self.built = True

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        size = tf.math.rsqrt(tf.reduce_mean(hidden**2, axis=-1, keepdims=True) + self.epsilon)
        return hidden * size * (self.scale + self.offset)


class Layer(keras.layers.Layer):
    """Attention, in which several heads may share keys and values (Ainslie et al. 2023, arXiv:2305.13245),
    and a gated dense part (Shazeer 2020, arXiv:2002.05202), each added to what it read, with norms before or
    after or both."""

    def __init__(self, s: DecoderSettings, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)  # residuals stay float32
        self.settings = s
        queries, keys = s.heads * s.head_width, s.key_value_heads * s.head_width
        sizes = {
            "q_proj": (s.width, queries, s.attention_biases),
            "k_proj": (s.width, keys, s.attention_biases),
            "v_proj": (s.width, keys, s.attention_biases),
            "o_proj": (queries, s.width, s.output_bias),
            "gate_proj": (s.width, s.inner, s.dense_biases),
            "up_proj": (s.width, s.inner, s.dense_biases),
            "down_proj": (s.inner, s.width, s.dense_biases),
        }
        self.linear = {
            part: keras.layers.Dense(outputs, use_bias=bias, dtype=dtype, name=part)
            for part, (_, outputs, bias) in sizes.items()
        }
        for part, layer in self.linear.items():
            layer.build((None, None, sizes[part][0]))
        widths = dict.fromkeys(filter(None, s.kind.norms), s.width)
        if s.kind.head_norms:
            each = s.kind.head_norms == "each"
            widths |= {"q_norm": s.head_width if each else queries, "k_norm": s.head_width if each else keys}
        self.norms = {part: Norm(width, s, name=part) for part, width in widths.items()}
        self.activation = activation(s.activation)
        self.dropout = keras.layers.Dropout(s.attention_dropout, dtype=dtype)
        self.built = True

    def call(self, hidden, bias, *rotation, past=(), training=False):
        """`hidden` float32 [rows, length, width] after the layer, and its keys and values with those of the
        past; `rotation` is empty in a layer without positions."""
        before, after, before_dense, after_dense = (
            self.norms[name] if name else lambda hidden: hidden for name in self.settings.kind.norms
        )
        attended, keys_values = self.attend(before(hidden), bias, rotation, past, training)
        hidden += after(tf.cast(attended, "float32"))
        normed = before_dense(hidden)
        inner = self.activation(self.linear["gate_proj"](normed)) * self.linear["up_proj"](normed)
        return hidden + after_dense(tf.cast(self.linear["down_proj"](inner), "float32")), *keys_values

    def attend(self, hidden, bias, rotation: Collection[tf.Tensor], past, training: bool):
        s, norms = self.settings, self.settings.kind.head_norms
        query, key, value = (self.linear[name](hidden) for name in ("q_proj", "k_proj", "v_proj"))
        if norms == "all":
            query, key = self.norms["q_norm"](query), self.norms["k_norm"](key)
        query, key, value = (split_heads(part, s.head_width) for part in (query, key, value))
        if norms == "each":
            query, key = self.norms["q_norm"](query), self.norms["k_norm"](key)
        if rotation:
            query, key = rotated(query, *rotation), rotated(key, *rotation)
        query, key = (tf.cast(part, value.dtype) for part in (query * s.attention_scale, key))

        def drop(weights):
            return self.dropout(weights, training=training)

        mixed, keys_values = attention(query, (key, value), past, bias, drop)
        return self.linear["o_proj"](mixed), keys_values


class Decoder(Causal):
    """Llama or one of its kin with the table of outputs."""

    def __init__(self, config: Any, own_tables: Collection[str] = (), dtype: str = "float32"):
        super().__init__(config, own_tables, dtype)
        s = self.settings = decoders.settings(config)
        self.decoder_layers = [Layer(s, self.dtype_policy, f"layer_{i}") for i in range(len(s.layers))]
        self.norm = Norm(s.width, s, name="norm")
        self.share_seeds()

    def continue_texts(self, tokens, positions, bias, past=None, training=False):
        s = self.settings
        hidden = padding_unlearnt(self.tokens(tokens) * s.embedding_scale, tokens, s.padding)
        rotations: dict[Rope | None, Collection[tf.Tensor]] = {None: ()}
        for rope in {layer.rope: None for layer in s.layers if layer.rope}:
            rotations[rope] = rotation(positions, rope)
        inputs = [(bias(layer.window), *rotations[layer.rope]) for layer in s.layers]
        hidden, kept = self.run_layers(hidden, inputs, past, training)
        return self.norm(hidden), kept


def rotation(positions: tf.Tensor, rope: Rope) -> Rotation:
    """Cosines and sines of the angles of positions [rows, length]."""
    angles = tf.cast(positions, "float32")[:, None, :, None] * tf.constant(rope.frequencies, "float32")
    return tf.cos(angles) * rope.factor, tf.sin(angles) * rope.factor


def rotated(heads: tf.Tensor, cosine: tf.Tensor, sine: tf.Tensor) -> tf.Tensor:
    """Queries or keys, float32 [rows, heads, length, width], of which the first half of a head's width is
    turned together with the second."""
    first, second = tf.split(tf.cast(heads, "float32"), 2, axis=-1)
    return tf.concat([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
