"""Greedy and beam search, the tokens that `generate` of transformers 5 returns, and sampling, by one trace
for all batches.

    search = decoding.search_of(decoding.generation_config(folder, config), num_beams=4, max_length=64)

    names = ("input_ids", "attention_mask")

    @tf.function(input_signature=[dict.fromkeys(names, tf.TensorSpec((None, None), tf.int32))])
    def generate_step(batch):
        return generate(model, batch, search)

The searches follow those of transformers, heuristics included. An encoder-decoder answers sources; a decoder
alone continues prompts. Keys and values of past positions are kept, and those of sources computed once.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from triptych.errors import InputError
from triptych.models import configs
from triptych.models.decoding import DRAWN, OF_ROWS, Search
from triptych.tensorflow.architectures import Causal, KeysValues, Prompts, Seq2Seq, Source

UNLIKELY = -1e9  # added to the score of what must not be chosen


class Beginning(NamedTuple):
    """What a search continues.

    Attributes:
        tokens: int32 [rows, given]: the decoder's start, or a prompt, whose padding is on the left.
        real: bool [rows, given]: where it is not padding.
        past: of a row's beams, one after another, keys and values of all tokens but the last.
        source: what the model's `step` reads beside them.
        first: the first new token of each row that is forced, int32 [rows]; None for none.
        drawn: float32 [rows, new tokens], by which sampling chooses; None without it.
    """

    tokens: tf.Tensor
    real: tf.Tensor
    past: list[KeysValues]
    source: Source | Prompts
    first: tf.Tensor | None = None
    drawn: tf.Tensor | None = None

    @property
    def behind(self) -> tf.Tensor:
        """How many tokens are before the one that a search's lengths count first, an int32 scalar."""
        return tf.shape(self.tokens)[1] - 1


def generate(model: Seq2Seq | Causal, batch: Mapping[str, tf.Tensor], search: Search) -> tf.Tensor:
    """Token ids for the sources or prompts of a batch, to be called in a tf.function.

    Args:
        model: see `triptych.tensorflow.architectures`.
        batch: `input_ids` and `attention_mask`, int32 [rows, length of sources or prompts]; what
            `decoding.OF_ROWS` names, int32 [rows], where each row has its own; for sampling `decoding.DRAWN`.
        search: see `triptych.models.decoding`.

    Returns:
        int32 [rows, length of the longest]: of an encoder-decoder the decoder's start; the tokens with the
        end, and filling. That is padding; after beam search with padding token 0 it is the end token, as in
        transformers.

    Raises:
        InputError: if the model has no positions for the longest output.
        ValueError: if there are no numbers for sampling.
    """
    by = greedy_search if search.num_beams == 1 else beam_search
    if isinstance(model, Causal):
        beginning = of_prompts(model, batch, search)
        return by(model, beginning, search)[:, beginning.behind + 1 :]
    available, wanted = configs.positions(model.config), search.max_length - 1
    if available is not None and wanted > available:
        raise InputError(
            f"Texts of {wanted} tokens cannot be generated: the model has {available} positions."
        )
    return by(model, of_sources(model, batch, search), search)


def of_sources(model: Seq2Seq, batch: Mapping[str, tf.Tensor], search: Search) -> Beginning:
    """What the decoder of an encoder-decoder continues: its start."""
    mask = batch["attention_mask"]
    source = model.start(model.encode(batch["input_ids"], mask), mask)
    rows = tf.shape(mask)[0]
    begins = {name: batch.get(name, getattr(search, name)) for name in OF_ROWS}
    start, first = (None if token is None else tf.broadcast_to(token, [rows]) for token in begins.values())
    assert start is not None, "`search_of` refuses a search without it"
    past = empty_past(model, rows * search.num_beams)
    return Beginning(start[:, None], tf.ones((rows, 1), "bool"), past, source, first)


def of_prompts(model: Causal, batch: Mapping[str, tf.Tensor], search: Search) -> Beginning:
    """What a decoder alone continues: prompts, whose padding may stand anywhere."""
    drawn = batch.get(DRAWN) if search.do_sample else None
    if search.do_sample:
        search.require_numbers(0 if drawn is None else drawn.shape[1] or search.max_length - 1)
    order = tf.argsort(tf.cast(batch["attention_mask"] != 0, "int32"), axis=1, stable=True)
    tokens, mask = (
        tf.gather(batch[name], order, axis=1, batch_dims=1) for name in ("input_ids", "attention_mask")
    )
    past, source = model.start(tokens, mask, search.num_beams)
    return Beginning(tokens, mask != 0, past, source, drawn=drawn)


