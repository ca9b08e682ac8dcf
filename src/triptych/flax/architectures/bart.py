"""BART (Lewis et al. 2020, arXiv:1910.13461) and its kin: mBART (Liu et al. 2020, arXiv:2001.08210), Marian
(Junczys-Dowmunt et al. 2018, arXiv:1804.00344), Pegasus (Zhang et al. 2020, arXiv:1912.08777) and M2M100
(Fan et al. 2020, arXiv:2010.11125), of which NLLB (Costa-jussà et al. 2022, arXiv:2207.04672) is one. See
`triptych.models.barts` for what sets them apart."""

from collections.abc import Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import normal

from triptych.flax.architectures.layers import (
    KeysValues,
    activation,
    attend,
    causal_mask,
    drop,
    mask_to_bias,
    require_positions,
    run_layer,
    vocabulary_scores,
    write_cache,
)
from triptych.models import barts


class Buffer(nnx.Variable):
    """An array that belongs to the model but is not trained."""


class FixedTable(nnx.Module):
    """Positions that are not trained, and stand in the file nevertheless."""

    def __init__(self, rows: np.ndarray):
        self.embedding = Buffer(jnp.asarray(rows))


def layer_norm(config: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # With the variance in two passes XLA would compile the gradients for more than twice as long.
    return nnx.LayerNorm(config.d_model, epsilon=1e-5, use_fast_variance=True, rngs=rngs)


def linear(config: Any, inputs: int, outputs: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=normal(config.init_std), dtype=dtype, rngs=rngs)


def token_table(config: Any, rngs: nnx.Rngs) -> nnx.Embed:
    def without_padding(key, shape, dtype):
        return normal(config.init_std)(key, shape, dtype).at[config.pad_token_id].set(0)

    return nnx.Embed(config.vocab_size, config.d_model, embedding_init=without_padding, rngs=rngs)


def position_table(config: Any, rngs: nnx.Rngs) -> nnx.Embed | FixedTable | None:
    """The positions that stand in the file, if any do."""
    kind, places, width = barts.kind(config), config.max_position_embeddings, config.d_model
    if not kind.sinusoids:
        rows, init = places + barts.LEARNT_OFFSET, normal(config.init_std)
        return nnx.Embed(rows, width, embedding_init=init, rngs=rngs)
    rows = barts.sinusoids(places, width, kind.from_padding)
    return FixedTable(rows) if kind.positions_in_file else None


class Attention(nnx.Module):
    """Multi-head attention with biases; the query is scaled."""

    def __init__(self, config: Any, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, linear(config, config.d_model, config.d_model, dtype, rngs))
        self.dropout = nnx.Dropout(config.attention_dropout)
        self.heads, self.scale = heads, (config.d_model // heads) ** -0.5

    def keys_values(self, hidden: jax.Array) -> KeysValues:
        by_head = (*hidden.shape[:2], self.heads, -1)
        return self.k_proj(hidden).reshape(by_head), self.v_proj(hidden).reshape(by_head)

    def __call__(self, hidden, keys_values, bias, rngs):
        # In beam search there are more rows here than sources; a source's rows become its target positions.
        query = (self.q_proj(hidden) * self.scale).reshape(len(keys_values[0]), -1, *keys_values[0].shape[2:])
        mixed = attend(query, keys_values, bias, self.dropout, rngs)
        return self.out_proj(mixed.reshape(*hidden.shape[:2], -1))


class Layer(nnx.Module):
    """A layer of the encoder or the decoder."""

    def __init__(self, config, heads: int, inner: int, *, decoder: bool, dtype, rngs: nnx.Rngs):
        self.self_attn = Attention(config, heads, dtype=dtype, rngs=rngs)
        self.self_attn_layer_norm = layer_norm(config, rngs)
        if decoder:
            self.encoder_attn = Attention(config, heads, dtype=dtype, rngs=rngs)
            self.encoder_attn_layer_norm = layer_norm(config, rngs)
        self.fc1 = linear(config, config.d_model, inner, dtype, rngs)
        self.fc2 = linear(config, inner, config.d_model, dtype, rngs)
        self.final_layer_norm = layer_norm(config, rngs)
        self.dropout, self.inner_dropout = nnx.Dropout(config.dropout), nnx.Dropout(config.activation_dropout)
        self.activation = activation(config.activation_function)
        self.decoder, self.norm_first = decoder, barts.kind(config).norm_first

    def __call__(self, hidden, bias, encoder_hidden, encoder_bias, cache, position, rngs):
        normed = self.before(hidden, self.self_attn_layer_norm)
        keys_values = self.self_attn.keys_values(normed)
        if cache is not None:
            keys_values = write_cache(cache["self"], keys_values, position)
        attended = self.self_attn(normed, keys_values, bias, rngs)
        hidden = self.add(hidden, attended, self.self_attn_layer_norm, rngs)
        if self.decoder:
            normed = self.before(hidden, self.encoder_attn_layer_norm)
            encoded = self.encoder_attn.keys_values(encoder_hidden) if cache is None else cache["cross"]
            attended = self.encoder_attn(normed, encoded, encoder_bias, rngs)
            hidden = self.add(hidden, attended, self.encoder_attn_layer_norm, rngs)
        inner = self.activation(self.fc1(self.before(hidden, self.final_layer_norm)))
        change = self.fc2(drop(inner, self.inner_dropout, rngs))
        return self.add(hidden, change, self.final_layer_norm, rngs), keys_values

    def before(self, hidden, norm):
        return norm(hidden) if self.norm_first else hidden

    def add(self, hidden, change, norm, rngs):
        hidden = hidden + drop(change, self.dropout, rngs)
        return hidden if self.norm_first else norm(hidden)


class Stack(nnx.Module):
    """The encoder or the decoder."""

    def __init__(self, config, *, decoder: bool, own_table: bool, checkpoint: bool, dtype, rngs: nnx.Rngs):
        side = "decoder" if decoder else "encoder"
        layers, heads, inner, self.layer_dropout = (
            getattr(config, f"{side}_{name}")
            for name in ("layers", "attention_heads", "ffn_dim", "layerdrop")
        )
        self.embed_tokens = token_table(config, rngs) if own_table else None
        kind = barts.kind(config)
        self.from_padding, self.padding = kind.from_padding, config.pad_token_id
        self.places = config.max_position_embeddings
        self.embed_positions = position_table(config, rngs)
        layer = partial(Layer, config, heads, inner, decoder=decoder, dtype=dtype, rngs=rngs)
        self.layers = nnx.List(layer() for _ in range(layers))
        self.layernorm_embedding = layer_norm(config, rngs) if kind.embedding_norm else None
        self.layer_norm = layer_norm(config, rngs) if kind.norm_first else None
        self.dropout, self.checkpoint = nnx.Dropout(config.dropout), checkpoint

    def __call__(
        self, hidden, mask, encoder_hidden=None, encoder_mask=None, cache=None, position=0, rngs=None
    ):
        if self.layernorm_embedding is not None:
            hidden = self.layernorm_embedding(hidden)
        hidden = drop(hidden, self.dropout, rngs)
        bias, new_cache = mask_to_bias(mask), []
        encoder_bias = None if encoder_mask is None else mask_to_bias(encoder_mask[:, None, None, :])
        for index, layer in enumerate(self.layers):
            inputs = hidden, bias, encoder_hidden, encoder_bias, cache and cache[index], position
            changed, keys_values = run_layer(layer, *inputs, rngs=rngs, checkpoint=self.checkpoint)
            if rngs is not None and self.layer_dropout > 0:  # LayerDrop (Fan et al. 2019, arXiv:1909.11556)
                changed = jnp.where(jax.random.bernoulli(rngs.dropout(), self.layer_dropout), hidden, changed)
            hidden = changed
            new_cache.append(cache and {"self": keys_values, "cross": cache[index]["cross"]})
        return hidden if self.layer_norm is None else self.layer_norm(hidden), new_cache

    def positions(self, tokens: jax.Array, first: jax.Array | int, length: int, width: int) -> jax.Array:
        """What is added to the embeddings of `tokens` [batch, length of these], [batch or 1, length, width].

        Args:
            first: the place of the first of them in texts of `length`.
        """
        if self.from_padding:
            real = (tokens != self.padding).astype(int)
            places = (jnp.cumsum(real, axis=1) + first) * real + self.padding
            rows = barts.sinusoids(self.padding + 1 + length, width, self.from_padding)
            return jnp.asarray(rows)[places] * real[..., None]
        require_positions(length, self.places)
        places = first + jnp.arange(tokens.shape[1])[None]
        if isinstance(table := self.embed_positions, nnx.Embed):
            return table(places + barts.LEARNT_OFFSET)
        if table is not None:
            return table.embedding[...][places]
        return jnp.asarray(barts.sinusoids(length, width, self.from_padding))[places]


class Model(nnx.Module):
    """Encoder and decoder, and the table of tokens that they share."""

    def __init__(
        self, config, *, own_encoder: bool, own_decoder: bool, checkpoint: bool, dtype, rngs: nnx.Rngs
    ):
        stack = partial(Stack, config, checkpoint=checkpoint, dtype=dtype, rngs=rngs)
        self.shared = token_table(config, rngs)
        self.encoder = stack(decoder=False, own_table=own_encoder)
        self.decoder = stack(decoder=True, own_table=own_decoder)
        self.scale = config.d_model**0.5 if config.scale_embedding else 1.0

    def embed(
        self, stack: Stack, token_ids: jax.Array, first: jax.Array | int = 0, length: int | None = None
    ) -> jax.Array:
        """Tokens with their places, the first of them at `first` in texts of `length` (default: theirs)."""
        embedded = (stack.embed_tokens or self.shared)(token_ids) * self.scale
        # As in PyTorch, what is read of padding is not learnt: Marian's and Pegasus' decoder begins with it
        padding = (token_ids == stack.padding)[..., None]
        embedded = jnp.where(padding, jax.lax.stop_gradient(embedded), embedded)
        length = length or token_ids.shape[1]
        return embedded + stack.positions(token_ids, first, length, embedded.shape[-1])


class BartForConditionalGeneration(nnx.Module):
    """One of BART's kin with the table of outputs: arguments and methods are those of
    T5ForConditionalGeneration. InputError for texts, given or generated, that are longer than the
    configuration's `max_position_embeddings`, but for M2M100, which has a position for every place."""

    class_ending = "ForConditionalGeneration"
    tables = (
        "model.shared.weight",
        "lm_head.weight",
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
    )

    def __init__(
        self,
        config,
        own_tables: Collection[str] = (),
        *,
        dtype=jnp.float32,
        gradient_checkpointing=False,
        rngs,
    ):
        barts.require_shared_vocabulary(config)
        own_head, own_encoder, own_decoder = (name in own_tables for name in self.tables[1:])
        own = {"own_encoder": own_encoder, "own_decoder": own_decoder}
        self.model = Model(config, **own, checkpoint=gradient_checkpointing, dtype=dtype, rngs=rngs)
        init = normal(config.init_std)
        head = partial(nnx.Embed, config.vocab_size, config.d_model, embedding_init=init, rngs=rngs)
        self.lm_head = head() if own_head else None
        has_bias = barts.kind(config).logits_bias
        self.final_logits_bias = Buffer(jnp.zeros((1, config.vocab_size))) if has_bias else None
        self.dtype = dtype

    def __call__(self, input_ids, attention_mask, decoder_input_ids, decoder_attention_mask=None, rngs=None):
        hidden = self.encode(input_ids, attention_mask, rngs)
        return self.decode(decoder_input_ids, hidden, attention_mask, decoder_attention_mask, rngs)

    def encode(self, input_ids, attention_mask, rngs=None) -> jax.Array:
        embedded = self.model.embed(self.model.encoder, input_ids)
        return self.model.encoder(embedded, attention_mask[:, None, None, :], rngs=rngs)[0]

    def decode(
        self, decoder_input_ids, encoder_hidden, attention_mask, decoder_attention_mask=None, rngs=None
    ):
        embedded = self.model.embed(self.model.decoder, decoder_input_ids)
        mask = causal_mask(decoder_input_ids.shape[1], decoder_attention_mask)
        return self.scores(self.model.decoder(embedded, mask, encoder_hidden, attention_mask, rngs=rngs)[0])

    def scores(self, hidden: jax.Array) -> jax.Array:
        table = self.lm_head or self.model.shared
        scores = vocabulary_scores(hidden, table, self.dtype)
        return scores if self.final_logits_bias is None else scores + self.final_logits_bias[...]

    def start_cache(self, encoder_hidden: jax.Array, rows: int, length: int) -> list[dict[str, KeysValues]]:
        cross = [layer.encoder_attn.keys_values(encoder_hidden) for layer in self.model.decoder.layers]
        empty = jnp.zeros((rows, length, *cross[0][0].shape[2:]), self.dtype)
        return [{"self": (empty, empty), "cross": keys_values} for keys_values in cross]

    def step(self, tokens: jax.Array, position: jax.Array, cache: list, attention_mask: jax.Array):
        length = cache[0]["self"][0].shape[1]
        embedded = self.model.embed(self.model.decoder, tokens[:, None], position, length)
        mask = (jnp.arange(length) <= position)[None, None, None, :]
        hidden, cache = self.model.decoder(embedded, mask, None, attention_mask, cache, position)
        return self.scores(hidden)[:, 0], cache
