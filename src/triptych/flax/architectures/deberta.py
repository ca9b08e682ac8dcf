"""DeBERTa of versions 2 and 3 (He et al. 2021, arXiv:2006.03654 and arXiv:2111.09543) as a classifier of
texts and of tokens, as a reader that finds answers, as a judge of choices, and with heads that find hidden
tokens."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.bert import (
    Choices,
    Classifier,
    EncoderForQuestionAnswering,
    EncoderForTokenClassification,
    Masked,
)
from triptych.flax.architectures.layers import (
    activation,
    attend,
    drop,
    layer_norm,
    mask_to_bias,
    require_positions,
    run_layer,
)
from triptych.models.deberta import (
    CONTENT_TO_POSITION,
    POSITION_TO_CONTENT,
    DebertaSettings,
    rows_of_distances,
    settings,
)


def norm_of(s: DebertaSettings, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return layer_norm(s.width, s.norm_epsilon, rngs=rngs)


def skewed(scores: jax.Array) -> jax.Array:
    """[..., length, 2 length - 1] as [..., length, length]: row i begins at column length - 1 - i."""
    *rows, length, columns = scores.shape
    flat = jnp.pad(scores, [(0, 0)] * (scores.ndim - 1) + [(0, 1)]).reshape(*rows, -1)
    return flat[..., length - 1 : length - 1 + length * columns].reshape(*rows, length, columns)[..., :length]


class SelfAttention(nnx.Module):
    """Attention whose scores are of tokens with tokens, of tokens with distances, and of distances with
    tokens."""

    def __init__(self, s: DebertaSettings, *, dtype: Any, rngs: nnx.Rngs):
        names = ["query_proj", "key_proj", "value_proj"]
        if s.span and s.own_projections:
            names += ["pos_key_proj"] if CONTENT_TO_POSITION in s.terms else []
            names += ["pos_query_proj"] if POSITION_TO_CONTENT in s.terms else []
        for name in names:
            setattr(self, name, nnx.Linear(s.width, s.width, dtype=dtype, rngs=rngs))
        self.settings, self.dropout = s, nnx.Dropout(s.attention_dropout)
        self.distance_dropout = nnx.Dropout(s.dropout)

    def __call__(self, hidden, bias, distances, rows, rngs):
        """What is attended to [batch, length, width]. `distances` is their table [rows, width], `rows` says
        which of it belongs to each distance, from the largest to the smallest, [2 length - 1]."""
        query, key, value = (
            self.by_head(part(hidden)) for part in (self.query_proj, self.key_proj, self.value_proj)
        )
        query = query * self.settings.scale
        if distances is not None:
            read = drop(distances, self.distance_dropout, rngs)[rows]
            bias = bias + self.scores(query, key, read)
        mixed = attend(query, (key, value), bias, self.dropout, rngs)
        return mixed.reshape(hidden.shape)

    def scores(self, query: jax.Array, key: jax.Array, distances: jax.Array) -> jax.Array:
        """What distances [2 length - 1, width] add to the scores, [batch, heads, length, length]."""
        terms, own = self.settings.terms, self.settings.own_projections
        product = partial(jnp.einsum, "bqhd,rhd->bhqr", preferred_element_type=jnp.float32)
        found = jnp.zeros(())
        if CONTENT_TO_POSITION in terms:
            keys = self.by_head((self.pos_key_proj if own else self.key_proj)(distances))
            found += skewed(product(query, keys))
        if POSITION_TO_CONTENT in terms:
            queries = self.by_head((self.pos_query_proj if own else self.query_proj)(distances[::-1]))
            found += skewed(product(key, queries * self.settings.scale)).swapaxes(2, 3)
        return found

    def by_head(self, projected: jax.Array) -> jax.Array:
        return projected.reshape(*projected.shape[:-1], self.settings.heads, -1)


class Layer(nnx.Module):
    """A layer of the encoder: attention and a dense part, each added to what it read, and normed."""

    def __init__(self, s: DebertaSettings, *, dtype: Any, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        output = nnx.Dict(dense=linear(s.width, s.width), LayerNorm=norm_of(s, rngs))
        own = SelfAttention(s, dtype=dtype, rngs=rngs)
        self.attention = nnx.Dict({"self": own, "output": output})
        self.intermediate = nnx.Dict(dense=linear(s.width, s.inner))
        self.output = nnx.Dict(dense=linear(s.inner, s.width), LayerNorm=norm_of(s, rngs))
        self.activation, self.dropout = activation(s.activation), nnx.Dropout(s.dropout)

    def __call__(self, hidden, bias, distances, rows, rngs):
        attended, outer = self.attention.output, self.output
        mixed = self.attention.self(hidden, bias, distances, rows, rngs)
        hidden = attended.LayerNorm(hidden + drop(attended.dense(mixed), self.dropout, rngs))
        inner = self.activation(self.intermediate.dense(hidden))
        return outer.LayerNorm(hidden + drop(outer.dense(inner), self.dropout, rngs))


class Convolution(nnx.Module):
    """Reads what the first layer read, some places at once, and adds that to what the layer made of it."""

    def __init__(self, s: DebertaSettings, *, dtype: Any, rngs: nnx.Rngs):
        self.conv = nnx.Conv(s.width, s.width, (s.kernel,), dtype=dtype, rngs=rngs)
        self.LayerNorm, self.dropout = norm_of(s, rngs), nnx.Dropout(s.dropout)
        self.activation = activation(s.kernel_activation)

    def __call__(self, read, made, real, rngs):
        """`made` [batch, length, width] with it, 0 where the mask `real` [batch, length, 1] is 0."""
        found = jnp.where(real, self.conv(read), 0)
        return self.LayerNorm(made + self.activation(drop(found, self.dropout, rngs))) * real


class Encoder(nnx.Module):
    """Embeddings and layers."""

    def __init__(self, config, s: DebertaSettings, *, checkpoint: bool, dtype, rngs: nnx.Rngs):
        rows = {"word": config.vocab_size, "position": s.positions, "token_type": s.token_types}
        tables = {
            f"{use}_embeddings": nnx.Embed(count, s.embedding, rngs=rngs)
            for use, count in rows.items()
            if count
        }
        if s.embedding != s.width:
            linear = partial(nnx.Linear, use_bias=False, dtype=dtype, rngs=rngs)
            tables["embed_proj"] = linear(s.embedding, s.width)
        self.embeddings = nnx.Dict(**tables, LayerNorm=norm_of(s, rngs))
        parts = {"layer": nnx.List(Layer(s, dtype=dtype, rngs=rngs) for _ in range(s.layers))}
        if s.span:
            parts["rel_embeddings"] = nnx.Embed(2 * s.span, s.width, rngs=rngs)
        if s.distance_norm:
            parts["LayerNorm"] = norm_of(s, rngs)
        if s.kernel:
            parts["conv"] = Convolution(s, dtype=dtype, rngs=rngs)
        self.encoder, self.dropout = nnx.Dict(**parts), nnx.Dropout(s.dropout)
        self.settings, self.checkpoint = s, checkpoint

    def __call__(self, input_ids, attention_mask, token_type_ids, rngs) -> jax.Array:
        """The last layer's output, float32 [batch, length, width]."""
        parts, real = self.encoder, attention_mask[..., None] != 0
        hidden = drop(self.embedded(input_ids, token_type_ids) * real, self.dropout, rngs)
        distances, rows = self.distances(input_ids.shape[1])
        bias = mask_to_bias(attention_mask[:, None, None, :])
        for number, layer in enumerate(parts.layer):
            read, inputs = hidden, (bias, distances, rows)
            hidden = run_layer(layer, hidden, *inputs, rngs=rngs, checkpoint=self.checkpoint)
            if number == 0 and self.settings.kernel:
                hidden = parts.conv(read, hidden, real, rngs)
        return hidden

    def embedded(self, input_ids: jax.Array, token_type_ids: jax.Array | None) -> jax.Array:
        """What stands for tokens, normed, float32 [batch, length, width]."""
        tables, length = self.embeddings, input_ids.shape[1]
        hidden = tables.word_embeddings(input_ids)
        if self.settings.positions:
            require_positions(length, self.settings.positions)
            hidden = hidden + tables.position_embeddings(jnp.arange(length))
        if self.settings.token_types:
            types = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + tables.token_type_embeddings(types)
        if hasattr(tables, "embed_proj"):
            hidden = tables.embed_proj(hidden).astype(jnp.float32)
        return tables.LayerNorm(hidden)

    def distances(self, length: int) -> tuple[jax.Array | None, Any]:
        """The table of distances, and its row for each distance from length - 1 to 1 - length."""
        s = self.settings
        if not s.span:
            return None, None
        far = jnp.arange(length - 1, -length, -1).clip(-s.farthest, s.farthest) + s.farthest
        table = self.encoder.rel_embeddings.embedding[...]
        normed = self.encoder.LayerNorm(table) if s.distance_norm else table
        return normed, jnp.asarray(rows_of_distances(s))[far]