def greedy_search(model: Seq2Seq | Causal, beginning: Beginning, search: Search) -> tf.Tensor:
    """The likeliest token at every step, or the one that a row's number chooses, after what is given; int32
    [rows, length of the longest]."""
    rows, given = tf.shape(beginning.tokens)[0], beginning.behind + 1
    longest = beginning.behind + search.max_length

    def body(length, tokens, finished, past):
        logits, past = model.step(tokens[..., length - 1], length - 1, past, beginning.source)
        scores = restrict(logits, tokens, length, search, beginning)
        if beginning.drawn is None:
            chosen = tf.argmax(scores, axis=-1, output_type="int32")
        else:
            chosen = sample(scores[:, 0], beginning.drawn[:, length - given], search)[:, None]
        chosen = tf.where(finished, search.pad_token_id, chosen)
        return length + 1, write(tokens, length, chosen), finished | is_end(chosen, search), past

    def unfinished(length, tokens, finished, past):
        return (length < longest) & ~tf.reduce_all(finished)

    tokens = beginnings(beginning, search, search.pad_token_id)
    state = given, tokens, tf.zeros((rows, 1), "bool"), beginning.past
    length, tokens, _, _ = tf.while_loop(unfinished, body, state, shape_invariants(state))
    return tokens[:, 0, :length]


def sample(scores: tf.Tensor, numbers: tf.Tensor, search: Search) -> tf.Tensor:
    """The tokens, int32 [rows], that numbers from 0 to below 1, [rows], choose of those of `scores` [rows,
    vocabulary]: where the sum of probabilities, from the likeliest token on, exceeds the number. Before, as
    in transformers, temperature, top_k and top_p (Holtzman et al. 2020, arXiv:1904.09751) apply."""
    scores, order = tf.math.top_k(scores / search.temperature, scores.shape[-1])
    if 0 < search.top_k < scores.shape[-1]:
        scores = tf.where(scores < scores[:, search.top_k - 1, None], -np.inf, scores)
    if search.top_p < 1:
        probabilities = tf.nn.softmax(scores)
        likelier = tf.cumsum(probabilities, axis=-1) - probabilities
        scores = tf.where(likelier < search.top_p, scores, -np.inf)
    probabilities = tf.nn.softmax(scores)
    sums = tf.cumsum(probabilities, axis=-1)
    chosen = tf.reduce_sum(tf.cast(sums <= numbers[:, None] * sums[:, -1:], "int32"), axis=-1)
    possible = tf.reduce_sum(tf.cast(probabilities > 0, "int32"), axis=-1)
    return tf.gather(order, tf.minimum(chosen, possible - 1), axis=1, batch_dims=1)


class Beams(NamedTuple):
    """The state of a beam search: of each row the beginnings that go on, and the best of those that ended."""

    length: tf.Tensor  # of all beginnings
    tokens: tf.Tensor  # int32 [rows, beams, given + max_length - 1]
    scores: tf.Tensor  # float32 [rows, beams]
    ended_tokens: tf.Tensor  # as tokens
    ended_scores: tf.Tensor  # as scores
    ended_lengths: tf.Tensor  # int32 [rows, beams]; 0 where none has ended yet
    may_improve: tf.Tensor  # bool [rows, 1]
    goes_on: tf.Tensor  # bool
    past: list[KeysValues]


