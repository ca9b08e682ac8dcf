"""T5 1.0 (Raffel et al. 2020, arXiv:1910.10683), and 1.1, FLAN and mT5: gated (Shazeer, arXiv:2002.05202)."""

import math
from collections.abc import Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import constant, normal

from triptych.flax.architectures.layers import (
    KeysValues,
    activation,
    attend,
    causal_mask,
    drop,
    mask_to_bias,
    run_layer,
    vocabulary_scores,
    write_cache,
)


def linear(inputs: int, outputs: int, deviation: float, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    init = normal(deviation)
    return nnx.Linear(inputs, outputs, use_bias=False, kernel_init=init, dtype=dtype, rngs=rngs)


def rms_norm(config: Any, rngs: nnx.Rngs) -> nnx.RMSNorm:
    scale = constant(config.initializer_factor)
    return nnx.RMSNorm(config.d_model, epsilon=config.layer_norm_epsilon, scale_init=scale, rngs=rngs)


def token_table(config: Any, rngs: nnx.Rngs) -> nnx.Embed:
    init = normal(config.initializer_factor)
    return nnx.Embed(config.vocab_size, config.d_model, embedding_init=init, rngs=rngs)


def distance_buckets(buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of each distance from 0 to `max_distance`: half of the buckets are for one distance each,
    the rest for spans that grow by a factor. By numpy: at their borders a logarithm's last bit decides."""
    near, distance = buckets // 2, np.arange(max_distance + 1)
    power = np.log(np.maximum(distance, 1).astype(np.float32) / near) / np.float32(
        math.log(max_distance / near)
    )
    far = np.minimum(near + (power * (buckets - near)).astype(int), buckets - 1)
    return np.where(distance < near, distance, far)


class Attention(nnx.Module):
    """Multi-head attention without scaling (the initial weights see to that)."""

    def __init__(self, config: Any, *, decoder: bool, owns_bias: bool, dtype: Any, rngs: nnx.Rngs):
        width, inner, factor = config.d_model, config.num_heads * config.d_kv, config.initializer_factor
        self.q = linear(width, inner, factor * (width * config.d_kv) ** -0.5, dtype, rngs)
        self.k = linear(width, inner, factor * width**-0.5, dtype, rngs)
        self.v = linear(width, inner, factor * width**-0.5, dtype, rngs)
        self.o = linear(inner, width, factor * inner**-0.5, dtype, rngs)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.heads, self.decoder = config.num_heads, decoder
        if owns_bias:
            buckets, init = config.relative_attention_num_buckets, normal(factor * width**-0.5)
            self.relative_attention_bias = nnx.Embed(buckets, self.heads, embedding_init=init, rngs=rngs)
            self.max_distance = config.relative_attention_max_distance

    def keys_values(self, hidden: jax.Array) -> KeysValues:
        by_head = (*hidden.shape[:2], self.heads, -1)
        return self.k(hidden).reshape(by_head), self.v(hidden).reshape(by_head)

    def __call__(self, hidden, keys_values, bias, rngs):
        # In beam search there are more rows here than sources; a source's rows become its target positions.
        query = self.q(hidden).reshape(len(keys_values[0]), -1, *keys_values[0].shape[2:])
        mixed = attend(query, keys_values, bias, self.dropout, rngs)
        return self.o(mixed.reshape(*hidden.shape[:2], -1))

    def position_bias(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
        """What is learnt for each pair of positions, float32 [1, heads, queries, keys]."""
        buckets, distance = self.relative_attention_bias.num_embeddings, keys[None, :] - queries[:, None]
        if self.decoder:  # It sees nothing ahead, so all buckets are for what lies behind.
            ahead, distance = 0, jnp.maximum(-distance, 0)
        else:
            buckets //= 2
            ahead, distance = jnp.where(distance > 0, buckets, 0), jnp.abs(distance)
        table = jnp.asarray(distance_buckets(buckets, self.max_distance))
        bucket = ahead + table[jnp.minimum(distance, self.max_distance)]
        return self.relative_attention_bias(bucket).transpose(2, 0, 1)[None]


class Dense(nnx.Module):
    """The feed-forward part: plain (wi, wo), or gated (wi_0, wi_1, wo)."""

    def __init__(self, config: Any, *, dtype: Any, rngs: nnx.Rngs):
        width, inner, factor = config.d_model, config.d_ff, config.initializer_factor
        self.gated, self.activation = config.is_gated_act, activation(config.dense_act_fn)
        for name in ("wi_0", "wi_1") if self.gated else ("wi",):
            setattr(self, name, linear(width, inner, factor * width**-0.5, dtype, rngs))
        self.wo = linear(inner, width, factor * inner**-0.5, dtype, rngs)
        self.dropout = nnx.Dropout(config.dropout_rate)

    def __call__(self, hidden, rngs):
        if self.gated:
            inner = self.activation(self.wi_0(hidden)) * self.wi_1(hidden)
        else:
            inner = self.activation(self.wi(hidden))
        return self.wo(drop(inner, self.dropout, rngs))


class Sublayer(nnx.Module):
    """A part of a block under Hugging Face's name, the norm before it, and the dropout after it."""

    def __init__(self, config: Any, rngs: nnx.Rngs, **part: nnx.Module):
        for name, module in part.items():
            setattr(self, name, module)
        self.layer_norm = rms_norm(config, rngs)
        self.dropout = nnx.Dropout(config.dropout_rate)

    def add(self, hidden, change, rngs):
        return hidden + drop(change, self.dropout, rngs)


class Block(nnx.Module):
    def __init__(self, config: Any, *, decoder: bool, owns_bias: bool, dtype: Any, rngs: nnx.Rngs):
        attention = partial(Attention, config, decoder=decoder, dtype=dtype, rngs=rngs)
        parts: list[dict] = [{"SelfAttention": attention(owns_bias=owns_bias)}]
        if decoder:
            parts.append({"EncDecAttention": attention(owns_bias=False)})
        parts.append({"DenseReluDense": Dense(config, dtype=dtype, rngs=rngs)})
        self.layer = nnx.List(Sublayer(config, rngs, **part) for part in parts)

    def __call__(self, hidden, bias, encoder_hidden, encoder_bias, cache, position, rngs):
        first, *cross, last = self.layer
        normed = first.layer_norm(hidden)
        keys_values = first.SelfAttention.keys_values(normed)
        if cache is not None:
            keys_values = write_cache(cache["self"], keys_values, position)
        hidden = first.add(hidden, first.SelfAttention(normed, keys_values, bias, rngs), rngs)
        for part in cross:
            attention, normed = part.EncDecAttention, part.layer_norm(hidden)
            encoded = attention.keys_values(encoder_hidden) if cache is None else cache["cross"]
            hidden = part.add(hidden, attention(normed, encoded, encoder_bias, rngs), rngs)
        hidden = last.add(hidden, last.DenseReluDense(last.layer_norm(hidden), rngs), rngs)
        return hidden, keys_values


class Stack(nnx.Module):
    """The encoder or the decoder."""

    def __init__(self, config, layers: int, *, decoder: bool, own_table: bool, checkpoint: bool, dtype, rngs):
        self.embed_tokens = token_table(config, rngs) if own_table else None
        block = partial(Block, config, decoder=decoder, dtype=dtype, rngs=rngs)
        self.block = nnx.List(block(owns_bias=index == 0) for index in range(layers))
        self.final_layer_norm = rms_norm(config, rngs)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.checkpoint = checkpoint

    def __call__(
        self, hidden, mask, encoder_hidden=None, encoder_mask=None, cache=None, position=0, rngs=None
    ):
        queries, keys = position + jnp.arange(hidden.shape[1]), jnp.arange(mask.shape[-1])
        bias = self.block[0].layer[0].SelfAttention.position_bias(queries, keys) + mask_to_bias(mask)
        encoder_bias = None if encoder_mask is None else mask_to_bias(encoder_mask[:, None, None, :])
        hidden, new_cache = drop(hidden, self.dropout, rngs), []
        for index, block in enumerate(self.block):
            inputs = hidden, bias, encoder_hidden, encoder_bias, cache and cache[index], position
            hidden, keys_values = run_layer(block, *inputs, rngs=rngs, checkpoint=self.checkpoint)
            new_cache.append(cache and {"self": keys_values, "cross": cache[index]["cross"]})
        return drop(self.final_layer_norm(hidden), self.dropout, rngs), new_cache


class T5ForConditionalGeneration(nnx.Module):
    """T5 with the table of outputs.

    Args:
        config: a transformers.T5Config or MT5Config.
        own_tables: which of `tables`, all after the first, are parameters of their own instead of the first.
        dtype: of the matrix products; parameters, residuals, norms, softmax and logits are float32.
        gradient_checkpointing: whether gradients compute each block's activations anew, which saves memory.
        rngs: draws the parameters ("params") with transformers' standard deviations.

    The `rngs` of the methods draw dropout ("dropout"); None stands for no dropout.
    """

    class_ending = "ForConditionalGeneration"

    tables = ("shared.weight", "lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

    def __init__(
        self,
        config,
        own_tables: Collection[str] = (),
        *,
        dtype=jnp.float32,
        gradient_checkpointing=False,
        rngs,
    ):
        own_head, own_encoder, own_decoder = (name in own_tables for name in self.tables[1:])
        stack = partial(Stack, config, checkpoint=gradient_checkpointing, dtype=dtype, rngs=rngs)
        self.shared = token_table(config, rngs)
        self.encoder = stack(config.num_layers, decoder=False, own_table=own_encoder)
        self.decoder = stack(config.num_decoder_layers, decoder=True, own_table=own_decoder)
        self.lm_head = token_table(config, rngs) if own_head else None
        self.scale = config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0
        self.dtype = dtype

    def __call__(self, input_ids, attention_mask, decoder_input_ids, decoder_attention_mask=None, rngs=None):
        """Logits, float32 [batch, target, vocabulary], of integers [batch, source] and [batch, target]. Masks
        are 0 at padding; the decoder's is not needed where padding stands at the end."""
        hidden = self.encode(input_ids, attention_mask, rngs)
        return self.decode(decoder_input_ids, hidden, attention_mask, decoder_attention_mask, rngs)

    def encode(self, input_ids, attention_mask, rngs=None) -> jax.Array:
        """The encoder's output, float32 [batch, source, width]."""
        embedded = (self.encoder.embed_tokens or self.shared)(input_ids)
        return self.encoder(embedded, attention_mask[:, None, None, :], rngs=rngs)[0]

    def decode(
        self, decoder_input_ids, encoder_hidden, attention_mask, decoder_attention_mask=None, rngs=None
    ) -> jax.Array:
        """Logits as of `__call__`, of the encoder's output."""
        embedded = (self.decoder.embed_tokens or self.shared)(decoder_input_ids)
        mask = causal_mask(decoder_input_ids.shape[1], decoder_attention_mask)
        return self.scores(self.decoder(embedded, mask, encoder_hidden, attention_mask, rngs=rngs)[0])

    def scores(self, hidden: jax.Array) -> jax.Array:
        return vocabulary_scores(hidden * self.scale, self.lm_head or self.shared, self.dtype)

    def start_cache(self, encoder_hidden: jax.Array, rows: int, length: int) -> list[dict[str, KeysValues]]:
        """By layer: "cross", the keys and values of the encoder's output; "self", room for those of `length`
        positions of `rows` rows, of which each source has the same number, one after another."""
        cross = [block.layer[1].EncDecAttention.keys_values(encoder_hidden) for block in self.decoder.block]
        empty = jnp.zeros((rows, length, *cross[0][0].shape[2:]), self.dtype)
        return [{"self": (empty, empty), "cross": keys_values} for keys_values in cross]

    def step(self, tokens: jax.Array, position: jax.Array, cache: list, attention_mask: jax.Array):
        """Logits [rows, vocabulary] of what follows `tokens`, int [rows], which stand at `position`, and the
        cache with these put in; all positions before must be in it."""
        embedded = (self.decoder.embed_tokens or self.shared)(tokens[:, None])
        mask = (jnp.arange(cache[0]["self"][0].shape[1]) <= position)[None, None, None, :]
        hidden, cache = self.decoder(embedded, mask, None, attention_mask, cache, position)
        return self.scores(hidden)[:, 0], cache