class Deberta(Classifier):
    """What DeBERTa's heads share."""

    def parts(self, config):
        return settings(config, self.class_ending), Encoder


class DebertaForSequenceClassification(Deberta):
    """The head for texts: a pooler, which is no part of the encoder, and a linear layer."""

    def make_head(self, s, rngs):
        self.pooler = nnx.Dict(dense=nnx.Linear(s.width, s.width, rngs=rngs))
        self.classifier = nnx.Linear(s.width, s.outputs, rngs=rngs)
        self.pooler_dropout, self.activation = nnx.Dropout(s.pooler_dropout), activation(s.pooler_activation)

    def classify(self, first, drop):
        inner = self.pooler.dense(drop(first, dropout=self.pooler_dropout))
        return self.classifier(drop(self.activation(inner)))


class DebertaForTokenClassification(Deberta, EncoderForTokenClassification):
    """The head for tokens: a linear layer."""


class DebertaForQuestionAnswering(Deberta, EncoderForQuestionAnswering):
    """The head for questions: a linear layer with two outputs."""


class DebertaForMultipleChoice(Choices, DebertaForSequenceClassification):
    """The head for choices: that for texts, with one output."""


class DebertaForMaskedLM(Masked):
    """The head for hidden tokens, as narrow as the table of tokens. It has the names of BERT's, or, as the
    configuration's `legacy` says, those of the authors."""

    def parts(self, config):
        return settings(config, self.class_ending), Encoder

    def make_head(self, s, rngs):
        parts = {
            "dense": nnx.Linear(s.width, s.embedding, rngs=rngs),
            "LayerNorm": layer_norm(s.embedding, s.norm_epsilon, rngs=rngs),
        }
        bias = nnx.Param(jnp.zeros(self.vocabulary))
        if s.legacy:
            self.cls = nnx.Dict(predictions=nnx.Dict(transform=nnx.Dict(**parts), bias=bias))
        else:
            self.lm_predictions = nnx.Dict(lm_head=nnx.Dict(**parts, bias=bias))
        self.legacy, self.activation = s.legacy, activation(s.activation)

    def transform(self, hidden):
        head = self.cls.predictions if self.legacy else self.lm_predictions.lm_head
        within = head.transform if self.legacy else head
        return within.LayerNorm(self.activation(within.dense(hidden))), head.bias