def beam_search(model: Seq2Seq | Causal, beginning: Beginning, search: Search) -> tf.Tensor:
    """Continues a row's `num_beams` best beginnings, and returns the best of those that end. The score is the
    sum of the new tokens' log probabilities, divided by their number ** length_penalty. Its shape is that of
    `greedy_search`."""
    rows, behind = tf.shape(beginning.tokens)[0], beginning.behind
    # So many that `num_beams` go on even if each of the best ends here.
    candidates = max(2, 1 + len(search.eos_token_id)) * search.num_beams
    among_best = tf.range(candidates) < search.num_beams
    early, never = search.early_stopping is True, search.early_stopping == "never"

    def by_length(scores, new_tokens):
        # The power of the length is in double precision, as Python computes it.
        return scores / tf.cast(tf.cast(new_tokens, "float64") ** search.length_penalty, "float32")

    def body(beams):
        length = beams.length
        logits, past = model.step(beams.tokens[..., length - 1], length - 1, beams.past, beginning.source)
        steps = restrict(tf.nn.log_softmax(logits), beams.tokens, length, search, beginning)
        totals = tf.reshape(steps + beams.scores[..., None], (rows, search.num_beams * steps.shape[-1]))
        totals, places = tf.math.top_k(totals, candidates)
        origins, chosen = places // steps.shape[-1], places % steps.shape[-1]
        longer = write(pick(beams.tokens, origins), length, chosen)
        ends = is_end(chosen, search) | (length + 1 >= behind + search.max_length)

        # The best of those that end take part in the choice of the result, unless the row is settled.
        settled = tf.reduce_all(beams.ended_lengths > 0, axis=1, keepdims=True) & early
        excluded = settled | ~beams.may_improve | ~(ends & among_best)
        new_scores = by_length(totals, length - behind) + tf.where(excluded, UNLIKELY, 0.0)
        new_lengths = tf.where(ends & among_best, length + 1, 0)
        ended_scores, best = tf.math.top_k(
            tf.concat([beams.ended_scores, new_scores], axis=1), search.num_beams
        )
        ended_lengths = pick(tf.concat([beams.ended_lengths, new_lengths], axis=1), best)

        # The best of the others go on.
        scores, going = tf.math.top_k(totals + tf.where(ends, UNLIKELY, 0.0), search.num_beams)
        sequences = tf.reshape(pick(origins, going) + tf.range(rows)[:, None] * search.num_beams, [-1])

        longest = search.max_length - 1 if never and search.length_penalty > 0 else length - behind
        worst = tf.reduce_min(ended_scores, axis=1, keepdims=True)
        better = by_length(scores[:, :1], longest) > tf.where(ended_lengths > 0, worst, UNLIKELY)
        may_improve = beams.may_improve & tf.reduce_any(better, axis=1, keepdims=True)
        all_ended = tf.reduce_all(ended_lengths > 0) & early
        next_beams = Beams(
            length=length + 1,
            tokens=pick(longer, going),
            scores=scores,
            ended_tokens=pick(tf.concat([beams.ended_tokens, longer], axis=1), best),
            ended_scores=ended_scores,
            ended_lengths=ended_lengths,
            may_improve=may_improve,
            goes_on=tf.reduce_any(may_improve) & ~all_ended & ~tf.reduce_all(ends),
            past=tf.nest.map_structure(lambda tensor: tf.gather(tensor, sequences), past),
        )
        return (next_beams,)

    tokens = beginnings(beginning, search, search.beams_filling)
    unlikely = tf.fill((rows, search.num_beams), UNLIKELY)
    beams = Beams(
        length=behind + 1,
        tokens=tokens,
        scores=unlikely * tf.cast(tf.range(search.num_beams) > 0, "float32"),  # the beams are one yet
        ended_tokens=tokens,
        ended_scores=unlikely,
        ended_lengths=tf.zeros((rows, search.num_beams), "int32"),
        may_improve=tf.ones((rows, 1), "bool"),
        goes_on=tf.constant(True),
        past=beginning.past,
    )
    (beams,) = tf.while_loop(lambda beams: beams.goes_on, body, (beams,), shape_invariants((beams,)))
    return beams.ended_tokens[:, 0, : tf.reduce_max(tf.maximum(beams.ended_lengths[:, 0], behind + 1))]


