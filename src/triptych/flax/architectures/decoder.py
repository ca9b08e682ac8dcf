"""Llama (Touvron et al. 2023, arXiv:2302.13971) and its kin: Mistral (Jiang et al. 2023, arXiv:2310.06825),
Qwen2 (Yang et al. 2024, arXiv:2407.10671), Qwen3 (Yang et al. 2025, arXiv:2505.09388), SmolLM3, OLMo 2 (Walsh
et al. 2024, arXiv:2501.00656) and Gemma 3 (arXiv:2503.19786). See `triptych.models.decoders` for what sets
them apart."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.causal import CausalLM, padding_unlearnt
from triptych.flax.architectures.layers import activation, attend, write_cache
from triptych.models import decoders
from triptych.models.decoders import DecoderSettings, Rope

Rotation = tuple[jax.Array, jax.Array]  # cosines and sines, float32 [batch, length, 1, half of a head]


class Norm(nnx.Module):
    """RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) over the last axis, in float32."""

    def __init__(self, width: int, settings: DecoderSettings):
        self.scale = nnx.Param(jnp.ones(width))
        self.epsilon, self.offset = settings.norm_epsilon, settings.kind.norm_offset

    def __call__(self, hidden: jax.Array) -> jax.Array:
        hidden = hidden.astype(jnp.float32)
        size = jax.lax.rsqrt((hidden**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return hidden * size * (self.scale[...] + self.offset)


class Attention(nnx.Module):
    """Attention in which several heads may share keys and values (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, s: DecoderSettings, *, dtype: Any, rngs: nnx.Rngs):
        linear, bias = partial(nnx.Linear, dtype=dtype, rngs=rngs), s.attention_biases
        queries, keys = s.heads * s.head_width, s.key_value_heads * s.head_width
        self.q_proj = linear(s.width, queries, use_bias=bias)
        self.k_proj, self.v_proj = (linear(s.width, keys, use_bias=bias) for _ in range(2))
        self.o_proj = linear(queries, s.width, use_bias=s.output_bias)
        self.each_head = s.kind.head_norms == "each"
        if s.kind.head_norms:
            widths = (s.head_width, s.head_width) if self.each_head else (queries, keys)
            self.q_norm, self.k_norm = (Norm(width, s) for width in widths)
        self.normed, self.dtype, self.head_width = bool(s.kind.head_norms), dtype, s.head_width
        self.scale, self.dropout = s.attention_scale, nnx.Dropout(s.attention_dropout)

    def __call__(self, hidden, bias, rotation: Rotation | None, cache, place, rngs):
        query, key = self.q_proj(hidden), self.k_proj(hidden)
        if self.normed and not self.each_head:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key, value = map(self.by_head, (query, key, self.v_proj(hidden)))
        if self.normed and self.each_head:
            query, key = self.q_norm(query), self.k_norm(key)
        if rotation is not None:
            query, key = rotated(query, rotation), rotated(key, rotation)
        keys_values = key.astype(self.dtype), value
        if cache is not None:
            keys_values = write_cache(cache, keys_values, place)
        mixed = attend((query * self.scale).astype(self.dtype), keys_values, bias, self.dropout, rngs)
        return self.o_proj(mixed.reshape(*hidden.shape[:2], -1)), keys_values

    def by_head(self, projected: jax.Array) -> jax.Array:
        return projected.reshape(*projected.shape[:2], -1, self.head_width)


class Dense(nnx.Module):
    """The gated part (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, s: DecoderSettings, *, dtype: Any, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, use_bias=s.dense_biases, dtype=dtype, rngs=rngs)
        self.gate_proj, self.up_proj = (linear(s.width, s.inner) for _ in range(2))
        self.down_proj, self.activation = linear(s.inner, s.width), activation(s.activation)

    def __call__(self, hidden):
        return self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))


class Layer(nnx.Module):
    """Attention and a dense part, each added to what it read, with norms before or after or both."""

    def __init__(self, s: DecoderSettings, *, dtype: Any, rngs: nnx.Rngs):
        self.self_attn, self.mlp = Attention(s, dtype=dtype, rngs=rngs), Dense(s, dtype=dtype, rngs=rngs)
        for name in filter(None, s.kind.norms):
            setattr(self, name, Norm(s.width, s))
        self.norms = s.kind.norms

    def __call__(self, hidden, bias, rotation, cache, place, rngs):
        before, after, before_dense, after_dense = (
            getattr(self, name) if name else lambda hidden: hidden for name in self.norms
        )
        attended, keys_values = self.self_attn(before(hidden), bias, rotation, cache, place, rngs)
        hidden = hidden + after(attended)
        return hidden + after_dense(self.mlp(before_dense(hidden))), keys_values


class DecoderForCausalLM(CausalLM):
    """Llama or one of its kin with the table of outputs."""

    tables = ("model.embed_tokens.weight", "lm_head.weight")

    def __init__(self, config, own_tables=(), *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        super().__init__(
            config, own_tables, dtype=dtype, gradient_checkpointing=gradient_checkpointing, rngs=rngs
        )
        s = self.settings = decoders.settings(config)
        layers = nnx.List(Layer(s, dtype=dtype, rngs=rngs) for _ in s.layers)
        tokens = nnx.Embed(config.vocab_size, s.width, rngs=rngs)
        self.model = nnx.Dict(embed_tokens=tokens, layers=layers, norm=Norm(s.width, s))

    @property
    def token_table(self) -> nnx.Embed:
        return self.model.embed_tokens

    def run(self, input_ids, positions, bias, cache=None, place=0, rngs=None):
        s = self.settings
        hidden = self.model.embed_tokens(input_ids) * s.embedding_scale
        hidden = padding_unlearnt(hidden, input_ids, s.padding)
        rotations: dict[Rope | None, Rotation | None] = {None: None}
        for rope in {layer.rope: None for layer in s.layers if layer.rope}:
            rotations[rope] = rotation(positions, rope)
        inputs = [(bias(layer.window), rotations[layer.rope]) for layer in s.layers]
        hidden, kept = self.run_layers(self.model.layers, hidden, inputs, cache, place, rngs)
        return self.model.norm(hidden), kept


def rotation(positions: jax.Array, rope: Rope) -> Rotation:
    """Cosines and sines of the angles of positions [batch, length]."""
    angles = positions[..., None, None].astype(jnp.float32) * jnp.array(rope.frequencies, jnp.float32)
    return jnp.cos(angles) * rope.factor, jnp.sin(angles) * rope.factor


def rotated(heads: jax.Array, rotation: Rotation) -> jax.Array:
    """Queries or keys [batch, length, heads, width], of which the first half of a head's width is turned
    together with the second."""
    first, second = jnp.split(heads, 2, axis=-1)
    cosine, sine = rotation
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
