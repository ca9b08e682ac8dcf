"""Greedy and beam search: the tokens that `generate` of transformers 5 returns, by one compiled loop.

    search = decoding.search_of(decoding.generation_config(folder, config), num_beams=4, max_length=64)
    tokens = generate(model, {"input_ids": ids, "attention_mask": mask}, search)

Both follow the searches of transformers, heuristics included.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.models.decoding import OF_ROWS, Search

UNLIKELY = -1e9  # added to the score of what must not be chosen


def generate(model: Any, batch: Mapping[str, jax.Array], search: Search) -> jax.Array:
    """Token ids, int32 [rows, max_length], for the sources of a batch. It compiles a program for each shape.

    A row is the decoder's start, the tokens with the end, and filling. That is padding; after beam search
    with padding token 0 it is the end token, as in transformers.

    Args:
        batch: `input_ids` and `attention_mask` [rows, source length], and what `decoding.OF_ROWS` names,
            integers [rows], where each row has its own.
    """
    graphdef, state = nnx.split(model)
    own = {name: batch[name] for name in OF_ROWS if name in batch}
    return _program(graphdef, search)(state, batch["input_ids"], batch["attention_mask"], own)


@cache
def _program(graphdef: nnx.GraphDef, search: Search) -> Callable:
    def generate_tokens(state, input_ids, attention_mask, own):
        model = nnx.merge(graphdef, state)
        encoder_hidden = model.encode(input_ids, attention_mask)
        by = greedy_search if search.num_beams == 1 else beam_search
        begins = {name: getattr(search, name) for name in OF_ROWS} | own
        start, first = (
            None if token is None else jnp.broadcast_to(token, len(input_ids)) for token in begins.values()
        )
        return by(model, encoder_hidden, attention_mask, search, start, first)

    return jax.jit(generate_tokens)


def greedy_search(
    model: Any,
    encoder_hidden: jax.Array,
    attention_mask: jax.Array,
    search: Search,
    start: jax.Array,
    first: jax.Array | None,
) -> jax.Array:
    """The likeliest token at every step. `start` and `first` are the decoder's start and the first token that
    is forced, [rows]."""
    rows = len(encoder_hidden)

    def unfinished(state):
        _, length, finished, _ = state
        return (length < search.max_length) & ~finished.all()

    def extend(state):
        sequences, length, finished, cache = state
        logits, cache = model.step(sequences[:, length - 1], length - 1, cache, attention_mask)
        token = jnp.argmax(constrain(logits, sequences, length, search, first), axis=-1)
        token = jnp.where(finished, search.pad_token_id, token)
        return sequences.at[:, length].set(token), length + 1, finished | is_end(token, search), cache

    sequences = jnp.full((rows, search.max_length), search.pad_token_id)
    sequences = sequences.at[:, 0].set(start)
    cache = model.start_cache(encoder_hidden, rows, search.max_length - 1)
    return jax.lax.while_loop(unfinished, extend, (sequences, 1, jnp.zeros(rows, bool), cache))[0]


def beam_search(
    model: Any,
    encoder_hidden: jax.Array,
    attention_mask: jax.Array,
    search: Search,
    start: jax.Array,
    first: jax.Array | None,
) -> jax.Array:
    """The best of the `num_beams` beginnings that go on; `start` and `first` as of `greedy_search`."""
    rows, beams = len(encoder_hidden), search.num_beams
    first = None if first is None else jnp.repeat(first, beams)
    # So many that others go on even if the best continuation of every beam is an end
    kept = max(2, 1 + len(search.eos_token_id)) * beams
    stop_when_full = search.early_stopping is True
    penalties = jnp.array([0.0] + [length**search.length_penalty for length in range(1, search.max_length)])

    def unfinished(state):
        can_improve = state["can_improve"].any() & ~(state["finished"].all() & stop_when_full)
        return can_improve & ~state["all_ended"]

    def extend(state):
        length, running = state["length"], state["running"]
        flat = running.reshape(rows * beams, -1)
        logits, cache = model.step(flat[:, length - 1], length - 1, state["cache"], attention_mask)
        scores = constrain(jax.nn.log_softmax(logits), flat, length, search, first)
        scores = scores.reshape(rows, beams, -1)
        scores = (scores + state["running_scores"][:, :, None]).reshape(rows, -1)

        # The best continuations of a row's beams, best first
        scores, chosen = jax.lax.top_k(scores, kept)
        beam, token = jnp.divmod(chosen, logits.shape[-1])
        candidates = take(running, beam).at[:, :, length].set(token)
        ended = is_end(token, search) | (length + 1 >= search.max_length)

        # Those that have not ended run on
        running_scores, order = jax.lax.top_k(scores + ended * UNLIKELY, beams)
        cache = reorder_cache(cache, take(beam, order))

        # Those that have, if among the best, compete with the finished ones
        counts = ended & (jnp.arange(kept) < beams)
        full = state["finished"].all(axis=1, keepdims=True) & stop_when_full
        final_scores = scores / penalties[length]
        final_scores += (full + 0.0 + ~state["can_improve"] + ~counts) * UNLIKELY
        merged = jnp.concatenate([state["finished_scores"], final_scores], axis=1)
        finished_scores, best = jax.lax.top_k(merged, beams)
        finished = take(jnp.concatenate([state["finished"], counts], axis=1), best)

        # Can a running beam still beat the worst finished one?
        could_grow = search.early_stopping == "never" and search.length_penalty > 0
        best_running = running_scores[:, :1] / penalties[search.max_length - 1 if could_grow else length]
        worst_finished = jnp.where(finished, finished_scores.min(axis=1, keepdims=True), UNLIKELY)
        can_improve = state["can_improve"] & (best_running > worst_finished).any(axis=1, keepdims=True)
        return {
            "length": length + 1,
            "running": take(candidates, order),
            "running_scores": running_scores,
            "best": take(jnp.concatenate([state["best"], candidates], axis=1), best),
            "finished_scores": finished_scores,
            "finished": finished,
            "can_improve": can_improve,
            "all_ended": ended.all(),
            "cache": cache,
        }

    filling = search.pad_token_id or search.eos_token_id[0]
    sequences = jnp.full((rows, beams, search.max_length), filling)
    sequences = sequences.at[:, :, 0].set(start[:, None])
    state = {
        "length": 1,
        "running": sequences,
        # At first all beams are equal, so only one may be continued.
        "running_scores": jnp.full((rows, beams), UNLIKELY).at[:, 0].set(0.0),
        "best": sequences,
        "finished_scores": jnp.full((rows, beams), UNLIKELY),
        "finished": jnp.zeros((rows, beams), bool),
        "can_improve": jnp.ones((rows, 1), bool),
        "all_ended": False,
        "cache": model.start_cache(encoder_hidden, rows * beams, search.max_length - 1),
    }
    return jax.lax.while_loop(unfinished, extend, state)["best"][:, 0]


def constrain(
    scores: jax.Array, sequences: jax.Array, length: jax.Array, search: Search, first: jax.Array | None
) -> jax.Array:
    """Scores [rows, vocabulary] of the token that follows the first `length` of `sequences` [rows,
    max_length], changed by what the search forbids, punishes or forces.

    Args:
        first: the first token of each row that is forced, [rows]; None for none.
    """
    rows, places = jnp.arange(len(scores))[:, None], jnp.arange(search.max_length)
    nowhere = scores.shape[-1]  # a token beyond the vocabulary, which changes no score
    vocabulary = jnp.arange(nowhere)
    if (penalty := search.repetition_penalty) != 1:
        present = jnp.where(places < length, sequences, nowhere)
        present = jnp.zeros(scores.shape, bool).at[rows, present].set(True, mode="drop")
        scores = jnp.where(present, jnp.where(scores < 0, scores * penalty, scores / penalty), scores)
    if 0 < (size := search.no_repeat_ngram_size) <= search.max_length:
        # A place ends a repeated n-gram if the tokens before it equal the last tokens of the sequence.
        last = jax.lax.dynamic_slice_in_dim(sequences, length - size + 1, size - 1, axis=1)
        windows = places[: search.max_length - size + 1, None] + jnp.arange(size)
        repeated = (sequences[:, windows[:, :-1]] == last[:, None, :]).all(axis=-1)
        repeated &= windows[:, -1] < length
        ends = jnp.where(repeated, sequences[:, windows[:, -1]], nowhere)
        scores = scores.at[rows, ends].set(-jnp.inf, mode="drop")
    if search.bad_words_ids:
        scores = jnp.where(jnp.isin(vocabulary, jnp.array(search.bad_words_ids)), -jnp.inf, scores)
    too_short = (length < search.min_length) & jnp.isin(vocabulary, jnp.array(search.eos_token_id))
    scores = jnp.where(too_short, -jnp.inf, scores)

    def force(scores, allowed, now):
        return jnp.where(now, jnp.where(allowed, 0.0, -jnp.inf), scores)

    if first is not None:
        scores = force(scores, vocabulary == first[:, None], length == 1)
    if search.forced_eos_token_id:
        is_end_token = jnp.isin(vocabulary, jnp.array(search.forced_eos_token_id))
        scores = force(scores, is_end_token, length == search.max_length - 1)
    return jax.nn.log_softmax(scores) if search.renormalize_logits else scores


def is_end(token: jax.Array, search: Search) -> jax.Array:
    return jnp.isin(token, jnp.array(search.eos_token_id))


def take(values: jax.Array, beams: jax.Array) -> jax.Array:
    """From values [rows, beams, ...] those of the beams whose numbers are in `beams` [rows, chosen]."""
    return jnp.take_along_axis(values, beams.reshape(*beams.shape, *[1] * (values.ndim - 2)), axis=1)


def reorder_cache(cache: list, beams: jax.Array) -> list:
    """The cache with each layer's "self" taken from `beams` [rows, beams]. Its "cross" is the same for all
    beams of a row."""

    def chosen(values):
        return take(values.reshape(*beams.shape, *values.shape[1:]), beams).reshape(values.shape)

    return [layer | {"self": jax.tree.map(chosen, layer["self"])} for layer in cache]
