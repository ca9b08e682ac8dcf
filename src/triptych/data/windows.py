"""Rows of words as windows of tokens that a model can read, in which every word has one place."""

from collections.abc import Sequence
from typing import Any

from triptych.batching.padding import UNCOUNTED
from triptych.data import ROW
from triptych.errors import InputError
from triptych.models import configs

MOST = 512  # tokens of a window, if nothing else is said

Window = tuple[int, list[int | None]]  # the place of its first token in the row, and the word of each token


def max_length(tokenizer: Any, config: Any, data_args: Any) -> int:
    """The tokens that a window has at most: `--max_seq_length`, else the positions of the model, at most
    MOST.

    Args:
        data_args: the flags max_seq_length and stride.

    Raises:
        InputError: if windows that share `--stride` tokens would not advance.
    """
    length = data_args.max_seq_length or min(MOST, configs.positions(config) or MOST)
    own = tokenizer.num_special_tokens_to_add()
    if data_args.stride >= length - own:
        raise InputError(
            f"--stride {data_args.stride}: of the {length} tokens of a window {own} are the tokenizer's own, "
            f"so that windows may share at most {length - own - 1}."
        )
    return length


def cut(
    words: Sequence[Sequence[str]],
    tags: Sequence[Sequence[int] | None] | None,
    tokenizer: Any,
    data_args: Any,
    max_length: int,
    inside: Sequence[int] = (),
) -> dict[str, list[Any]]:
    """Rows of words as windows of tokens: one window a row, or several that overlap where a row is longer.

    Every word that the tokenizer makes tokens of belongs to one window, among those with its first token: the
    one in which it has most tokens on the side where it has fewer; the first of equals. A word that is longer
    than a window counts as lacking tokens on its right. A row without any token gets a window of the
    tokenizer's own tokens, or of the unknown one.

    Args:
        words: of each row.
        tags: the numbers of the words' tags; None, or None for a row, where they are not known.
        tokenizer: a fast one of transformers, which says the word of each token.
        data_args: the flags stride, the tokens that windows share, and label_all_tokens.
        max_length: the most tokens of a window.
        inside: for each tag that of the further tokens of its word, for `--label_all_tokens`.

    Returns:
        Lists with one entry a window: `input_ids`; `token_type_ids` if the tokenizer gives them; `labels`,
        the tag at the first token of a word, or at all with `--label_all_tokens`, else -100; `words`, the
        word's number in its row at the first token of a word, else -100; and `data.ROW`, the row's place
        among these.
    """
    if not words:
        return {name: [] for name in ("input_ids", "labels", "words", ROW)}
    encoded = tokenizer(
        [list(row) for row in words],
        is_split_into_words=True,
        truncation=True,
        max_length=max_length,
        stride=data_args.stride,
        return_overflowing_tokens=True,
    )
    by_row: list[list[int]] = [[] for _ in words]
    for number, row in enumerate(encoded["overflow_to_sample_mapping"]):
        by_row[row].append(number)
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    found: dict[str, list[Any]] = {name: [] for name in (*names, "labels", "words", ROW)}
    for row, numbers in enumerate(by_row):
        if tokenizer.truncation_side == "left":
            numbers = numbers[::-1]  # they come from the end of the row
        windows = _placed([encoded.word_ids(number) for number in numbers], data_args.stride)
        homes = _homes(windows)
        of_row = tags[row] if tags is not None else None
        for index, (number, window) in enumerate(zip(numbers, windows, strict=True)):
            labels, firsts = [UNCOUNTED] * len(window[1]), [UNCOUNTED] * len(window[1])
            for place, word in enumerate(window[1]):
                if word is None or homes[word] != index:
                    continue
                is_first = place == 0 or window[1][place - 1] != word
                if is_first:
                    firsts[place] = word
                if of_row is not None and (is_first or data_args.label_all_tokens):
                    labels[place] = of_row[word] if is_first else inside[of_row[word]]
            for name in names:
                found[name].append(encoded[name][number])
            found["labels"].append(labels)
            found["words"].append(firsts)
            found[ROW].append(row)
            if not window[1]:
                _fill(found, names, tokenizer)
    return found


def _placed(word_ids: list[list[int | None]], stride: int) -> list[Window]:
    """Windows in the order of the text, each with the place in the row that its first token of a word has:
    they share `stride` such tokens with the next."""
    starts = [0]
    for ids in word_ids[:-1]:
        starts.append(starts[-1] + sum(word is not None for word in ids) - stride)
    return list(zip(starts, word_ids, strict=True))


def _homes(windows: list[Window]) -> dict[int, int]:
    """For each word the window that it belongs to."""
    of_words = [(start, [word for word in ids if word is not None]) for start, ids in windows]
    spans: dict[int, tuple[int, int]] = {}  # the places of a word's first and last token in the row
    for start, ids in of_words:
        for place, word in enumerate(ids, start):
            first, last = spans.get(word, (place, place))
            spans[word] = first, max(last, place)
    best: dict[int, tuple[int, int]] = {}  # tokens on the side where there are fewer, and the window
    for index, (start, ids) in enumerate(of_words):
        for word in dict.fromkeys(ids):
            first, last = spans[word]
            room = min(first - start, start + len(ids) - 1 - last)
            if first >= start and (word not in best or room > best[word][0]):
                best[word] = room, index
    return {word: index for word, (_, index) in best.items()}


def _fill(found: dict[str, list[Any]], names: list[str], tokenizer: Any) -> None:
    """Gives the last window, which is empty, a token."""
    token = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id
    for name in names:
        found[name][-1] = [token if name == "input_ids" else 0]
    found["labels"][-1], found["words"][-1] = [UNCOUNTED], [UNCOUNTED]
