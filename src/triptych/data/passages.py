"""Questions with their contexts as windows of tokens, and where in these an answer may begin and end."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych.batching.padding import UNCOUNTED
from triptych.data import ROW
from triptych.data.label_schema import COUNTED
from triptych.data.questions import ANSWERS, NO_ANSWER, holds
from triptych.data.readers import MOST_PROBLEMS
from triptych.data.sources import is_stream
from triptych.data.words import belongs_before
from triptych.errors import InputError, some
from triptych.models import configs

logger = logging.getLogger(__name__)

USUAL = 384  # tokens of a window, if nothing else is said
USUAL_STRIDE = 128  # of these, that windows share
HELD = "holds its answer"  # column of features
CHUNK = 10_000


def max_length(tokenizer: Any, config: Any, data_args: Any) -> int:
    """The tokens that a window has at most: `--max_seq_length`, else USUAL, or the model's positions where
    these are fewer.

    Raises:
        InputError: if windows that share `--doc_stride` tokens of a context would not advance.
    """
    length = data_args.max_seq_length or min(USUAL, configs.positions(config) or USUAL)
    own = tokenizer.num_special_tokens_to_add(pair=True)
    if (shared := stride(length, data_args)) >= length - own - 1:
        raise InputError(
            f"--doc_stride {shared}: of the {length} tokens of a window {own} are the "
            "tokenizer's own and one at least the question's, so that windows may share "
            f"{max(0, length - own - 2)} at most. Give less, or a larger --max_seq_length."
        )
    return length


def stride(max_length: int, data_args: Any) -> int:
    """The tokens of a context that windows share: `--doc_stride`, else USUAL_STRIDE, or a third of windows
    that are shorter than three times that."""
    if data_args.doc_stride is not None:
        return data_args.doc_stride
    return min(USUAL_STRIDE, max_length // 3)


def require_room(raw: dict[str, Any], tokenizer: Any, max_length: int, data_args: Any) -> None:
    """Makes sure that windows advance in every row: that its question leaves room for more of the context
    than windows share, unless one window holds all of it. Rows of a stream are looked at as they come.

    Raises:
        InputError: at most ten questions that are too long, with their rows.
    """
    problems: list[str] = []
    for split, rows in raw.items():
        for start in range(0, 0 if is_stream(rows) else len(rows), CHUNK):
            chunk = rows.select_columns(["question", "context"])[start : start + CHUNK]
            found = _crowded(chunk["question"], chunk["context"], tokenizer, max_length, data_args)
            problems += [
                f"{split}, row {start + place + 1} ({COUNTED}): {problem}" for place, problem in found
            ]
    if problems:
        raise InputError(problems[:MOST_PROBLEMS])


def _crowded(
    questions: Sequence[str], contexts: Sequence[str], tokenizer: Any, max_length: int, data_args: Any
) -> list[tuple[int, str]]:
    """Which questions leave too little room for their contexts, and what to say of each."""
    plain = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    own, shared = tokenizer.num_special_tokens_to_add(pair=True), stride(max_length, data_args)
    lengths = map(len, tokenizer([text.strip() for text in questions], **plain)["input_ids"])
    rooms = [max_length - own - length for length in lengths]
    found = []
    for place, room in enumerate(rooms):
        if room > shared or len(tokenizer(contexts[place], **plain)["input_ids"]) <= room:
            continue
        found.append(
            (
                place,
                f"the question, {questions[place].strip()[:60]!r}, has {max_length - own - room} tokens. "
                f"With --max_seq_length {max_length} that leaves {max(0, room)} for the context in a window, "
                f"and windows share --doc_stride {shared}: give a larger --max_seq_length, or a smaller "
                "--doc_stride.",
            )
        )
    return found


def cut(
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[Any] | None,
    tokenizer: Any,
    data_args: Any,
    max_length: int,
) -> dict[str, list[Any]]:
    """Rows of a question and a context as windows of tokens: one window a row, or several that hold the whole
    question and overlap in the context.

    The context stands behind the question, and before it where the tokenizer pads on the left, as XLNet's. A
    character may be several tokens, and a token only white space: an answer begins at the first token of its
    first character, and ends at the last of its last, without white space at its ends.

    Args:
        answers: as `questions.prepare` makes them, the first of a row being the target; None where they are
            not known. The target of a window without it is the place that stands for no answer: the
            tokenizer's [CLS], or, where it has none, the first token that is not of the context.
        tokenizer: a fast one of transformers.
        data_args: the flag doc_stride, the tokens of the context that windows share.
        max_length: the most tokens of a window.

    Returns:
        Lists with one entry a window: `input_ids`; `token_type_ids` if the tokenizer gives them; `starts` and
        `ends`, for each token the character of the context where an answer that begins, or ends, there does,
        UNCOUNTED where none may, and NO_ANSWER in `starts` at the place that stands for none;
        `start_positions` and `end_positions`, the target's first and last token, UNCOUNTED where answers are
        not known; HELD, whether the window holds the answer; and `data.ROW`, the row's place among these.

    Raises:
        InputError: for questions that leave no room, see `require_room`.
    """
    names = ["input_ids", "starts", "ends", "start_positions", "end_positions", HELD, ROW]
    if not questions:
        return {name: [] for name in names}
    crowded = _crowded(questions, contexts, tokenizer, max_length, data_args)
    if crowded:
        raise InputError([problem for _, problem in crowded][:MOST_PROBLEMS])
    is_first = tokenizer.padding_side == "left"
    texts = [[text.strip() for text in questions], list(contexts)]
    encoded = tokenizer(
        *(reversed(texts) if is_first else texts),
        truncation="only_first" if is_first else "only_second",
        max_length=max_length,
        stride=stride(max_length, data_args),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    names += ["token_type_ids"] if "token_type_ids" in encoded else []
    found: dict[str, list[Any]] = {name: [] for name in names}
    words = [np.array([match.span() for match in re.finditer(r"\S+", text)]) for text in contexts]
    marks = [_marks(text) for text in contexts]
    windows = []  # the row, and of each token the characters that it stands for, none for tokens without any
    edges: dict[int, tuple[int, int]] = {}  # the first and last character of a row that a token stands for
    for number, row in enumerate(encoded["overflow_to_sample_mapping"]):
        is_context = np.array(encoded.sequence_ids(number), dtype=float) == (0 if is_first else 1)
        spans = np.array(encoded["offset_mapping"][number])
        for start, end in marks[row]:
            spans[(spans[:, 1] >= start) & (spans[:, 1] < end), 1] = end
        spans = _without_space(spans, words[row])
        spans[~is_context | (spans[:, 0] >= spans[:, 1])] = UNCOUNTED
        windows.append((row, is_context, spans))
        if len(some_spans := spans[spans[:, 0] >= 0]):
            first, last = edges.get(row, (some_spans[0, 0], some_spans[-1, 1]))
            edges[row] = min(first, some_spans[0, 0]), max(last, some_spans[-1, 1])
    for number, (row, is_context, spans) in enumerate(windows):
        ids = encoded["input_ids"][number]
        none = (
            ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else int(is_context.argmin())
        )
        wanted, place = None if answers is None else answers[row], None
        if holds(wanted):
            start = wanted["start"][0]
            place = _place(spans, start, start + len(wanted["text"][0]), edges.get(row, (0, 0)))
        first, last = place or ((UNCOUNTED, UNCOUNTED) if wanted is None else (none, none))
        starts, ends = _legal(spans)
        starts[none] = NO_ANSWER
        made = (ids, starts.tolist(), ends.tolist(), first, last, place is not None, row)
        for name, value in zip(names, made, strict=False):
            found[name].append(value)
        if "token_type_ids" in found:
            found["token_type_ids"].append(encoded["token_type_ids"][number])
    return found


def _marks(text: str) -> list[tuple[int, int]]:
    """Start and end of the marks behind letters. Some tokenizers drop them: they are of the token before."""
    found: list[tuple[int, int]] = []
    for place in [] if text.isascii() else [n for n, sign in enumerate(text) if belongs_before(sign)]:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        elif place:
            found.append((place, place + 1))
    return found


def _without_space(spans: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Characters that tokens stand for, int64 (tokens, 2), without white space at their ends: of one that
    stands for nothing else the start is not before the end.

    Args:
        words: start and end of the text's runs of other characters, (words, 2).
    """
    if not len(words):
        return np.zeros_like(spans)
    behind = np.searchsorted(words[:, 1], spans[:, 0], side="right").clip(max=len(words) - 1)
    before = np.searchsorted(words[:, 0], spans[:, 1], side="left").clip(min=1) - 1
    starts = np.maximum(spans[:, 0], words[behind, 0])
    return np.stack([starts, np.minimum(spans[:, 1], words[before, 1])], axis=1)


