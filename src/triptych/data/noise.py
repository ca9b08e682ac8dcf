"""Corrupted texts in numpy: noise spans as in T5 (Raffel et al. 2020, arXiv:1910.10683), infilling and
sentences in another order as in BART (Lewis et al. 2020, arXiv:1910.13461). What is random comes in as random
numbers."""

import math
from collections.abc import Callable

import numpy as np

# By objective its own flags, with the values that its paper has
OBJECTIVES = {
    "spans": {"noise_density": 0.15, "mean_noise_span_length": 3.0},
    "infilling": {"mask_ratio": 0.3, "poisson_lambda": 3.0, "permute_sentence_ratio": 1.0},
}


def span_counts(length: int, density: float, mean_length: float) -> tuple[int, int]:
    """How many noise tokens a text of that many tokens has, and in how many spans: as in T5, its length alone
    decides.

    Args:
        length: at least 2.
        density: share of noise tokens; one token at least is noise, and one is not.
        mean_length: tokens of a span.
    """
    tokens = min(max(round(length * density), 1), length - 1)
    spans = max(round(tokens / mean_length), 1)
    return tokens, min(spans, tokens, length - tokens)


def corrupted_lengths(length: int, density: float, mean_length: float) -> tuple[int, int]:
    """The tokens of what is read and of what is to be written, without the tokenizer's own, for a text of
    `length` tokens: each span of noise is one sentinel there, each span of text one sentinel here."""
    tokens, spans = span_counts(length, density, mean_length)
    return length - tokens + spans, tokens + spans


def text_length(inputs: int, density: float, mean_length: float) -> int:
    """The longest text, in tokens, of which `inputs` tokens are read once it is corrupted; 0 if there is none
    of 2 tokens."""
    length = max(inputs, 2)
    while corrupted_lengths(length + 1, density, mean_length)[0] <= inputs:
        length += 1
    return length if corrupted_lengths(length, density, mean_length)[0] <= inputs else 0


def segments(items: int, count: int, numbers: np.ndarray) -> np.ndarray:
    """The lengths, int64 (count,), of segments that `items` items fall into, none of them empty: each way to
    do so is as likely as any other.

    Args:
        numbers: random, (items - 1,) or more: the items behind which the smallest stand end segments.
    """
    ends = np.sort(np.argsort(numbers[: items - 1], kind="stable")[: count - 1]) + 1
    return np.diff(ends, prepend=0, append=items)


def spans(
    tokens: np.ndarray, noise: np.ndarray, kept: np.ndarray, sentinels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is read and what is to be written: the text with a sentinel for each span of noise, and the noise
    with the same sentinel before each span.

    Args:
        tokens: of the text, (length,).
        noise, kept: lengths of the spans that are noise and that are not, (spans,) each: they alternate, and
            the first is kept.
        sentinels: (spans,) or more.
    """
    lengths = np.stack([kept, noise], axis=1).ravel()
    is_noise = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    own = sentinels[: len(noise)]
    written = np.insert(tokens[is_noise], np.cumsum(noise) - noise, own)
    return np.insert(tokens[~is_noise], np.cumsum(kept), own), written


def poisson_lengths(budget: int, mean: float, numbers: Callable[[int], np.ndarray]) -> np.ndarray:
    """Lengths, int64 (spans,), of spans that have `budget` tokens together: drawn from a Poisson distribution
    until they have, the last one cut. Of spans without a token so many stay that there are no more spans than
    tokens, and a text does not grow.

    Args:
        budget: at least 1.
        mean: of the distribution.
        numbers: gives so many random numbers from 0 to below 1, of more the same first ones.
    """
    table = _cumulative(mean)
    count = 8 + 2 * math.ceil(budget / mean)
    while (sums := np.cumsum(lengths := np.searchsorted(table, numbers(count), side="right")))[-1] < budget:
        count *= 2
    last = int(np.searchsorted(sums, budget))
    lengths = lengths[: last + 1].astype(np.int64)
    lengths[last] -= sums[last] - budget
    empty = np.flatnonzero(lengths == 0)
    most = budget - (len(lengths) - len(empty))
    return np.delete(lengths, empty[most:])


def _cumulative(mean: float) -> np.ndarray:
    """The probabilities of at most 0, 1, 2, ... of a Poisson distribution, all that are below 1."""
    found, probability, total, number = [], math.exp(-mean), 0.0, 0
    while number < mean or probability > 1e-17:
        total += probability
        found.append(total)
        number += 1
        probability *= mean / number
    return np.array(found)


def infilled(tokens: np.ndarray, lengths: np.ndarray, mask: int, numbers: np.ndarray) -> np.ndarray:
    """The text with one mask for each span, also for those without a token, which are put in. Each way to put
    the spans among the other tokens is as likely as any other.

    Args:
        tokens: of the text, (length,).
        lengths: of the spans, in their order in the text.
        numbers: random, one for each token that stays and each span.
    """
    slots = len(tokens) - int(lengths.sum()) + len(lengths)
    chosen = np.sort(np.argsort(numbers[:slots], kind="stable")[: len(lengths)])
    sizes, is_span = np.ones(slots, np.int64), np.zeros(slots, bool)
    sizes[chosen], is_span[chosen] = lengths, True
    starts = np.cumsum(sizes) - sizes
    return np.where(is_span, mask, tokens[np.minimum(starts, len(tokens) - 1)])


def permuted(
    tokens: np.ndarray, starts: np.ndarray, ratio: float, choosing: np.ndarray, ordering: np.ndarray
) -> np.ndarray:
    """The text with sentences in another order.

    Args:
        tokens: of the text, (length,).
        starts: of the sentences, ascending from 0.
        ratio: the share of the sentences, rounded up, that change places among themselves.
        choosing, ordering: random, one for each sentence: which these are, and what comes first.
    """
    count = len(starts)
    # What is not quite a whole number, because shares are no decimals, is one.
    moved = math.ceil(round(count * ratio, 9))
    chosen = np.sort(np.argsort(choosing[:count], kind="stable")[:moved])
    order = np.arange(count)
    order[chosen] = chosen[np.argsort(ordering[:moved], kind="stable")]
    parts = np.split(tokens, starts[1:])
    return np.concatenate([parts[number] for number in order])
