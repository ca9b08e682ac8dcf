"""ModernBERT (Warner et al. 2024, arXiv:2412.13663) as a classifier of texts and of tokens, as a reader that
finds answers, as a judge of choices, and with a head that finds hidden tokens."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.bert import Choices, Classifier, Masked
from triptych.flax.architectures.decoder import Rotation, rotated, rotation
from triptych.flax.architectures.layers import activation, attend, drop, layer_norm, mask_to_bias, run_layer
from triptych.models.modernbert import ModernSettings, settings


def norm_of(s: ModernSettings, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return layer_norm(s.width, s.norm_epsilon, use_bias=s.norm_biases, rngs=rngs)


class Attention(nnx.Module):
    """Attention of all places, or of those nearby."""

    def __init__(self, s: ModernSettings, *, dtype: Any, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, use_bias=s.attention_biases, dtype=dtype, rngs=rngs)
        self.Wqkv, self.Wo = linear(s.width, 3 * s.width), linear(s.width, s.width)
        self.heads, self.scale = s.heads, (s.width // s.heads) ** -0.5
        self.dropout = nnx.Dropout(s.attention_dropout)

    def __call__(self, hidden, bias, rotation: Rotation, rngs):
        together = self.Wqkv(hidden).reshape(*hidden.shape[:2], 3, self.heads, -1)
        query, key, value = (together[:, :, part] for part in range(3))
        query, key = rotated(query, rotation) * self.scale, rotated(key, rotation)
        keys_values = key.astype(value.dtype), value
        mixed = attend(query.astype(value.dtype), keys_values, bias, self.dropout, rngs)
        return drop(self.Wo(mixed.reshape(hidden.shape)), self.dropout, rngs)


class Dense(nnx.Module):
    """The gated part (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, s: ModernSettings, *, dtype: Any, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, use_bias=s.dense_biases, dtype=dtype, rngs=rngs)
        self.Wi, self.Wo = linear(s.width, 2 * s.inner), linear(s.inner, s.width)
        self.activation, self.dropout = activation(s.activation), nnx.Dropout(s.dense_dropout)

    def __call__(self, hidden, rngs):
        inner, gate = jnp.split(self.Wi(hidden), 2, axis=-1)
        return self.Wo(drop(self.activation(inner) * gate, self.dropout, rngs))


class Layer(nnx.Module):
    """Attention and a dense part, each added to what it read, with norms before. The first layer reads the
    embeddings, which are normed."""

    def __init__(self, s: ModernSettings, *, first: bool, dtype: Any, rngs: nnx.Rngs):
        if not first:
            self.attn_norm = norm_of(s, rngs)
        self.attn, self.mlp = Attention(s, dtype=dtype, rngs=rngs), Dense(s, dtype=dtype, rngs=rngs)
        self.mlp_norm, self.first = norm_of(s, rngs), first

    def __call__(self, hidden, bias, rotation, rngs):
        read = hidden if self.first else self.attn_norm(hidden)
        hidden = hidden + self.attn(read, bias, rotation, rngs)
        return hidden + self.mlp(self.mlp_norm(hidden), rngs)


class Encoder(nnx.Module):
    """Embeddings and layers."""

    def __init__(self, config, s: ModernSettings, *, checkpoint: bool, dtype, rngs: nnx.Rngs):
        table = nnx.Embed(config.vocab_size, s.width, rngs=rngs)
        self.embeddings = nnx.Dict(tok_embeddings=table, norm=norm_of(s, rngs))
        layer = partial(Layer, s, dtype=dtype, rngs=rngs)
        self.layers = nnx.List(layer(first=i == 0) for i in range(len(s.layers)))
        self.final_norm, self.dropout = norm_of(s, rngs), nnx.Dropout(s.embedding_dropout)
        self.settings, self.checkpoint = s, checkpoint

    def __call__(self, input_ids, attention_mask, token_type_ids, rngs) -> jax.Array:
        """The last layer's output, normed, float32 [batch, length, width]. There are no types of tokens."""
        tables, kinds = self.embeddings, self.settings.layers
        hidden = drop(tables.norm(tables.tok_embeddings(input_ids)), self.dropout, rngs)
        places = jnp.arange(input_ids.shape[1])
        rotations = {rope: rotation(places[None], rope) for rope in {kind.rope: None for kind in kinds}}
        distance, real = jnp.abs(places[:, None] - places), attention_mask[:, None, None, :] != 0
        biases = {
            window: mask_to_bias(real if window is None else real & (distance <= window))
            for window in {kind.window: None for kind in kinds}
        }
        for layer, kind in zip(self.layers, kinds, strict=True):
            inputs = biases[kind.window], rotations[kind.rope]
            hidden = run_layer(layer, hidden, *inputs, rngs=rngs, checkpoint=self.checkpoint)
        return self.final_norm(hidden)


class ModernBertForSequenceClassification(Classifier):
    """The head of all: a layer with a norm, and a linear layer. For texts it reads the first token or the
    mean of all that are no padding."""

    def parts(self, config):
        return settings(config, self.class_ending), Encoder

    def make_head(self, s, rngs):
        dense = nnx.Linear(s.width, s.width, use_bias=s.head_bias, rngs=rngs)
        self.head = nnx.Dict(dense=dense, norm=norm_of(s, rngs))
        self.classifier = nnx.Linear(s.width, s.outputs, rngs=rngs)
        self.activation, self.pools_mean = activation(s.head_activation), s.pools_mean

    def pool(self, hidden, attention_mask):
        if not self.pools_mean:
            return hidden[:, 0]
        real = attention_mask[..., None] != 0
        return (hidden * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)

    def classify(self, read, drop):
        return self.classifier(drop(self.head.norm(self.activation(self.head.dense(read)))))


class ModernBertForTokenClassification(ModernBertForSequenceClassification):
    """The head for tokens reads each."""

    class_ending = "ForTokenClassification"
    every_token = True


class ModernBertForQuestionAnswering(ModernBertForSequenceClassification):
    """The head for questions scores each token as the answer's first and as its last, float32 [batch, length,
    2]."""

    class_ending = "ForQuestionAnswering"
    every_token = True


class ModernBertForMultipleChoice(Choices, ModernBertForSequenceClassification):
    """The head for choices has one output."""


class ModernBertForMaskedLM(Masked):
    """The head for hidden tokens."""

    def parts(self, config):
        return settings(config, self.class_ending), Encoder

    def make_head(self, s, rngs):
        dense = nnx.Linear(s.width, s.width, use_bias=s.head_bias, rngs=rngs)
        self.head = nnx.Dict(dense=dense, norm=norm_of(s, rngs))
        self.activation = activation(s.head_activation)
        if s.decoder_bias:
            self.decoder = nnx.Dict(bias=nnx.Param(jnp.zeros(self.vocabulary)))

    def table(self):
        return self.model.embeddings.tok_embeddings

    def transform(self, hidden):
        bias = self.decoder.bias if hasattr(self, "decoder") else None
        return self.head.norm(self.activation(self.head.dense(hidden))), bias
