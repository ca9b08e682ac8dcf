"""BART (Lewis et al. 2020, arXiv:1910.13461) and its kin: mBART (Liu et al. 2020, arXiv:2001.08210), Marian
(Junczys-Dowmunt et al. 2018, arXiv:1804.00344), Pegasus (Zhang et al. 2020, arXiv:1912.08777) and M2M100
(Fan et al. 2020, arXiv:2010.11125), of which NLLB (Costa-jussà et al. 2022, arXiv:2207.04672) is one. See
`triptych.models.barts` for what sets them apart."""

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras_hub.layers import PositionEmbedding, TransformerDecoder, TransformerEncoder

from triptych.models import barts
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


class Bart(Seq2Seq):
    """One of BART's kin with its head."""

    def __init__(self, config: Any, own_tables: Collection[str] = (), dtype: str = "float32"):
        barts.require_shared_vocabulary(config)
        super().__init__(config, own_tables, dtype)
        c, self.kind = config, barts.kind(config)
        self.norm_first = self.kind.norm_first
        self.scale = math.sqrt(c.d_model) if c.scale_embedding else 1.0
        self.activation_dropout = keras.layers.Dropout(c.activation_dropout, dtype=self.dtype_policy)
        self.dropout = keras.layers.Dropout(c.dropout, dtype="float32")

        function = activation(c.activation_function)
        options = {
            "activation": lambda inner: self.activation_dropout(function(inner)),
            "normalize_first": self.norm_first,
            "dropout": c.dropout,
            "dtype": self.dtype_policy,
        }
        self.offset = 0 if self.kind.sinusoids else barts.LEARNT_OFFSET
        positions = partial(PositionEmbedding, c.max_position_embeddings + self.offset, dtype="float32")
        if self.kind.sinusoids:
            positions = partial(positions, initializer=self._sinusoids, trainable=False)
        norm = partial(keras.layers.LayerNormalization, epsilon=1e-5, dtype="float32")
        no_norm = partial(keras.layers.Identity, dtype="float32")
        first, last = (norm if has else no_norm for has in (self.kind.embedding_norm, self.kind.norm_first))
        self.positions = {
            use: positions(name=f"{use}_positions") for use in barts.SIDES if not self.kind.from_padding
        }
        self.first_norms = {use: first(name=f"{use}_first_norm") for use in barts.SIDES}
        self.encoder_layers = [
            TransformerEncoder(c.encoder_ffn_dim, c.encoder_attention_heads, name=f"encoder_{i}", **options)
            for i in range(c.encoder_layers)
        ]
        self.decoder_layers = [
            TransformerDecoder(c.decoder_ffn_dim, c.decoder_attention_heads, name=f"decoder_{i}", **options)
            for i in range(c.decoder_layers)
        ]
        self.last_norms = {use: last(name=f"{use}_last_norm") for use in barts.SIDES}
        self.final_logits_bias = None
        if self.kind.logits_bias:
            self.final_logits_bias = self.add_weight(
                (1, c.vocab_size), "zeros", trainable=False, autocast=False, name="final_logits_bias"
            )
        shape = (None, None, c.d_model)
        norms = (*self.first_norms.values(), *self.last_norms.values())
        for layer in (*self.positions.values(), *norms, *self.encoder_layers):
            layer.build(shape)
        for layer in self.decoder_layers:
            layer.build(shape, shape)
        self.set_attention_dropout(c.attention_dropout)
        self.share_seeds()

    def encode(self, input_ids: tf.Tensor, attention_mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The encoder's output, float32 [rows, length, width]."""
        hidden = self._embed("encoder", input_ids)
        hidden = self.dropout(hidden, training=training)
        skipped = self.config.encoder_layerdrop if training else 0.0
        for layer in self.encoder_layers:
            hidden = self.run(partial(layer, training=training), hidden, attention_mask, skipped=skipped)
        return self.last_norms["encoder"](hidden)

    def decode(
        self, decoder_input_ids, states, attention_mask, decoder_attention_mask=None, training=False
    ) -> tf.Tensor:
        """The decoder's output, float32 [rows, target length, width]."""
        hidden = self._embed("decoder", decoder_input_ids)
        hidden = self.dropout(hidden, training=training)
        mask = tf.ones_like(decoder_input_ids) if decoder_attention_mask is None else decoder_attention_mask

        def run(layer, hidden, states, mask, attention_mask):
            return layer(hidden, states, mask, encoder_padding_mask=attention_mask, training=training)

        skipped = self.config.decoder_layerdrop if training else 0.0
        for layer in self.decoder_layers:
            hidden = self.run(partial(run, layer), hidden, states, mask, attention_mask, skipped=skipped)
        return self.last_norms["decoder"](hidden)

    def logits(self, hidden: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """Scores of the vocabulary, float32 [..., vocabulary], for the decoder's output."""
        scores = tf.cast(tf.matmul(tf.cast(hidden, table.dtype), table), "float32")
        return scores if self.final_logits_bias is None else scores + self.final_logits_bias

    def start(self, states: tf.Tensor, attention_mask: tf.Tensor) -> Source:
        """What `step` reads of the encoder's output."""
        attentions = [keras_private.parts(layer).cross_attention for layer in self.decoder_layers]
        keys_values = [self._keys_values(part, states) for part in attentions]
        bias = mask_to_bias(attention_mask[:, None, None], self.compute_dtype)
        return Source(keys_values, bias, self.table())

    def step(
        self, tokens: tf.Tensor, position: tf.Tensor, past: list[KeysValues], source: Source
    ) -> tuple[tf.Tensor, list[KeysValues]]:
        """One more token for every beam.

        Args:
            tokens: the last token of each, integers [rows, beams].
            position: its position, int32 scalar.
            past: of each decoder layer's self-attention, keys and values of the positions before, for all
                rows' beams one after the other: [rows * beams, heads, position, width of a head].
            source: what `start` returned.

        Returns:
            The next token's scores, float32 [rows, beams, vocabulary], and `past` with this position.
        """
        hidden, new_past = self._embed("decoder", tokens[..., None], position)[:, :, 0], []
        for layer, before, keys_values in zip(self.decoder_layers, past, source.keys_values, strict=True):
            parts = keras_private.parts(layer)

            def attention(normed, part=parts.self_attention, before=before):
                alone = each_alone(normed)
                new_past.append(appended(before, self._keys_values(part, alone)))
                return tf.reshape(self._attention(part, alone, new_past[-1]), tf.shape(normed))

            def cross_attention(normed, part=parts.cross_attention, keys_values=keys_values):
                return self._attention(part, normed, keys_values, source.bias)

            def feed_forward(normed, parts=parts):
                return parts.outer_dense(parts.inner_dense(normed))

            hidden = self._around(attention, parts.self_attention_norm, hidden)
            hidden = self._around(cross_attention, parts.cross_attention_norm, hidden)
            hidden = self._around(feed_forward, parts.dense_norm, hidden)
        return self.logits(self.last_norms["decoder"](hidden), source.table), new_past

    def _around(self, part: Callable, norm: keras.layers.Layer, hidden: tf.Tensor) -> tf.Tensor:
        hidden = tf.cast(hidden, self.compute_dtype)
        return hidden + part(norm(hidden)) if self.norm_first else norm(hidden + part(hidden))

    def _keys_values(self, part: keras.layers.MultiHeadAttention, states: tf.Tensor) -> KeysValues:
        return by_head(part.key_dense(states)), by_head(part.value_dense(states))

    def _attention(self, part, normed, keys_values: KeysValues, bias: tf.Tensor | None = None) -> tf.Tensor:
        query = by_head(part.query_dense(normed)) * part.key_dim**-0.5
        return part.output_dense(by_head(attend(query, keys_values, bias)))

    def _embed(self, use: str, tokens: tf.Tensor, first: tf.Tensor | int = 0) -> tf.Tensor:
        embedded = self.tables[use](tokens) * self.scale
        # As in PyTorch, what is read of padding is not learnt: Marian's and Pegasus' decoder begins with it
        padding = (tokens == self.config.pad_token_id)[..., None]
        embedded = tf.where(padding, tf.stop_gradient(embedded), embedded)
        if self.kind.from_padding:
            positions = self._places_from_padding(tokens, first)
        else:
            positions = self.positions[use](embedded, start_index=first + self.offset)
        return self.first_norms[use](embedded + positions)

    def _places_from_padding(self, tokens: tf.Tensor, first: tf.Tensor | int) -> tf.Tensor:
        padding = self.config.pad_token_id
        real = tf.cast(tokens != padding, "int32")
        places = tf.cumsum(real, axis=-1) + first + padding
        steps = barts.frequencies(self.config.d_model, self.kind.from_padding)
        angles = tf.cast(places, "float32")[..., None] * steps
        positions = tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)
        return tf.where(real[..., None] > 0, positions, 0.0)

    def _sinusoids(self, shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
        places, width = shape
        return tf.constant(barts.sinusoids(places, width, self.kind.from_padding), dtype)