def restrict(
    scores: tf.Tensor, tokens: tf.Tensor, length: tf.Tensor, search: Search, beginning: Beginning
) -> tf.Tensor:
    """Scores [rows, beams, vocabulary] of the token after the first `length` of `tokens` [rows, beams, given
    + max_length - 1], with what the settings forbid or force. A prompt's padding is no token of it."""
    width, counted = tf.shape(tokens)[-1], length - beginning.behind  # as the search's lengths are
    real = tf.pad(beginning.real, [[0, 0], [0, search.max_length - 1]], constant_values=True)
    real = (real & (tf.range(width) < length))[:, None]
    vocabulary = np.arange(scores.shape[-1])
    if search.repetition_penalty != 1:
        seen = mentioned(tokens, real, len(vocabulary))
        penalty = search.repetition_penalty
        scores = tf.where(seen, tf.where(scores < 0, scores * penalty, scores / penalty), scores)
    size = search.no_repeat_ngram_size
    if size > 0:
        # Windows that begin as the last tokens do: what followed there must not follow here. A row that is
        # shorter is filled up, so that it has one window of what is not real.
        missing = tf.maximum(size - width, 0)
        tokens, real = (tf.pad(each, [[0, 0], [0, 0], [0, missing]]) for each in (tokens, real))
        windows = width + missing - size + 1
        same = real[..., :windows] & real[..., size - 1 :]
        for i in range(size - 1):
            last = tokens[..., tf.maximum(length - size + 1 + i, 0)]
            same &= tokens[..., i : windows + i] == last[..., None]
        scores = tf.where(mentioned(tokens[..., size - 1 :], same, len(vocabulary)), -np.inf, scores)
    if search.bad_words_ids:
        scores = tf.where(np.isin(vocabulary, search.bad_words_ids), -np.inf, scores)
    if search.min_length > 1:
        too_short = np.isin(vocabulary, search.eos_token_id) & (counted < search.min_length)
        scores = tf.where(too_short, -np.inf, scores)

    def force(scores, allowed, now):
        return tf.where(now, tf.where(allowed, 0.0, -np.inf), scores)

    if beginning.first is not None:
        scores = force(scores, vocabulary.astype("int32") == beginning.first[:, None, None], counted == 1)
    if search.forced_eos_token_id:
        is_end_token = np.isin(vocabulary, search.forced_eos_token_id)
        scores = force(scores, is_end_token, counted == search.max_length - 1)
    return tf.nn.log_softmax(scores) if search.renormalize_logits else scores


def mentioned(tokens: tf.Tensor, mask: tf.Tensor, vocabulary: int) -> tf.Tensor:
    """Which tokens of the vocabulary are among `tokens` [rows, beams, length] where the mask is set; bool
    [rows, beams, vocabulary]."""
    shape = tf.shape(tokens)
    count = tf.cast(tf.broadcast_to(mask, shape), "int32")
    indices = tf.stack([tf.repeat(tf.range(shape[0] * shape[1]), shape[2]), tf.reshape(tokens, [-1])], axis=1)
    counts = tf.scatter_nd(indices, tf.reshape(count, [-1]), (shape[0] * shape[1], vocabulary))
    return tf.reshape(counts > 0, (shape[0], shape[1], vocabulary))


def is_end(tokens: tf.Tensor, search: Search) -> tf.Tensor:
    """Whether each token ends its sequence."""
    return tf.reduce_any(tokens[..., None] == tf.constant(search.eos_token_id, "int32"), axis=-1)


def beginnings(beginning: Beginning, search: Search, filling: int) -> tf.Tensor:
    """What each row is given, and filling, int32 [rows, beams, given + max_length - 1]."""
    rows = tf.shape(beginning.tokens)[0]
    tokens = tf.concat([beginning.tokens, tf.fill((rows, search.max_length - 1), filling)], axis=1)
    return tf.repeat(tokens[:, None], search.num_beams, axis=1)


def write(tokens: tf.Tensor, position: tf.Tensor | int, chosen: tf.Tensor | int) -> tf.Tensor:
    """`tokens` [rows, beams, length] with `chosen` [rows, beams] at a position."""
    return tf.where(
        tf.range(tf.shape(tokens)[-1]) == position, tf.convert_to_tensor(chosen)[..., None], tokens
    )


def pick(tensor: tf.Tensor, beams: tf.Tensor) -> tf.Tensor:
    """Of `tensor` [rows, beams, ...], the beams whose numbers are in `beams` [rows, count]."""
    return tf.gather(tensor, beams, axis=1, batch_dims=1)


def empty_past(model: Seq2Seq, sequences: tf.Tensor) -> list[KeysValues]:
    """Keys and values of no positions, for every decoder layer."""
    heads, width = model.past_shape()
    nothing = tf.zeros((sequences, heads, 0, width), model.compute_dtype)
    return [(nothing, nothing) for _ in model.decoder_layers]


def shape_invariants(state: Any) -> Any:
    """What tf.while_loop has to know: the past grows, and there may be any number of rows."""

    def invariant(tensor):
        any_length = [None, tensor.shape[1], None, tensor.shape[3]] if tensor.shape.rank == 4 else None
        return tf.TensorShape(any_length or [None, *tensor.shape[1:]][: tensor.shape.rank])

    return tf.nest.map_structure(invariant, state)
