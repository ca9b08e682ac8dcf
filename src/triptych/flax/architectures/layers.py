"""What the models share: masks, attention and its cache, dropout, a layer's run, the scores of tokens."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.errors import InputError
from triptych.flax import random

KeysValues = tuple[jax.Array, jax.Array]  # each [batch, length, heads, width of a head]

# Hugging Face's names: "gelu" is the exact one, "gelu_new" the approximation by tanh.
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of that name; InputError for a name that is not in ACTIVATIONS."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(f"The configuration asks for the activation {name!r}; there are: {known}.")
    return ACTIVATIONS[name]


def layer_norm(width: int, epsilon: float, *, use_bias: bool = True, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """The norm of an encoder's layers, in float32."""
    # With the variance in two passes XLA would compile the gradients for more than twice as long.
    return nnx.LayerNorm(width, epsilon=epsilon, use_bias=use_bias, use_fast_variance=True, rngs=rngs)


def drop(
    hidden: jax.Array, dropout: nnx.Dropout, rngs: nnx.Rngs | None, *, whole_rows: bool = False
) -> jax.Array:
    """`hidden` with dropout drawn from `rngs`, or as it is where that is None. With `whole_rows` all of a row
    is dropped or nothing (stochastic depth, Huang et al. 2016, arXiv:1603.09382)."""
    if rngs is None or not dropout.rate:
        return hidden
    stream = rngs.dropout
    shape = (len(hidden), *[1] * (hidden.ndim - 1)) if whole_rows else hidden.shape
    kept = random.keeps(stream.key[...], stream.count[...], dropout.rate, shape)
    stream.count[...] += 1
    return jnp.where(kept, hidden / (1 - dropout.rate), 0)


def causal_mask(length: int, mask: jax.Array | None = None) -> jax.Array:
    """Each place sees itself and those before it, where `mask` [batch, length], if given, is not 0.
    Bool [batch or 1, 1, length, length]."""
    causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
    return causal if mask is None else causal & (mask[:, None, None, :] != 0)


def mask_to_bias(mask: jax.Array) -> jax.Array:
    """What attention adds to its scores, float32, to see only the places where the mask is not 0."""
    return jnp.where(mask != 0, 0.0, jnp.finfo(jnp.float32).min)


def attend(
    query: jax.Array, keys_values: KeysValues, bias: jax.Array, dropout: nnx.Dropout, rngs: nnx.Rngs | None
) -> jax.Array:
    """Attention (Vaswani et al. 2017, arXiv:1706.03762), unscaled.

    Args:
        query: [batch, target, heads, width]; the result has its shape.
        keys_values: of the source, perhaps of fewer heads, each of which serves several of the query's.
        bias: added to the scores [batch, heads, target, source]. Their softmax is float32, always.
        dropout: of the weights, drawn from `rngs` if there are any.
    """
    groups = query.shape[2] // keys_values[0].shape[2]
    key, value = (each if groups == 1 else jnp.repeat(each, groups, axis=2) for each in keys_values)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", drop(weights, dropout, rngs), value)


def write_cache(cache: KeysValues, keys_values: KeysValues, position: jax.Array) -> KeysValues:
    """The cache with the keys and values of one position, or of several from it on, put in."""
    put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=position, axis=1)
    return jax.tree.map(put, cache, keys_values)


def run_layer(layer: Callable, *inputs: Any, rngs: nnx.Rngs | None, checkpoint: bool) -> Any:
    """`layer(*inputs, rngs)`; with `checkpoint`, the backward pass computes its activations anew instead of
    keeping them."""

    # The key is drawn outside, because jax.checkpoint does not let a stream of random numbers advance inside.
    def run(key, *inputs):
        return layer(*inputs, None if key is None else nnx.Rngs(dropout=key))

    return (jax.checkpoint(run) if checkpoint else run)(None if rngs is None else rngs.dropout(), *inputs)


class Fixed(nnx.Variable):
    """A parameter that stands in the file and is not trained."""


class Patches(nnx.Module):
    """A convolution whose patches neither overlap nor leave gaps: a product of matrices."""

    def __init__(self, channels: int, width: int, size: tuple[int, int], *, dtype: Any, rngs: nnx.Rngs):
        convolution = nnx.Conv(channels, width, size, rngs=rngs)
        self.kernel, self.bias, self.dtype = convolution.kernel, convolution.bias, dtype

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """[rows, height, width, channels] as [rows, patches down, patches across, width]. What is beyond the
        last whole patch is not read."""
        tall, wide, channels, width = self.kernel.shape
        rows, down, across = len(pixels), pixels.shape[1] // tall, pixels.shape[2] // wide
        pixels = pixels[:, : down * tall, : across * wide]
        parts = pixels.reshape(rows, down, tall, across, wide, channels).swapaxes(2, 3)
        parts = parts.reshape(rows, down, across, -1).astype(self.dtype)
        kernel = self.kernel[...].reshape(-1, width).astype(self.dtype)
        return parts @ kernel + self.bias[...].astype(self.dtype)


def require_positions(length: int, places: int) -> None:
    """Raises InputError for a text longer than a table of positions: looking up a missing row gives NaN."""
    if length > places:
        found = f"A text of {length} tokens is longer than the model's {places} positions"
        raise InputError(f"{found}: lower the maximum length.")


def vocabulary_scores(hidden: jax.Array, table: nnx.Embed, dtype: Any) -> jax.Array:
    """Logits, float32 [batch, length, vocabulary], by a product in `dtype`."""
    rows = table.embedding[...].astype(dtype)
    return jnp.einsum("bld,vd->blv", hidden.astype(dtype), rows, preferred_element_type=jnp.float32)
