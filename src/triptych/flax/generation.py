"""Greedy and beam search, the tokens that `generate` of transformers 5 returns, and sampling, by one compiled
loop.

    search = decoding.search_of(decoding.generation_config(folder, config), num_beams=4, max_length=64)
    tokens = generate(model, {"input_ids": ids, "attention_mask": mask}, search)

The searches follow those of transformers, heuristics included. An encoder-decoder answers sources; a decoder
alone continues prompts.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.models import decoders
from triptych.models.decoding import DRAWN, OF_ROWS, Search

UNLIKELY = -1e9  # added to the score of what must not be chosen


class Beginning(NamedTuple):
    """What a search continues.

    Attributes:
        tokens: int [rows, given]: the decoder's start, or a prompt, whose padding is on the left.
        real: bool [rows, given]: where it is not padding.
        step: of tokens [sequences], their place, and the cache: the next token's logits [sequences,
            vocabulary], and the cache with them.
        cache: of a row's beams, one after another, with all tokens but the last.
        first: the first new token of each row that is forced, [rows]; None for none.
        drawn: float32 [rows, new tokens], by which sampling chooses; None without it.
    """

    tokens: jax.Array
    real: jax.Array
    step: Callable
    cache: list
    first: jax.Array | None = None
    drawn: jax.Array | None = None

    @property
    def behind(self) -> int:
        """How many tokens are before the one that a search's lengths count first."""
        return self.tokens.shape[1] - 1


def generate(model: Any, batch: Mapping[str, jax.Array], search: Search) -> jax.Array:
    """Token ids, int32, for the sources or prompts of a batch. It compiles a program for each shape.

    A row is the tokens with the end, and filling, [rows, max_length - 1]; of an encoder-decoder it begins
    with the decoder's start, [rows, max_length]. The filling is padding; after beam search with padding token
    0 it is the end token, as in transformers.

    Args:
        batch: `input_ids` and `attention_mask` [rows, length of sources or prompts]; what `decoding.OF_ROWS`
            names, integers [rows], where each row has its own; for sampling `decoding.DRAWN`.

    Raises:
        ValueError: if it has too few numbers for sampling.
    """
    graphdef, state = nnx.split(model)
    own = {name: batch[name] for name in OF_ROWS if name in batch}
    drawn = batch[DRAWN] if search.do_sample and DRAWN in batch else None
    search.require_numbers(0 if drawn is None else drawn.shape[1])
    return _program(graphdef, search)(state, batch["input_ids"], batch["attention_mask"], own, drawn)


@cache
def _program(graphdef: nnx.GraphDef, search: Search) -> Callable:
    def generate_tokens(state, input_ids, attention_mask, own, drawn):
        model = nnx.merge(graphdef, state)
        by = greedy_search if search.num_beams == 1 else beam_search
        if model.class_ending == decoders.HEAD:
            beginning = of_prompts(model, input_ids, attention_mask, search)._replace(drawn=drawn)
            return by(beginning, search)[:, beginning.behind + 1 :]
        return by(of_sources(model, input_ids, attention_mask, search, own), search)

    return jax.jit(generate_tokens)


def of_sources(model: Any, input_ids, attention_mask, search: Search, own: dict) -> Beginning:
    """What the decoder of an encoder-decoder continues: its start."""
    rows = len(input_ids)
    begins = {name: getattr(search, name) for name in OF_ROWS} | own
    start, first = (None if token is None else jnp.broadcast_to(token, rows) for token in begins.values())
    assert start is not None, "`search_of` refuses a search without it"
    hidden = model.encode(input_ids, attention_mask)
    cache = model.start_cache(hidden, rows * search.num_beams, search.max_length - 1)
    step = partial(model.step, attention_mask=attention_mask)
    return Beginning(start[:, None], jnp.ones((rows, 1), bool), step, cache, first)


