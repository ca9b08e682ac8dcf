"""Corrupted texts against what T5's and BART's papers say of them, counted by other means."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from triptych.batching.draws import Draws
from triptych.data import noise

SENTINELS = np.arange(1000, 1100)
MASK = -7


def numbers(rows, places, purpose=0):
    """Random bits, a row for each text."""
    return Draws(3, np.arange(rows)).bits(places, purpose)


def restored(read, written):
    """The text of which T5 reads and writes these: every sentinel stands for what follows it there."""
    parts, own = {}, []
    for token in written.tolist():
        if token in SENTINELS:
            assert token not in parts
            own = parts[token] = []
        else:
            own.append(token)
    return [one for token in read.tolist() for one in parts.get(token, [token])]


@pytest.mark.parametrize(
    ("inputs", "text", "targets"), [(511, 568, 113), (1023, 1137, 228), (255, 284, 57), (113, 126, 25)]
)
def test_lengths_are_those_that_t5_states(inputs, text, targets):
    """Its preprocessors expand 512 tokens, the end among them, to 568, and 114 are written."""
    assert noise.text_length(inputs, 0.15, 3.0) == text
    assert noise.corrupted_lengths(text, 0.15, 3.0) == (inputs, targets)


@pytest.mark.parametrize("density", [0.01, 0.15, 0.5, 0.97])
@pytest.mark.parametrize("mean", [1.0, 3.0, 10.0])
def test_a_longer_text_has_no_shorter_input(density, mean):
    found = [noise.corrupted_lengths(length, density, mean) for length in range(2, 700)]
    for (read, written), (longer, more) in itertools.pairwise(found):
        assert longer >= read
        assert more >= written
    for inputs in range(2, 100):
        length = noise.text_length(inputs, density, mean)
        fitting = [length for length, (read, _) in enumerate(found, 2) if read <= inputs]
        if length < 690:
            assert length == max(fitting, default=0)


def test_a_text_has_noise_and_something_else():
    for length, density, mean in itertools.product(range(2, 30), (0.001, 0.15, 0.6, 0.999), (1, 3, 50)):
        tokens, spans = noise.span_counts(length, density, mean)
        assert 1 <= tokens < length
        assert 1 <= spans <= min(tokens, length - tokens)
    assert noise.span_counts(568, 0.15, 3) == (85, 28)


def test_every_way_to_cut_is_as_likely():
    found = Counter(tuple(noise.segments(5, 3, row).tolist()) for row in numbers(6000, 4))
    assert set(found) == {cut for cut in itertools.product(range(1, 4), repeat=3) if sum(cut) == 5}
    assert all(abs(count - 1000) < 4 * math.sqrt(1000) for count in found.values()), found


def test_spans_give_back_the_text():
    lengths = [2, 3, 7, 40, 100, 284]
    sizes, shares = Counter(), []
    for seed, length in enumerate(lengths * 30):
        text = np.arange(length)
        tokens, count = noise.span_counts(length, 0.15, 3.0)
        both = (numbers(seed + 1, length, purpose)[seed] for purpose in (1, 2))
        noisy, kept = (
            noise.segments(size, count, row)
            for size, row in zip((tokens, length - tokens), both, strict=True)
        )
        read, written = noise.spans(text, noisy, kept, SENTINELS)
        assert restored(read, written) == text.tolist()
        assert (len(read), len(written)) == noise.corrupted_lengths(length, 0.15, 3.0)
        assert written[0] == SENTINELS[0]  # a sentinel before each span, and the text begins with none
        assert read[0] == 0
        assert read[-1] == SENTINELS[count - 1]
        assert [token for token in read if token in SENTINELS] == SENTINELS[:count].tolist()
        if length == 284:
            sizes.update(noisy.tolist())
            shares.append(tokens / length)
    assert np.mean(shares) == pytest.approx(0.15, abs=0.002)
    mean = sum(size * count for size, count in sizes.items()) / sum(sizes.values())
    assert mean == pytest.approx(3.0, abs=0.1)
    # Of 43 tokens in 14 spans: the first of a span ends it in 13 of 42 cases
    assert sizes[1] / sum(sizes.values()) == pytest.approx(13 / 42, abs=0.05)


def uniform(seed):
    return lambda count: Draws(seed, np.array([5])).uniform(count)[0]


@pytest.mark.parametrize("mean", [0.5, 3.0, 12.0])
def test_span_lengths_are_poissons(mean):
    found = Counter()
    for seed in range(40):
        lengths = noise.poisson_lengths(3000, mean, uniform(seed))
        assert lengths.sum() == 3000
        found.update(lengths[:-1].tolist())  # the last is cut
    total = sum(found.values())
    average = sum(length * count for length, count in found.items()) / total
    if mean == 0.5:  # where most spans are empty, so many are left out that a text does not grow
        assert average == pytest.approx(1.0, abs=0.01)
        return
    assert average == pytest.approx(mean, rel=0.02)
    for length in range(8):
        expected = math.exp(-mean) * mean**length / math.factorial(length)
        assert abs(found[length] / total - expected) < 5 * math.sqrt(expected / total), length


def test_a_text_never_grows():
    for seed, budget in itertools.product(range(200), (1, 2, 5)):
        lengths = noise.poisson_lengths(budget, 0.3, uniform(seed))
        assert lengths.sum() == budget
        assert len(lengths) <= budget


def test_masks_stand_for_spans():
    for row in range(50):
        text = np.arange(60)
        lengths = noise.poisson_lengths(18, 3.0, uniform(row))
        read = noise.infilled(text, lengths, MASK, numbers(row + 1, 100)[row])
        assert len(read) == 60 - 18 + len(lengths)
        # The tokens between masks follow one another, and what is missing at each mask is its span.
        gaps, expected, before = [], 0, 0
        for token in [*read.tolist(), 60]:
            if token == MASK:
                before += 1
                continue
            if before:
                gaps.append((before, token - expected))
            else:
                assert token == expected
            expected, before = token + 1, 0
        sums = np.cumsum([0, *lengths])
        assert [gap for _, gap in gaps] == [
            sums[end] - sums[end - count]
            for (count, _), end in zip(gaps, np.cumsum([count for count, _ in gaps]), strict=True)
        ]


def test_every_way_to_place_spans_is_as_likely():
    """Two tokens that stay, a span of two and one without a token, in this order: six places for the two."""
    lengths = np.array([2, 0])
    found = Counter(
        tuple(noise.infilled(np.arange(4), lengths, MASK, row).tolist()) for row in numbers(6000, 4)
    )
    texts = [
        *((MASK, MASK, 2, 3), (MASK, 2, MASK, 3), (MASK, 2, 3, MASK)),
        *((0, MASK, MASK, 3), (0, MASK, 3, MASK), (0, 1, MASK, MASK)),
    ]
    assert set(found) == set(texts)
    assert all(abs(count - 1000) < 4 * math.sqrt(1000) for count in found.values()), found


def test_sentences_change_places_whole():
    text, starts = np.arange(10), np.array([0, 3, 4, 8])
    sentences = [[0, 1, 2], [3], [4, 5, 6, 7], [8, 9]]
    found = Counter()
    for choosing, ordering in zip(numbers(4800, 4, 1), numbers(4800, 4, 2), strict=True):
        other = noise.permuted(text, starts, 1.0, choosing, ordering).tolist()
        order = []
        while other:
            number = next(n for n, sentence in enumerate(sentences) if other[: len(sentence)] == sentence)
            order.append(number)
            other = other[len(sentences[number]) :]
        found[tuple(order)] += 1
    assert len(found) == 24
    assert all(abs(count - 200) < 5 * math.sqrt(200) for count in found.values()), found


@pytest.mark.parametrize(("ratio", "moved"), [(0.0, 0), (0.2, 2), (0.3, 3), (0.31, 4), (1.0, 10)])
def test_a_share_of_the_sentences_changes_places(ratio, moved):
    text = starts = np.arange(10)
    most = 0
    for choosing, ordering in zip(numbers(300, 10, 1), numbers(300, 10, 2), strict=True):
        other = noise.permuted(text, starts, ratio, choosing, ordering)
        assert sorted(other) == text.tolist()
        most = max(most, int((other != text).sum()))
    assert most == moved
