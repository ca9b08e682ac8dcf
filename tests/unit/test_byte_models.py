"""The baselines of models of language: counts as by their definition, and a compressor."""

import math
from collections import Counter

import numpy as np
import pytest

from triptych.metrics import byte_models

TEXTS = ["the cat sat on the mat", "é\n\tthat", "a"]
HELD_OUT = ["the hat", "zoë"]


def likely(byte, before, counts):
    """Witten and Bell's interpolation, written out."""
    if before is None:
        return 1 / 256
    shorter = likely(byte, before[1:] if before else None, counts)
    followers = counts.get(before)
    if not followers:
        return shorter
    total, kinds = sum(followers.values()), len(followers)
    return (followers[byte] + kinds * shorter) / (total + kinds)


def test_counts_are_those_of_the_definition():
    counts, order = {}, byte_models.ORDER
    for text in TEXTS:
        data = byte_models.START + text.encode()
        for place in range(order - 1, len(data)):
            for length in range(order):
                counts.setdefault(data[place - length : place], Counter())[data[place]] += 1
    bits = []
    for text in HELD_OUT:
        data = byte_models.START + text.encode()
        for place in range(order - 1, len(data)):
            bits.append(-math.log2(likely(data[place], data[place - order + 1 : place], counts)))
    found = byte_models.Counts(TEXTS).bits_per_byte(HELD_OUT)
    assert found == pytest.approx(np.mean(bits), rel=1e-12)
    assert byte_models.Counts(TEXTS).bits_per_byte(TEXTS) < found


def test_compressor_gains_by_what_it_has_read():
    random = np.random.default_rng(0)
    text = "".join(chr(97 + number) for number in random.integers(0, 16, 4000))
    assert 4 < byte_models.compressed([text]) < 4.7  # sixteen letters: four bits
    assert byte_models.compressed([text], known=[text]) < 0.2