def of_prompts(model: Any, input_ids, attention_mask, search: Search) -> Beginning:
    """What a decoder alone continues: prompts, whose padding may stand anywhere."""
    if input_ids.shape[1] == 1:  # the tokens before the last are read at once, so there has to be one
        input_ids, attention_mask = (jnp.pad(each, ((0, 0), (1, 0))) for each in (input_ids, attention_mask))
    order = jnp.argsort(attention_mask != 0, axis=1, stable=True)
    tokens, mask = (jnp.take_along_axis(each, order, axis=1) for each in (input_ids, attention_mask))
    before, rows = tokens[:, :-1], len(tokens) * search.num_beams
    cache = model.start_cache(before, mask[:, :-1], rows, before.shape[1] + search.max_length - 1)
    return Beginning(tokens, mask != 0, partial(model.step, attention_mask=mask), cache)


def greedy_search(beginning: Beginning, search: Search) -> jax.Array:
    """The likeliest token at every step, or the one that a row's number chooses, after what is given; int
    [rows, given + max_length - 1]."""
    rows, given = beginning.tokens.shape
    longest = beginning.behind + search.max_length

    def unfinished(state):
        _, length, finished, _ = state
        return (length < longest) & ~finished.all()

    def extend(state):
        sequences, length, finished, cache = state
        logits, cache = beginning.step(sequences[:, length - 1], length - 1, cache)
        scores = constrain(logits, sequences, length, search, beginning)
        if beginning.drawn is None:
            token = jnp.argmax(scores, axis=-1)
        else:
            token = sample(scores, beginning.drawn[:, length - given], search)
        token = jnp.where(finished, search.pad_token_id, token)
        return sequences.at[:, length].set(token), length + 1, finished | is_end(token, search), cache

    sequences = jnp.full((rows, longest), search.pad_token_id)
    sequences = sequences.at[:, :given].set(beginning.tokens)
    state = sequences, given, jnp.zeros(rows, bool), beginning.cache
    return jax.lax.while_loop(unfinished, extend, state)[0]


def sample(scores: jax.Array, numbers: jax.Array, search: Search) -> jax.Array:
    """The tokens, int [rows], that numbers from 0 to below 1, [rows], choose of those of `scores` [rows,
    vocabulary]: where the sum of probabilities, from the likeliest token on, exceeds the number. Before, as
    in transformers, temperature, top_k and top_p (Holtzman et al. 2020, arXiv:1904.09751) apply."""
    scores = scores / search.temperature
    order = jnp.argsort(-scores, axis=-1, stable=True)
    scores = jnp.take_along_axis(scores, order, axis=-1)
    if 0 < search.top_k < scores.shape[-1]:
        scores = jnp.where(scores < scores[:, search.top_k - 1, None], -jnp.inf, scores)
    if search.top_p < 1:
        probabilities = jax.nn.softmax(scores)
        likelier = jnp.cumsum(probabilities, axis=-1) - probabilities
        scores = jnp.where(likelier < search.top_p, scores, -jnp.inf)
    probabilities = jax.nn.softmax(scores)
    sums = jnp.cumsum(probabilities, axis=-1)
    chosen = (sums <= numbers[:, None] * sums[:, -1:]).sum(axis=-1)
    chosen = jnp.minimum(chosen, (probabilities > 0).sum(axis=-1) - 1)
    return jnp.take_along_axis(order, chosen[:, None], axis=-1)[:, 0]