def _legal(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each token the character where an answer begins that begins there, and the one behind its end."""
    starts, ends = np.full((2, len(spans)), UNCOUNTED)
    places = np.flatnonzero(spans[:, 0] >= 0)
    firsts = places[np.diff(spans[places, 0], prepend=UNCOUNTED) != 0]
    lasts = places[np.diff(spans[places, 1], append=UNCOUNTED) != 0]
    starts[firsts], ends[lasts] = spans[firsts, 0], spans[lasts, 1]
    return starts, ends


def _place(spans: np.ndarray, start: int, end: int, edges: tuple[int, int]) -> tuple[int, int] | None:
    """The first and last token of an answer; None if the window does not hold all of it.

    Args:
        start, end: of its characters.
        edges: the first and last character of the row that a token stands for.
    """
    places = np.flatnonzero(spans[:, 0] >= 0)
    inside = places[(spans[places, 1] > start) & (spans[places, 0] < end)]
    if not len(inside):
        return None
    begins_before = spans[places[0], 0] <= max(start, edges[0])
    ends_behind = spans[places[-1], 1] >= min(end, edges[1])
    return (int(inside[0]), int(inside[-1])) if begins_before and ends_behind else None


def tell_answers_outside(raw: dict[str, Any], features: dict[str, Any]) -> None:
    """Logs how many answers no window holds whole: nothing is learnt of them, but that windows hold none."""
    for split, rows in raw.items():
        if is_stream(rows) or ANSWERS not in rows.column_names:
            continue
        held = {
            row for row, holds_it in zip(features[split][ROW], features[split][HELD], strict=True) if holds_it
        }
        with_answers = [number for number, value in enumerate(rows[ANSWERS], 1) if holds(value)]
        outside = [number for number in with_answers if number - 1 not in held]
        if outside:
            logger.warning(
                "%s: %d of %d answers lie in no window, being longer than what windows share: row %s, %s. A "
                "larger --doc_stride or --max_seq_length would hold them.",
                split,
                len(outside),
                len(with_answers),
                some(outside),
                COUNTED,
            )
