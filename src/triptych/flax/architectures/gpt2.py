"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), as DistilGPT2 is
too."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.causal import CausalLM
from triptych.flax.architectures.layers import activation, attend, drop, write_cache
from triptych.models import decoders


def layer_norm(config: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # With the variance in two passes XLA would compile the gradients for more than twice as long.
    epsilon = config.layer_norm_epsilon
    return nnx.LayerNorm(config.hidden_size, epsilon=epsilon, use_fast_variance=True, rngs=rngs)


class Linear(nnx.Module):
    """A linear layer whose weight is [inputs, outputs] in the file as well."""

    def __init__(self, inputs: int, outputs: int, dtype: Any):
        self.weight, self.bias = nnx.Param(jnp.zeros((inputs, outputs))), nnx.Param(jnp.zeros(outputs))
        self.dtype = dtype

    def __call__(self, hidden: jax.Array) -> jax.Array:
        return hidden.astype(self.dtype) @ self.weight[...].astype(self.dtype) + self.bias[...].astype(
            self.dtype
        )


class Block(nnx.Module):
    """Attention and a dense part, each with a norm before it."""

    def __init__(self, config: Any, index: int, *, dtype: Any, rngs: nnx.Rngs):
        width = config.hidden_size
        inner = config.n_inner or 4 * width
        self.ln_1, self.ln_2 = layer_norm(config, rngs), layer_norm(config, rngs)
        self.attn = nnx.Dict(c_attn=Linear(width, 3 * width, dtype), c_proj=Linear(width, width, dtype))
        self.mlp = nnx.Dict(c_fc=Linear(width, inner, dtype), c_proj=Linear(inner, width, dtype))
        self.activation, self.heads = activation(config.activation_function), config.num_attention_heads
        self.scale = (width // self.heads) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= index + 1
        self.attention_dropout, self.dropout = map(nnx.Dropout, (config.attn_pdrop, config.resid_pdrop))

    def __call__(self, hidden, bias, cache, place, rngs):
        parts = jnp.split(self.attn.c_attn(self.ln_1(hidden)), 3, axis=-1)
        query, key, value = (part.reshape(*hidden.shape[:2], self.heads, -1) for part in parts)
        keys_values = key, value
        if cache is not None:
            keys_values = write_cache(cache, keys_values, place)
        mixed = attend(query * self.scale, keys_values, bias, self.attention_dropout, rngs)
        change = self.attn.c_proj(mixed.reshape(hidden.shape))
        hidden = hidden + drop(change, self.dropout, rngs)
        change = self.mlp.c_proj(self.activation(self.mlp.c_fc(self.ln_2(hidden))))
        return hidden + drop(change, self.dropout, rngs), keys_values


class GPT2ForCausalLM(CausalLM):
    """GPT-2 with the table of outputs. A text that is longer than the table of positions gets none that mean
    anything: whoever makes batches asks `configs.positions` before."""

    tables = ("transformer.wte.weight", "lm_head.weight")

    def __init__(self, config, own_tables=(), *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        super().__init__(
            config, own_tables, dtype=dtype, gradient_checkpointing=gradient_checkpointing, rngs=rngs
        )
        decoders.require_supported(config)
        width = config.hidden_size
        self.transformer = nnx.Dict(
            wte=nnx.Embed(config.vocab_size, width, rngs=rngs),
            wpe=nnx.Embed(config.max_position_embeddings, width, rngs=rngs),
            h=nnx.List(Block(config, i, dtype=dtype, rngs=rngs) for i in range(config.num_hidden_layers)),
            ln_f=layer_norm(config, rngs),
        )
        self.dropout = nnx.Dropout(config.embd_pdrop)

    @property
    def token_table(self) -> nnx.Embed:
        return self.transformer.wte

    def run(self, input_ids, positions, bias, cache=None, place=0, rngs=None):
        parts = self.transformer
        hidden = drop(parts.wte(input_ids) + parts.wpe(positions), self.dropout, rngs)
        inputs = [(bias(None),) for _ in parts.h]
        hidden, kept = self.run_layers(parts.h, hidden, inputs, cache, place, rngs)
        return parts.ln_f(hidden), kept