def beam_search(beginning: Beginning, search: Search) -> jax.Array:
    """The best of the `num_beams` beginnings that go on; its shape is that of `greedy_search`."""
    (rows, given), beams, behind = beginning.tokens.shape, search.num_beams, beginning.behind
    longest = behind + search.max_length
    each = beginning._replace(
        real=jnp.repeat(beginning.real, beams, axis=0),
        first=None if beginning.first is None else jnp.repeat(beginning.first, beams),
    )
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
        logits, cache = beginning.step(flat[:, length - 1], length - 1, state["cache"])
        scores = constrain(jax.nn.log_softmax(logits), flat, length, search, each)
        scores = scores.reshape(rows, beams, -1)
        scores = (scores + state["running_scores"][:, :, None]).reshape(rows, -1)

        # The best continuations of a row's beams, best first
        scores, chosen = jax.lax.top_k(scores, kept)
        beam, token = jnp.divmod(chosen, logits.shape[-1])
        candidates = take(running, beam).at[:, :, length].set(token)
        ended = is_end(token, search) | (length + 1 >= longest)

        # Those that have not ended run on
        running_scores, order = jax.lax.top_k(scores + ended * UNLIKELY, beams)
        cache = reorder_cache(cache, take(beam, order))

        # Those that have, if among the best, compete with the finished ones
        counts = ended & (jnp.arange(kept) < beams)
        full = state["finished"].all(axis=1, keepdims=True) & stop_when_full
        final_scores = scores / penalties[length - behind]
        final_scores += (full + 0.0 + ~state["can_improve"] + ~counts) * UNLIKELY
        merged = jnp.concatenate([state["finished_scores"], final_scores], axis=1)
        finished_scores, best = jax.lax.top_k(merged, beams)
        finished = take(jnp.concatenate([state["finished"], counts], axis=1), best)

        # Can a running beam still beat the worst finished one?
        could_grow = search.early_stopping == "never" and search.length_penalty > 0
        compared = search.max_length - 1 if could_grow else length - behind
        best_running = running_scores[:, :1] / penalties[compared]
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

    sequences = jnp.full((rows, beams, longest), search.beams_filling)
    sequences = sequences.at[:, :, :given].set(beginning.tokens[:, None])
    state = {
        "length": given,
        "running": sequences,
        # At first all beams are equal, so only one may be continued.
        "running_scores": jnp.full((rows, beams), UNLIKELY).at[:, 0].set(0.0),
        "best": sequences,
        "finished_scores": jnp.full((rows, beams), UNLIKELY),
        "finished": jnp.zeros((rows, beams), bool),
        "can_improve": jnp.ones((rows, 1), bool),
        "all_ended": False,
        "cache": beginning.cache,
    }
    return jax.lax.while_loop(unfinished, extend, state)["best"][:, 0]


def constrain(
    scores: jax.Array, sequences: jax.Array, length: jax.Array, search: Search, beginning: Beginning
) -> jax.Array:
    """Scores [rows, vocabulary] of the token that follows the first `length` of `sequences` [rows, given +
    max_length - 1], changed by what the search forbids, punishes or forces. A prompt's padding is no token of
    it."""
    rows, places = jnp.arange(len(scores))[:, None], jnp.arange(sequences.shape[1])
    new = ((0, 0), (0, search.max_length - 1))
    real = jnp.pad(beginning.real, new, constant_values=True) & (places < length)
    counted = length - beginning.behind  # as the search's lengths are
    nowhere = scores.shape[-1]  # a token beyond the vocabulary, which changes no score
    vocabulary = jnp.arange(nowhere)
    if (penalty := search.repetition_penalty) != 1:
        present = jnp.where(real, sequences, nowhere)
        present = jnp.zeros(scores.shape, bool).at[rows, present].set(True, mode="drop")
        scores = jnp.where(present, jnp.where(scores < 0, scores * penalty, scores / penalty), scores)
    if 0 < (size := search.no_repeat_ngram_size) <= len(places):
        # A place ends a repeated n-gram if the tokens before it equal the last tokens of the sequence.
        last = jax.lax.dynamic_slice_in_dim(sequences, length - size + 1, size - 1, axis=1)
        windows = places[: len(places) - size + 1, None] + jnp.arange(size)
        repeated = (sequences[:, windows[:, :-1]] == last[:, None, :]).all(axis=-1)
        repeated &= real[:, windows].all(axis=-1)
        ends = jnp.where(repeated, sequences[:, windows[:, -1]], nowhere)
        scores = scores.at[rows, ends].set(-jnp.inf, mode="drop")
    if search.bad_words_ids:
        scores = jnp.where(jnp.isin(vocabulary, jnp.array(search.bad_words_ids)), -jnp.inf, scores)
    too_short = (counted < search.min_length) & jnp.isin(vocabulary, jnp.array(search.eos_token_id))
    scores = jnp.where(too_short, -jnp.inf, scores)

    def force(scores, allowed, now):
        return jnp.where(now, jnp.where(allowed, 0.0, -jnp.inf), scores)

    if beginning.first is not None:
        scores = force(scores, vocabulary == beginning.first[:, None], counted == 1)
    if search.forced_eos_token_id:
        is_end_token = jnp.isin(vocabulary, jnp.array(search.forced_eos_token_id))
        scores = force(scores, is_end_token, counted == search.max_length - 1)
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
