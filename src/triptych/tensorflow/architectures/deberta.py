"""DeBERTa of versions 2 and 3 (He et al. 2021, arXiv:2006.03654 and arXiv:2111.09543) as a classifier of
texts and of tokens, as a reader that finds answers, as a judge of choices, and with heads that find hidden
tokens. The layers' parts have Hugging Face's names."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from triptych.models.deberta import (
    CONTENT_TO_POSITION,
    POSITION_TO_CONTENT,
    DebertaSettings,
    rows_of_distances,
    settings,
)
from triptych.tensorflow.architectures.bert import BertMasked, Choices, Classifier, Masked
from triptych.tensorflow.architectures.causal import attention, split_heads
from triptych.tensorflow.architectures.layers import activation, mask_to_bias


def norm_of(s: DebertaSettings, name: str) -> keras.layers.LayerNormalization:
    return keras.layers.LayerNormalization(epsilon=s.norm_epsilon, dtype="float32", name=name)


def skewed(scores: tf.Tensor) -> tf.Tensor:
    """[rows, heads, length, 2 length - 1] as [rows, heads, length, length]: row i of a text begins at column
    length - 1 - i."""
    shape = tf.shape(scores)
    length, columns = shape[2], shape[3]
    flat = tf.reshape(tf.pad(scores, [[0, 0]] * 3 + [[0, 1]]), (shape[0], shape[1], -1))
    flat = flat[:, :, length - 1 : length - 1 + length * columns]
    return tf.reshape(flat, shape)[..., :length]


class Layer(keras.layers.Layer):
    """Attention and a dense part, each added to what it read, and normed. The scores of attention are of
    tokens with tokens, of tokens with distances, and of distances with tokens."""

    def __init__(self, s: DebertaSettings, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)  # residuals stay float32
        self.settings = s
        own = ["query_proj", "key_proj", "value_proj"]
        if s.span and s.own_projections:
            own += ["pos_key_proj"] if CONTENT_TO_POSITION in s.terms else []
            own += ["pos_query_proj"] if POSITION_TO_CONTENT in s.terms else []
        sizes = {f"attention.self.{part}": (s.width, s.width) for part in own}
        sizes |= {"attention.output.dense": (s.width, s.width)}
        sizes |= {"intermediate.dense": (s.width, s.inner), "output.dense": (s.inner, s.width)}
        self.linear = {
            part: keras.layers.Dense(outputs, dtype=dtype, name=part.replace(".", "_"))
            for part, (_, outputs) in sizes.items()
        }
        for part, layer in self.linear.items():
            layer.build((None, None, sizes[part][0]))
        parts = ("attention.output.LayerNorm", "output.LayerNorm")
        self.norms = {part: norm_of(s, part.replace(".", "_")) for part in parts}
        for norm in self.norms.values():
            norm.build((None, None, s.width))
        self.activation = activation(s.activation)
        self.attention_dropout = keras.layers.Dropout(s.attention_dropout, dtype=dtype)
        self.dropout = keras.layers.Dropout(s.dropout, dtype=dtype)
        self.distance_dropout = keras.layers.Dropout(s.dropout, dtype="float32")
        self.built = True

    def call(self, hidden, bias, *distances, training=False):
        """`hidden` float32 [rows, length, width] after the layer. `distances`, if they count, are their table
        [rows, width], and which of it belongs to each distance, from the largest to the smallest, [2 length -
        1]."""
        mixed = self.linear["attention.output.dense"](self.attend(hidden, bias, distances, training))
        hidden += tf.cast(self.dropout(mixed, training=training), "float32")
        hidden = self.norms["attention.output.LayerNorm"](hidden)
        outer = self.linear["output.dense"](self.activation(self.linear["intermediate.dense"](hidden)))
        hidden += tf.cast(self.dropout(outer, training=training), "float32")
        return self.norms["output.LayerNorm"](hidden)

    def attend(self, hidden, bias, distances: tuple, training: bool):
        width = self.settings.width // self.settings.heads
        query, key, value = (
            split_heads(self.linear[f"attention.self.{part}_proj"](hidden), width)
            for part in ("query", "key", "value")
        )
        query *= self.settings.scale
        if distances:
            table, rows = distances
            read = tf.gather(self.distance_dropout(table, training=training), rows)
            bias += self.scores(query, key, read)
        drop = partial(self.attention_dropout, training=training)
        return attention(query, (key, value), (), bias, drop)[0]

    def scores(self, query: tf.Tensor, key: tf.Tensor, distances: tf.Tensor) -> tf.Tensor:
        """What distances [2 length - 1, width] add to the scores, [rows, heads, length, length]."""
        s = self.settings
        found = tf.zeros((), query.dtype)
        if CONTENT_TO_POSITION in s.terms:
            keys = self.projected("key", distances)
            found += skewed(tf.matmul(query, keys, transpose_b=True))
        if POSITION_TO_CONTENT in s.terms:
            queries = self.projected("query", distances[::-1]) * s.scale
            found += tf.transpose(skewed(tf.matmul(key, queries, transpose_b=True)), [0, 1, 3, 2])
        return found

    def projected(self, part: str, distances: tf.Tensor) -> tf.Tensor:
        """Keys or queries of distances, [1, heads, distances, width of a head]."""
        own = "pos_" if self.settings.own_projections else ""
        found = self.linear[f"attention.self.{own}{part}_proj"](distances[None])
        return split_heads(found, self.settings.width // self.settings.heads)


class Convolution(keras.layers.Layer):
    """Reads what the first layer read, some places at once, and adds that to what the layer made of it."""

    def __init__(self, s: DebertaSettings, dtype: Any):
        super().__init__(dtype=dtype, autocast=False, name="convolution")
        self.conv = keras.layers.Conv1D(s.width, s.kernel, padding="same", dtype=dtype, name="conv")
        self.norm = norm_of(s, "norm")
        for layer in (self.conv, self.norm):
            layer.build((None, None, s.width))
        self.activation = activation(s.kernel_activation)
        self.dropout = keras.layers.Dropout(s.dropout, dtype=dtype)
        self.built = True

    def call(self, read, made, real, training=False):
        """`made` [rows, length, width] with it, 0 where the mask `real` [rows, length, 1], float32, is 0."""
        found = self.conv(read)
        found = self.dropout(found * tf.cast(real, found.dtype), training=training)
        return self.norm(made + tf.cast(self.activation(found), "float32")) * real


class Deberta(Classifier):
    """The head for texts: a pooler, which is no part of the encoder, and a linear layer."""

    def make_encoder(self):
        s = self.settings = settings(self.config, self.class_ending)
        rows = {"word": self.config.vocab_size, "position": s.positions, "token_type": s.token_types}
        self.tables = {
            use: keras.layers.Embedding(count, s.embedding, dtype="float32", name=use)
            for use, count in rows.items()
            if count
        }
        for table in self.tables.values():
            table.build()
        self.projection = self.distance_norm = self.convolution = self.distance_table = None
        if s.embedding != s.width:
            linear = partial(keras.layers.Dense, use_bias=False, dtype=self.dtype_policy)
            self.projection = linear(s.width, name="projection")
            self.projection.build((None, None, s.embedding))
        self.norm = norm_of(s, "norm")
        self.norm.build((None, None, s.width))
        if s.span:
            table = keras.layers.Embedding(2 * s.span, s.width, dtype="float32", name="distances")
            table.build()
            self.distance_table = table
        if s.distance_norm:
            self.distance_norm = norm_of(s, "distance_norm")
            self.distance_norm.build((None, s.width))
        if s.kernel:
            self.convolution = Convolution(s, self.dtype_policy)
        self.encoder_layers = [Layer(s, self.dtype_policy, f"layer_{i}") for i in range(s.layers)]
        self.dropout = keras.layers.Dropout(s.dropout, dtype="float32")
        self.pooler_dropout = keras.layers.Dropout(s.pooler_dropout, dtype="float32")

    def encode(self, inputs, training):
        real = tf.cast(inputs["attention_mask"] != 0, "float32")[..., None]
        hidden = self.embedded(inputs["input_ids"], inputs.get("token_type_ids"))
        hidden = self.dropout(hidden * real, training=training)
        distances = self.distances(tf.shape(inputs["input_ids"])[1])
        bias = mask_to_bias(inputs["attention_mask"][:, None, None], self.compute_dtype)
        for number, layer in enumerate(self.encoder_layers):
            read = hidden
            hidden = self.run(partial(layer, training=training), hidden, bias, *distances)
            if number == 0 and self.convolution is not None:
                hidden = self.convolution(read, hidden, real, training=training)
        return hidden

    def embedded(self, input_ids: tf.Tensor, token_type_ids: tf.Tensor | None) -> tf.Tensor:
        """What stands for tokens, normed, float32 [rows, length, width]."""
        hidden = self.tables["word"](input_ids)
        if "position" in self.tables:
            hidden += self.tables["position"](tf.range(tf.shape(input_ids)[1])[None])
        if "token_type" in self.tables:
            types = tf.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden += self.tables["token_type"](types)
        if self.projection is not None:
            hidden = tf.cast(self.projection(hidden), "float32")
        return self.norm(hidden)

    def distances(self, length: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The table of distances, and its row for each distance from length - 1 to 1 - length; nothing where
        distances do not count."""
        if self.distance_table is None:
            return ()
        s, table = self.settings, tf.convert_to_tensor(self.distance_table.embeddings)
        far = tf.clip_by_value(tf.range(length - 1, -length, -1), -s.farthest, s.farthest) + s.farthest
        rows = tf.gather(rows_of_distances(s), far)
        return table if self.distance_norm is None else self.distance_norm(table), rows

    def make_head(self):
        dense = partial(keras.layers.Dense, dtype="float32")
        return {
            "pooler.dense": dense(self.settings.width, name="pooler_dense"),
            "classifier": dense(self.settings.outputs, name="classifier"),
        }

    def classify(self, first, drop):
        layers = self.head_layers
        inner = layers["pooler.dense"](drop(first, self.pooler_dropout))
        return layers["classifier"](drop(activation(self.settings.pooler_activation)(inner)))


class DebertaTokenClassifier(Deberta):
    """The head for tokens: a linear layer."""

    class_ending = "ForTokenClassification"
    every_token = True
    only = "classifier"

    def make_head(self):
        return {self.only: keras.layers.Dense(self.settings.outputs, dtype="float32", name=self.only)}

    def classify(self, every, drop):
        return self.head_layers[self.only](drop(every))


class DebertaQuestionReader(DebertaTokenClassifier):
    """The head for questions: a linear layer with two outputs."""

    class_ending = "ForQuestionAnswering"
    only = "qa_outputs"


class DebertaChoices(Choices, Deberta):
    """The head for choices: that for texts, with one output."""


class DebertaMasked(Masked, Deberta):
    """The head for hidden tokens, as narrow as the table of tokens. It has the names of BERT's, or, as the
    configuration's `legacy` says, those of the authors."""

    @property
    def parts(self):
        if self.settings.legacy:
            return BertMasked.parts
        return "lm_predictions.lm_head.dense", "lm_predictions.lm_head.LayerNorm", "lm_predictions.lm_head"
