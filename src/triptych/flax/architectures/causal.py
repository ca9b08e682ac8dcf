"""What decoders alone share, GPT-2 and those of `decoder`: how they are called, and how they continue
texts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.layers import KeysValues, mask_to_bias, run_layer, vocabulary_scores
from triptych.models import decoders

Seen = Callable[[int | None], jax.Array]  # what attention adds to its scores, for layers with such a window


class CausalLM(nnx.Module):
    """A decoder with the table of outputs, which is that of the tokens unless `lm_head` is its own.

    Args:
        config: a transformers configuration of one of `decoders.MODEL_TYPES`.
        own_tables: "lm_head.weight" where the head has a table of its own.
        dtype: of the matrix products; parameters, residuals, norms, softmax and logits are float32.
        gradient_checkpointing: whether gradients compute each layer's activations anew, which saves memory.
        rngs: not used: `conversion.load` gives the parameters.
    """

    head = decoders.HEAD

    def __init__(self, config, own_tables=(), *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        own = nnx.Embed(config.vocab_size, config.hidden_size, rngs=rngs) if own_tables else None
        self.lm_head, self.dtype, self.checkpoint = own, dtype, gradient_checkpointing

    def __call__(self, input_ids, position_ids, rngs=None) -> jax.Array:
        """Logits, float32 [batch, length, vocabulary], of integers [batch, length].

        Positions begin anew at 0 with each text of a row: a place sees those before it in its own text, and
        no other. So padding on the right changes nothing. `rngs` draws dropout ("dropout"), if given."""
        return self.scores(self.decode(input_ids, position_ids, rngs))

    def decode(self, input_ids, position_ids, rngs=None) -> jax.Array:
        """The last layer's output, normed, float32 [batch, length, width]; see `__call__`."""
        text = jnp.cumsum(position_ids == 0, axis=1)
        same = (text[:, :, None] == text[:, None, :])[:, None]
        places = jnp.arange(input_ids.shape[1])
        return self.run(input_ids, position_ids, bias_of(places, places, same), rngs=rngs)[0]

    def scores(self, hidden: jax.Array) -> jax.Array:
        """Logits of what `decode` returns."""
        return vocabulary_scores(hidden, self.lm_head or self.token_table, self.dtype)

    def start_cache(
        self, prompts: jax.Array, mask: jax.Array, rows: int, length: int
    ) -> list[dict[str, KeysValues]]:
        """By layer, "self": keys and values of prompts, and room for those of `length` places in all.

        Args:
            prompts: integers [sources, places of the prompts], padded on the left, where `mask` is 0.
            rows: of the result, of which each source has the same number, one after another.
        """
        places = jnp.arange(prompts.shape[1])
        positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        bias = bias_of(places, places, mask[:, None, None, :] != 0)

        def with_room(values: jax.Array) -> jax.Array:
            values = jnp.repeat(values, rows // len(values), axis=0)
            return jnp.pad(values, ((0, 0), (0, length - values.shape[1]), (0, 0), (0, 0)))

        kept = self.run(prompts, positions, bias)[1]
        return [{"self": jax.tree.map(with_room, keys_values)} for keys_values in kept]

    def step(self, tokens: jax.Array, place: jax.Array, cache: list, attention_mask: jax.Array):
        """Logits [rows, vocabulary] of what follows `tokens`, int [rows], which stand at `place`, and the
        cache with these put in; all places before must be in it. `attention_mask` [sources, places] is 0 at
        padding, which stands at the beginning of rows."""
        mask = jnp.repeat(attention_mask, len(tokens) // len(attention_mask), axis=0)
        places, queries = jnp.arange(cache[0]["self"][0].shape[1]), place[None]
        real = jnp.pad(mask, ((0, 0), (0, len(places) - mask.shape[1])), constant_values=1)
        bias = bias_of(queries, places, real[:, None, None, :] != 0)
        positions = jnp.maximum(place - (mask == 0).sum(axis=1), 0)[:, None]
        hidden, kept = self.run(tokens[:, None], positions, bias, cache, place)
        return self.scores(hidden)[:, 0], [{"self": keys_values} for keys_values in kept]

    @property
    def token_table(self) -> nnx.Embed:
        raise NotImplementedError

    def run(
        self,
        input_ids: jax.Array,
        positions: jax.Array,
        bias: Seen,
        cache: list | None = None,
        place: jax.Array | int = 0,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[jax.Array, list[KeysValues]]:
        """The last layer's output, normed, and each layer's keys and values: of the given tokens, or, with a
        cache, of it with these put in at `place`."""
        raise NotImplementedError

    def run_layers(self, layers, hidden, inputs: list[tuple], cache, place, rngs):
        """The layers' output before the last norm, and keys and values as of `run`. Each layer reads the one
        before, its own of `inputs`, and its cache."""
        kept: list[KeysValues] = []
        for index, (layer, own) in enumerate(zip(layers, inputs, strict=True)):
            before = cache and cache[index]["self"]
            hidden, keys_values = run_layer(
                layer, hidden, *own, before, place, rngs=rngs, checkpoint=self.checkpoint
            )
            kept.append(keys_values)
        return hidden, kept


def bias_of(queries: jax.Array, keys: jax.Array, seen: jax.Array) -> Seen:
    """For a window, what attention adds to its scores, float32 [batch or 1, 1, queries, keys]: places see
    themselves and those before, of `seen` alone, at most so many as the window says.

    Args:
        queries, keys: places in the row.
        seen: bool [batch or 1, 1, queries or 1, keys].
    """
    distance = queries[:, None] - keys[None, :]
    made: dict[int | None, jax.Array] = {}

    def bias(window: int | None) -> jax.Array:
        if window not in made:
            near = (distance >= 0) & (True if window is None else distance < window)
            made[window] = mask_to_bias(seen & near)
        return made[window]

    return bias


def padding_unlearnt(embedded: jax.Array, tokens: jax.Array, padding: int | None) -> jax.Array:
    """Embeddings of tokens of which, as in PyTorch, that of padding is not learnt by reading it."""
    if padding is None:
        return embedded
    return jnp.where((tokens == padding)[..., None], jax.lax.stop_gradient(embedded), embedded)
