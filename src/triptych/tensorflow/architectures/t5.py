"""T5 (Raffel et al. 2020, arXiv:1910.10683), and 1.1, FLAN and mT5, which are gated."""

import math
from collections.abc import Collection
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from triptych.tensorflow import keras_private
from triptych.tensorflow.architectures.layers import (
    KeysValues,
    activation,
    appended,
    attend,
    by_head,
    mask_to_bias,
)
from triptych.tensorflow.architectures.seq2seq import Seq2Seq, Source, each_alone
from triptych.tensorflow.keras_private import T5LayerNorm, T5MultiHeadAttention, T5TransformerLayer


class T5(Seq2Seq):
    """T5 with its head; 1.1 is gated and does not scale its output. In mixed precision its norms and residual
    sums are float32, as under torch.autocast."""

    def __init__(self, config: Any, own_tables: Collection[str] = (), dtype: str = "float32"):
        super().__init__(config, own_tables, dtype)
        c = config
        layer = partial(
            T5TransformerLayer,
            hidden_dim=c.d_model,
            intermediate_dim=c.d_ff,
            key_value_dim=c.d_kv,
            num_heads=c.num_heads,
            dropout=c.dropout_rate,
            activation=activation(c.dense_act_fn),
            use_gated_activation=c.is_gated_act,
            layer_norm_epsilon=c.layer_norm_epsilon,
            dtype=self.dtype_policy,
        )
        # KerasHub's own tables know only 32 buckets and a distance of 128.
        buckets = c.relative_attention_num_buckets
        bias = partial(keras.layers.Embedding, buckets, c.num_heads, dtype=self.dtype_policy)
        self.encoder_bias, self.decoder_bias = bias(name="encoder_bias"), bias(name="decoder_bias")
        self.encoder_layers = [layer(False, name=f"encoder_{i}") for i in range(c.num_layers)]
        self.decoder_layers = [layer(True, name=f"decoder_{i}") for i in range(c.num_decoder_layers)]
        self.encoder_norm = T5LayerNorm(c.layer_norm_epsilon, dtype="float32", name="encoder_norm")
        self.decoder_norm = T5LayerNorm(c.layer_norm_epsilon, dtype="float32", name="decoder_norm")
        self.dropout = keras.layers.Dropout(c.dropout_rate, dtype="float32")
        scales = getattr(c, "scale_decoder_outputs", False)  # mT5 never does
        self.scale = c.d_model**-0.5 if scales else 1.0
        for layer in (self.encoder_bias, self.decoder_bias, self.encoder_norm, self.decoder_norm):
            layer.build((None, c.d_model))
        for layer in (*self.encoder_layers, *self.decoder_layers):
            self._build_layer(layer)
        self.share_seeds()

    def encode(self, input_ids: tf.Tensor, attention_mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The encoder's output, float32 [rows, length, width]."""
        positions = tf.range(tf.shape(input_ids)[1])
        bias = self._position_bias(self.encoder_bias, positions, positions, both_ways=True)
        bias += mask_to_bias(attention_mask[:, None, None], self.compute_dtype)
        hidden = self.dropout(self.tables["encoder"](input_ids), training=training)
        for layer in self.encoder_layers:
            hidden = self.run(partial(self._layer, layer, training), hidden, bias)
        return self.dropout(self.encoder_norm(hidden), training=training)

    def decode(
        self, decoder_input_ids, states, attention_mask, decoder_attention_mask=None, training=False
    ) -> tf.Tensor:
        """The decoder's output, float32 [rows, target length, width]."""
        positions = tf.range(tf.shape(decoder_input_ids)[1])
        mask = (positions <= positions[:, None])[None, None]
        if decoder_attention_mask is not None:
            mask &= decoder_attention_mask[:, None, None] != 0
        bias = self._position_bias(self.decoder_bias, positions, positions, both_ways=False)
        bias += mask_to_bias(mask, self.compute_dtype)
        source_bias = mask_to_bias(attention_mask[:, None, None], self.compute_dtype)
        hidden = self.dropout(self.tables["decoder"](decoder_input_ids), training=training)
        for layer in self.decoder_layers:
            hidden = self.run(partial(self._layer, layer, training), hidden, bias, states, source_bias)
        return self.dropout(self.decoder_norm(hidden), training=training)

    def logits(self, hidden: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """Scores of the vocabulary, float32 [..., vocabulary], for the decoder's output."""
        return tf.cast(tf.matmul(tf.cast(hidden * self.scale, table.dtype), table), "float32")

    def start(self, states: tf.Tensor, attention_mask: tf.Tensor) -> Source:
        """What `step` reads of the encoder's output."""
        keys_values = [self._keys_values(layer.cross_attention, states) for layer in self.decoder_layers]
        bias = mask_to_bias(attention_mask[:, None, None], self.compute_dtype)
        return Source(keys_values, bias, self.table())

    def step(
        self, tokens: tf.Tensor, position: tf.Tensor, past: list[KeysValues], source: Source
    ) -> tuple[tf.Tensor, list[KeysValues]]:
        """One more token for every beam; see `Bart.step`."""
        bias = self._position_bias(self.decoder_bias, position[None], tf.range(position + 1), both_ways=False)
        hidden, new_past = self.tables["decoder"](tokens), []
        for layer, before, keys_values in zip(self.decoder_layers, past, source.keys_values, strict=True):
            normed = each_alone(layer.self_attention_layer_norm(hidden))
            new_past.append(appended(before, self._keys_values(layer.self_attention, normed)))
            change = self._attention(layer.self_attention, normed, new_past[-1], bias)
            hidden += tf.reshape(change, tf.shape(hidden))
            normed = layer.cross_attention_layer_norm(hidden)
            hidden += self._attention(layer.cross_attention, normed, keys_values, source.bias)
            hidden += self._feed_forward(layer, hidden)
        return self.logits(self.decoder_norm(hidden), source.table), new_past

    def _build_layer(self, layer: T5TransformerLayer) -> None:
        # Built by its first call, a layer would take half a second.
        inner = {layer.output_projector: self.config.d_ff}
        for part in keras_private.layers_within(layer):
            part.built = True
            if isinstance(part, T5MultiHeadAttention):
                inner[part.output_projector] = part.inner_dim
            if isinstance(part, T5LayerNorm):
                part.dtype_policy = "float32"
            if isinstance(part, T5LayerNorm | keras.layers.Dense):
                with keras.name_scope(layer.name):
                    part.build((None, inner.get(part, self.config.d_model)))

    def _layer(self, layer, training: bool, hidden, bias, states=None, source_bias=None) -> tf.Tensor:
        # Part by part, because the layer's own call adds residuals in 16 bits, and gives NaN in float16.
        normed = layer.self_attention_layer_norm(hidden)
        keys_values = self._keys_values(layer.self_attention, normed)
        change = self._attention(layer.self_attention, normed, keys_values, bias, training)
        hidden += self.dropout(change, training=training)
        if states is not None:
            normed = layer.cross_attention_layer_norm(hidden)
            keys_values = self._keys_values(layer.cross_attention, states)
            change = self._attention(layer.cross_attention, normed, keys_values, source_bias, training)
            hidden += self.dropout(change, training=training)
        return hidden + self._feed_forward(layer, hidden, training)

    def _keys_values(self, part: T5MultiHeadAttention, states: tf.Tensor) -> KeysValues:
        return self._heads(part.key_projector(states)), self._heads(part.value_projector(states))

    def _attention(self, part, normed, keys_values: KeysValues, bias, training: bool = False) -> tf.Tensor:
        drop = partial(part.dropout_layer, training=training)
        context = by_head(attend(self._heads(part.query_projector(normed)), keys_values, bias, drop))
        shape = tf.shape(context)
        context = tf.reshape(context, (shape[0], shape[1], part.inner_dim))
        return tf.cast(part.output_projector(context), "float32")

    def _heads(self, projected: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(projected)
        heads = (shape[0], shape[1], self.config.num_heads, self.config.d_kv)
        return by_head(tf.reshape(projected, heads))

    def _feed_forward(
        self, layer: T5TransformerLayer, hidden: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        normed = layer.layer_norm(hidden)
        inner = layer.input_projector(normed)
        if layer.use_gated_activation:
            inner *= layer.gate_projector(normed)
        change = layer.output_projector(layer.dropout_layer(inner, training=training))
        return self.dropout(change, training=training)

    def _position_bias(self, embedding, queries: tf.Tensor, keys: tf.Tensor, both_ways: bool) -> tf.Tensor:
        """The learnt bias of each pair of positions, [1, heads, queries, keys]."""
        furthest = self.config.relative_attention_max_distance
        buckets = distance_buckets(self.config.relative_attention_num_buckets, furthest, both_ways)
        distances = tf.clip_by_value(keys - queries[:, None], -furthest, furthest) + furthest
        return tf.transpose(tf.gather(embedding(buckets), distances), [2, 0, 1])[None]


def distance_buckets(buckets: int, furthest: int, both_ways: bool) -> np.ndarray:
    """T5's bucket of each position of a key relative to the query's, from -furthest to furthest; int32
    [2 * furthest + 1]. Half of a direction's buckets hold one distance each, the others spans that grow as
    powers."""
    relative = np.arange(-furthest, furthest + 1)
    buckets = buckets // 2 if both_ways else buckets
    near, distance = buckets // 2, np.abs(relative) if both_ways else np.maximum(-relative, 0)
    power = np.log(np.maximum(distance, 1).astype(np.float32) / near) / np.float32(math.log(furthest / near))
    far = np.minimum(near + (power * (buckets - near)).astype(int), buckets - 1)
    ahead = np.where(relative > 0, buckets, 0) if both_ways else 0
    return (np.where(distance < near, distance, far) + ahead).astype(np.int32)
