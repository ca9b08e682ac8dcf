"""Greedy and beam search: the tokens that `generate` of transformers 5 returns, by one trace for all batches.

    search = decoding.search_of(decoding.generation_config(folder, config), num_beams=4, max_length=64)

    names = ("input_ids", "attention_mask")

    @tf.function(input_signature=[dict.fromkeys(names, tf.TensorSpec((None, None), tf.int32))])
    def generate_step(batch):
        return generate(model, batch, search)

Both follow the searches of transformers, heuristics included. Both keep the keys and values of past
positions. They compute those of the source once, and a row's beams share them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from triptych.errors import InputError
from triptych.models import configs
from triptych.models.decoding import OF_ROWS, Search
from triptych.tensorflow.architectures import KeysValues, Seq2Seq, Source

UNLIKELY = -1e9  # added to the score of what must not be chosen


def generate(model: Seq2Seq, batch: Mapping[str, tf.Tensor], search: Search) -> tf.Tensor:
    """Token ids for the sources of a batch, to be called in a tf.function.

    Args:
        model: see `triptych.tensorflow.architectures`.
        batch: `input_ids` and `attention_mask`, int32 [rows, source length], and what `decoding.OF_ROWS`
            names, int32 [rows], where each row has its own.
        search: see `triptych.models.decoding`.

    Returns:
        int32 [rows, length of the longest]: the decoder's start, the tokens with the end, and filling. That
        is padding; after beam search with padding token 0 it is the end token, as in transformers.

    Raises:
        InputError: if the model has no positions for the longest output.
    """
    available, wanted = configs.positions(model.config), search.max_length - 1
    if available is not None and wanted > available:
        raise InputError(
            f"Texts of {wanted} tokens cannot be generated: the model has {available} positions."
        )
    mask = batch["attention_mask"]
    source = model.start(model.encode(batch["input_ids"], mask), mask)
    rows = tf.shape(mask)[0]
    begins = {name: batch.get(name, getattr(search, name)) for name in OF_ROWS}
    start, first = (None if token is None else tf.broadcast_to(token, [rows]) for token in begins.values())
    by = greedy_search if search.num_beams == 1 else beam_search
    return by(model, source, search, start, first)


def greedy_search(
    model: Seq2Seq, source: Source, search: Search, start: tf.Tensor, first: tf.Tensor | None
) -> tf.Tensor:
    """The likeliest token at every step. `start` and `first` are the decoder's start and the first token that
    is forced, int32 [rows]."""
    rows = tf.shape(start)[0]

    def body(length, tokens, finished, past):
        logits, past = model.step(tokens[..., length - 1], length - 1, past, source)
        chosen = tf.argmax(restrict(logits, tokens, length, search, first), axis=-1, output_type="int32")
        chosen = tf.where(finished, search.pad_token_id, chosen)
        return length + 1, write(tokens, length, chosen), finished | is_end(chosen, search), past

    def unfinished(length, tokens, finished, past):
        return (length < search.max_length) & ~tf.reduce_all(finished)

    tokens = beginnings(start, search, search.pad_token_id)
    state = tf.constant(1), tokens, tf.zeros((rows, 1), "bool"), empty_past(model, rows)
    length, tokens, _, _ = tf.while_loop(unfinished, body, state, shape_invariants(state))
    return tokens[:, 0, :length]


class Beams(NamedTuple):
    """The state of a beam search: of each row the beginnings that go on, and the best of those that ended."""

    length: tf.Tensor  # of all beginnings
    tokens: tf.Tensor  # int32 [rows, beams, max_length]
    scores: tf.Tensor  # float32 [rows, beams]
    ended_tokens: tf.Tensor  # as tokens
    ended_scores: tf.Tensor  # as scores
    ended_lengths: tf.Tensor  # int32 [rows, beams]; 0 where none has ended yet
    may_improve: tf.Tensor  # bool [rows, 1]
    goes_on: tf.Tensor  # bool
    past: list[KeysValues]


def beam_search(
    model: Seq2Seq, source: Source, search: Search, start: tf.Tensor, first: tf.Tensor | None
) -> tf.Tensor:
    """Continues a row's `num_beams` best beginnings, and returns the best of those that end. The score is the
    sum of the tokens' log probabilities, divided by length ** length_penalty. `start` and `first` are as of
    `greedy_search`."""
    rows = tf.shape(start)[0]
    # So many that `num_beams` go on even if each of the best ends here.
    candidates = (1 + len(search.eos_token_id)) * search.num_beams
    among_best = tf.range(candidates) < search.num_beams
    early, never = search.early_stopping is True, search.early_stopping == "never"

    def by_length(scores, length):
        # The power of the length is in double precision, as Python computes it.
        return scores / tf.cast(tf.cast(length, "float64") ** search.length_penalty, "float32")

    def body(beams):
        length = beams.length
        logits, past = model.step(beams.tokens[..., length - 1], length - 1, beams.past, source)
        steps = restrict(tf.nn.log_softmax(logits), beams.tokens, length, search, first)
        totals = tf.reshape(steps + beams.scores[..., None], (rows, search.num_beams * steps.shape[-1]))
        totals, places = tf.math.top_k(totals, candidates)
        origins, chosen = places // steps.shape[-1], places % steps.shape[-1]
        longer = write(pick(beams.tokens, origins), length, chosen)
        ends = is_end(chosen, search) | (length + 1 >= search.max_length)

        # The best of those that end take part in the choice of the result, unless the row is settled.
        settled = tf.reduce_all(beams.ended_lengths > 0, axis=1, keepdims=True) & early
        excluded = settled | ~beams.may_improve | ~(ends & among_best)
        new_scores = by_length(totals, length) + tf.where(excluded, UNLIKELY, 0.0)
        new_lengths = tf.where(ends & among_best, length + 1, 0)
        ended_scores, best = tf.math.top_k(
            tf.concat([beams.ended_scores, new_scores], axis=1), search.num_beams
        )
        ended_lengths = pick(tf.concat([beams.ended_lengths, new_lengths], axis=1), best)

        # The best of the others go on.
        scores, going = tf.math.top_k(totals + tf.where(ends, UNLIKELY, 0.0), search.num_beams)
        sequences = tf.reshape(pick(origins, going) + tf.range(rows)[:, None] * search.num_beams, [-1])

        longest = search.max_length - 1 if never and search.length_penalty > 0 else length
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

    # As in transformers, where a padding of 0 counts as none.
    tokens = beginnings(start, search, search.pad_token_id or search.eos_token_id[0])
    unlikely = tf.fill((rows, search.num_beams), UNLIKELY)
    beams = Beams(
        length=tf.constant(1),
        tokens=tokens,
        scores=unlikely * tf.cast(tf.range(search.num_beams) > 0, "float32"),  # the beams are one yet
        ended_tokens=tokens,
        ended_scores=unlikely,
        ended_lengths=tf.zeros((rows, search.num_beams), "int32"),
        may_improve=tf.ones((rows, 1), "bool"),
        goes_on=tf.constant(True),
        past=empty_past(model, rows * search.num_beams),
    )
    (beams,) = tf.while_loop(lambda beams: beams.goes_on, body, (beams,), shape_invariants((beams,)))
    return beams.ended_tokens[:, 0, : tf.reduce_max(tf.maximum(beams.ended_lengths[:, 0], 1))]


def restrict(
    scores: tf.Tensor, tokens: tf.Tensor, length: tf.Tensor, search: Search, first: tf.Tensor | None
) -> tf.Tensor:
    """Scores [rows, beams, vocabulary] of the token after the first `length` of `tokens` [rows, beams,
    max_length], with what the settings forbid or force.

    Args:
        first: the first token of each row that is forced, int32 [rows]; None for none.
    """
    vocabulary = np.arange(scores.shape[-1])
    if search.repetition_penalty != 1:
        seen = mentioned(tokens, tf.range(search.max_length) < length, len(vocabulary))
        penalty = search.repetition_penalty
        scores = tf.where(seen, tf.where(scores < 0, scores * penalty, scores / penalty), scores)
    size = search.no_repeat_ngram_size
    if 0 < size <= search.max_length:
        # Windows that begin as the last tokens do: what followed there must not follow here.
        windows = search.max_length - size + 1
        same = tf.range(windows) + size <= length
        for i in range(size - 1):
            last = tokens[..., tf.maximum(length - size + 1 + i, 0)]
            same &= tokens[..., i : windows + i] == last[..., None]
        scores = tf.where(mentioned(tokens[..., size - 1 :], same, len(vocabulary)), -np.inf, scores)
    if search.bad_words_ids:
        scores = tf.where(np.isin(vocabulary, search.bad_words_ids), -np.inf, scores)
    if search.min_length > 1:
        too_short = np.isin(vocabulary, search.eos_token_id) & (length < search.min_length)
        scores = tf.where(too_short, -np.inf, scores)

    def force(scores, allowed, now):
        return tf.where(now, tf.where(allowed, 0.0, -np.inf), scores)

    if first is not None:
        scores = force(scores, vocabulary.astype("int32") == first[:, None, None], length == 1)
    if search.forced_eos_token_id:
        is_end_token = np.isin(vocabulary, search.forced_eos_token_id)
        scores = force(scores, is_end_token, length == search.max_length - 1)
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


def beginnings(start: tf.Tensor, search: Search, filling: int) -> tf.Tensor:
    """The decoder's start of each row, and filling, int32 [rows, beams, max_length]."""
    tokens = tf.fill((tf.shape(start)[0], search.num_beams, search.max_length), filling)
    return write(tokens, 0, start[:, None])


def write(tokens: tf.Tensor, position: tf.Tensor | int, chosen: tf.Tensor | int) -> tf.Tensor:
    """`tokens` [rows, beams, max_length] with `chosen` [rows, beams] at a position."""
    return tf.where(tf.range(tokens.shape[-1]) == position, tf.convert_to_tensor(chosen)[..., None], tokens)


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
