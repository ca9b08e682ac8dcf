"""What a model of language has to beat, in bits per byte: a compressor, and how often bytes follow others."""

import lzma
from collections.abc import Sequence

import numpy as np

ORDER = 5  # bytes of the longest sequence that is counted
START = b"\n" * (ORDER - 1)  # before each text


def compressed(texts: Sequence[str], known: Sequence[str] = ()) -> float:
    """Bits per byte of texts that xz compresses together, behind `known` ones that it has already read."""
    before, behind = "".join(known).encode(), "".join(texts).encode()

    def size(data: bytes) -> int:
        # A dictionary that holds everything
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 27}]
        return len(lzma.compress(data, lzma.FORMAT_XZ, filters=filters))

    return 8 * (size(before + behind) - (size(before) if before else 0)) / len(behind)


class Counts:
    """How often each byte follows those before it, up to ORDER - 1 of them, in texts.

    What has been seen too seldom is told from shorter sequences, by Witten and Bell's method (1991, "The
    zero-frequency problem"): the more different bytes have followed, the likelier is another one.

    Args:
        texts: of which is learnt.
    """

    def __init__(self, texts: Sequence[str]):
        codes = [_sequences(text) for text in texts]
        self._tables = []
        for length in range(1, ORDER + 1):
            mask = np.uint64((1 << 8 * length) - 1)
            found, counts = np.unique(np.concatenate([each & mask for each in codes]), return_counts=True)
            before, firsts = np.unique(found >> np.uint64(8) << np.uint64(8), return_index=True)
            totals = np.add.reduceat(counts, firsts)
            kinds = np.diff([*firsts, len(found)])
            self._tables.append((found, counts, before, totals, kinds))

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Of texts, each by itself: the mean of the bits by which their bytes are told."""
        bits, size = 0.0, 0
        for text in texts:
            codes = _sequences(text)
            likely = np.full(len(codes), 1 / 256)
            for length, (found, counts, before, totals, kinds) in enumerate(self._tables, start=1):
                own = codes & np.uint64((1 << 8 * length) - 1)
                seen = _looked_up(own, found, counts)
                context = own >> np.uint64(8) << np.uint64(8)
                total, other = _looked_up(context, before, totals), _looked_up(context, before, kinds)
                known = total > 0
                likely[known] = (seen + other * likely)[known] / (total + other)[known]
            bits, size = bits - np.log2(likely).sum(), size + len(codes)
        return float(bits / size)


def _sequences(text: str) -> np.ndarray:
    """For each byte of a text the number that it makes with the ORDER - 1 bytes before it, uint64 (bytes,),
    the byte itself being the lowest."""
    data = np.frombuffer(START + text.encode(), np.uint8).astype(np.uint64)
    size = len(data) - len(START)
    return sum(
        (data[len(START) - back :][:size] << np.uint64(8 * back) for back in range(ORDER)),
        np.zeros(size, np.uint64),
    )


def _looked_up(keys: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each key, 0 for those that are not known."""
    places = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.where(known[places] == keys, values[places], 0)
