"""What is written of tagged words: lines of tags, CoNLL columns, and entities as spans of characters."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from triptych import data
from triptych.data import words
from triptych.data.schemes import extract
from triptych.data.tag_schema import Tags

_BREAKS = re.compile("[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")  # tabs, and all that may end a line
_BREAKS_IN_JSON = re.compile("[\x85\u2028\u2029]")  # those that JSON leaves as they are


class Tagged(NamedTuple):
    """A row with the tags that a model gives its words.

    Attributes:
        number: of the row in its source.
        text: what `offsets`, start and end of each word in characters, are places in.
        probabilities: of each tag, float32 (words,).
    """

    number: int
    text: str
    tokens: Sequence[str]
    offsets: Sequence[tuple[int, int]]
    tags: Sequence[str]
    probabilities: np.ndarray


def of_answers(
    answers: Sequence[Sequence[Any]], rows: Any, columns: Mapping[str, str], schema: Tags
) -> list[Tagged]:
    """The rows that were predicted; the text of one that came as words is these with blanks between them.

    Args:
        answers: for each row its windows, see `Tags.of_row`.
        rows: the raw rows, as `data.load` gives them.
        columns: by role: tokens, and text where there is one.
    """
    tokens, numbers = rows[columns["tokens"]][:], rows[data.NUMBER][:]
    texts = rows[columns["text"]][:] if "text" in columns else [None] * len(rows)
    found = []
    for number, text, words_of_row, windows in zip(numbers, texts, tokens, answers, strict=True):
        tags, probabilities = schema.answer(windows, len(words_of_row))
        places = words.offsets(words_of_row, text)
        text = " ".join(words_of_row) if text is None else text
        found.append(Tagged(number, text, words_of_row, places, tags, probabilities))
    return found


def tag_lines(rows: Iterable[Tagged]) -> list[str]:
    """The tags of each row with blanks between them; those in a tag become underscores."""
    return [" ".join("_".join(tag.split()) for tag in row.tags) for row in rows]


def conll_lines(rows: Iterable[Tagged]) -> list[str]:
    """Token, tag and probability of each word with tabs between them, and an empty line behind each row. Tabs
    and line breaks in a token become blanks."""
    lines = []
    for row in rows:
        for token, tag, probability in zip(row.tokens, row.tags, row.probabilities, strict=True):
            lines.append(f"{_BREAKS.sub(' ', token)}\t{_BREAKS.sub(' ', tag)}\t{probability:.4f}")
        lines.append("")
    return lines


def entity_lines(rows: Iterable[Tagged], scheme: str) -> list[str]:
    """The entities of the rows, one a line as JSON: row (its number), start and end in its text, label, text,
    and probability: the product of those of the words' tags, which are independent of each other for the
    model that has read the text."""
    lines = []
    for row in rows:
        for first, behind, label in extract(row.tags, scheme):
            start, end = row.offsets[first][0], row.offsets[behind - 1][1]
            probability = float(np.prod(row.probabilities[first:behind], dtype=np.float64))
            place = {"row": row.number, "start": start, "end": end, "label": label}
            lines.append(
                json_line(place | {"text": row.text[start:end], "probability": round(probability, 4)})
            )
    return lines


def json_line(value: Any) -> str:
    """A value as JSON in one line, whatever a reader takes for the end of a line."""
    text = json.dumps(value, ensure_ascii=False)
    return _BREAKS_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
