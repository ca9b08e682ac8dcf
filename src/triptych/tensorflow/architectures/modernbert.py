"""ModernBERT (Warner et al. 2024, arXiv:2412.13663) as a classifier of texts and of tokens, as a reader that
finds answers, as a judge of choices, and with a head that finds hidden tokens. The layers' parts have Hugging
Face's names."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from triptych.models.encoders import require_tied
from triptych.models.modernbert import ModernSettings, settings
from triptych.tensorflow.architectures.bert import Bias, Choices, Classifier, Masked
from triptych.tensorflow.architectures.causal import attention, split_heads
from triptych.tensorflow.architectures.decoder import rotated, rotation
from triptych.tensorflow.architectures.layers import activation, mask_to_bias


def norm_of(s: ModernSettings, name: str) -> keras.layers.LayerNormalization:
    options = {"epsilon": s.norm_epsilon, "center": s.norm_biases}
    return keras.layers.LayerNormalization(**options, dtype="float32", name=name)


class Layer(keras.layers.Layer):
    """Attention of all places or of those nearby, and a gated dense part (Shazeer 2020, arXiv:2002.05202),
    each added to what it read, with norms before. The first layer reads the embeddings, which are normed."""

    def __init__(self, s: ModernSettings, first: bool, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)  # residuals stay float32
        self.settings = s
        sizes = {
            "attn.Wqkv": (s.width, 3 * s.width, s.attention_biases),
            "attn.Wo": (s.width, s.width, s.attention_biases),
            "mlp.Wi": (s.width, 2 * s.inner, s.dense_biases),
            "mlp.Wo": (s.inner, s.width, s.dense_biases),
        }
        self.linear = {
            part: keras.layers.Dense(outputs, use_bias=bias, dtype=dtype, name=part.replace(".", "_"))
            for part, (_, outputs, bias) in sizes.items()
        }
        for part, layer in self.linear.items():
            layer.build((None, None, sizes[part][0]))
        names = ("mlp_norm",) if first else ("attn_norm", "mlp_norm")
        self.norms = {part: norm_of(s, part) for part in names}
        for norm in self.norms.values():
            norm.build((None, None, s.width))
        self.activation = activation(s.activation)
        self.attention_dropout = keras.layers.Dropout(s.attention_dropout, dtype=dtype)
        self.dense_dropout = keras.layers.Dropout(s.dense_dropout, dtype=dtype)
        self.built = True

    def call(self, hidden, bias, cosine, sine, training=False):
        """`hidden` float32 [rows, length, width] after the layer."""
        read = self.norms["attn_norm"](hidden) if "attn_norm" in self.norms else hidden
        hidden += tf.cast(self.attend(read, bias, (cosine, sine), training), "float32")
        inner, gate = tf.split(self.linear["mlp.Wi"](self.norms["mlp_norm"](hidden)), 2, axis=-1)
        inner = self.dense_dropout(self.activation(inner) * gate, training=training)
        return hidden + tf.cast(self.linear["mlp.Wo"](inner), "float32")

    def attend(self, hidden, bias, rotation: tuple[tf.Tensor, tf.Tensor], training: bool):
        width = self.settings.width // self.settings.heads
        together = tf.split(self.linear["attn.Wqkv"](hidden), 3, axis=-1)
        query, key, value = (split_heads(part, width) for part in together)
        query, key = rotated(query, *rotation) * width**-0.5, rotated(key, *rotation)
        query, key = (tf.cast(part, value.dtype) for part in (query, key))
        drop = partial(self.attention_dropout, training=training)
        return drop(self.linear["attn.Wo"](attention(query, (key, value), (), bias, drop)[0]))


class ModernBert(Classifier):
    """The head of all: a layer with a norm, and a linear layer. For texts it reads the first token or the
    mean of all that are no padding."""

    def make_encoder(self):
        s = self.settings = settings(self.config, self.class_ending)
        self.tables = {
            "tok": keras.layers.Embedding(self.config.vocab_size, s.width, dtype="float32", name="tok")
        }
        self.norm, self.final_norm = norm_of(s, "norm"), norm_of(s, "final_norm")
        for layer in (self.tables["tok"], self.norm, self.final_norm):
            layer.build((None, None, s.width))
        self.encoder_layers = [
            Layer(s, i == 0, self.dtype_policy, f"layer_{i}") for i in range(len(s.layers))
        ]
        self.dropout = keras.layers.Dropout(s.embedding_dropout, dtype="float32")

    def encode(self, inputs, training):
        kinds, real = self.settings.layers, inputs["attention_mask"][:, None, None] != 0
        hidden = self.dropout(self.norm(self.tables["tok"](inputs["input_ids"])), training=training)
        places = tf.range(tf.shape(inputs["input_ids"])[1])
        rotations = {rope: rotation(places[None], rope) for rope in {kind.rope: None for kind in kinds}}
        distance = tf.abs(places[:, None] - places)
        biases = {
            window: mask_to_bias(real if window is None else real & (distance <= window), self.compute_dtype)
            for window in {kind.window: None for kind in kinds}
        }
        for layer, kind in zip(self.encoder_layers, kinds, strict=True):
            own = biases[kind.window], *rotations[kind.rope]
            hidden = self.run(partial(layer, training=training), hidden, *own)
        return self.final_norm(hidden)

    def make_head(self):
        s = self.settings
        dense = partial(keras.layers.Dense, dtype="float32")
        return {
            "head.dense": dense(s.width, use_bias=s.head_bias, name="head_dense"),
            "head.norm": norm_of(s, "head_norm"),
            "classifier": dense(s.outputs, name="classifier"),
        }

    def pool(self, hidden, attention_mask):
        if not self.settings.pools_mean:
            return hidden[:, 0]
        real = tf.cast(attention_mask != 0, hidden.dtype)[..., None]
        return tf.reduce_sum(hidden * real, axis=1) / tf.maximum(tf.reduce_sum(real, axis=1), 1)

    def classify(self, read, drop):
        layers = self.head_layers
        inner = activation(self.settings.head_activation)(layers["head.dense"](read))
        return layers["classifier"](drop(layers["head.norm"](inner)))


class ModernBertTokenClassifier(ModernBert):
    """The head for tokens reads each."""

    class_ending = "ForTokenClassification"
    every_token = True


class ModernBertQuestionReader(ModernBert):
    """The head for questions scores each token as the answer's first and as its last, float32 [rows, length,
    2]."""

    class_ending = "ForQuestionAnswering"
    every_token = True


class ModernBertChoices(Choices, ModernBert):
    """The head for choices has one output."""


class ModernBertMasked(Masked, ModernBert):
    """The head for hidden tokens."""

    parts = ("head.dense", "head.norm", "decoder")
    table = "tok"

    @property
    def head_activation(self):
        return self.settings.head_activation

    def make_head(self):
        require_tied(self.config)
        head = {name: layer for name, layer in ModernBert.make_head(self).items() if name != "classifier"}
        bias = {"decoder": Bias(self.config.vocab_size, "decoder")} if self.settings.decoder_bias else {}
        return head | bias
