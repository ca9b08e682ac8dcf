"""Words with their tags, from rows that hold them or from texts with spans; and what is wrong there."""

import bisect
import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any

from triptych.data import words
from triptych.data.conversions import PROBLEMS, convert
from triptych.data.readers import MOST_PROBLEMS
from triptych.data.sources import CHUNK, is_stream
from triptych.errors import InputError, quoted

NAMES_ANOTHER = ("--text_column_name names another column", "--label_column_name names another column")
AROUND = 20  # characters of a text that a message shows on each side of a span
# Keys of a span: our own, doccano's, and Label Studio's, whose labels are lists
KEYS = (("start", "start_offset"), ("end", "end_offset"), ("label", "labels"))


def prepare(
    rows: Any, columns: dict[str, str], split: str, overwrite_cache: bool = False
) -> tuple[Any, dict[str, str]]:
    """The rows with a column `tokens` (lists of strings) and, if they have tags, a column `tags` (lists of
    strings, or of numbers as they were), one a token.

    If the column of the tokens holds texts, the words of each are its tokens (see `words.split`), the column
    `text` keeps it, and its tags, which are spans `{"start", "end", "label"}` in characters, become tags of
    the scheme IOB2. The keys of doccano and Label Studio are known as well.

    Null and empty rows stay. Rows of a stream are looked at as they come.

    Args:
        rows: as `load_splits` gives them.
        columns: by role, tokens and perhaps tags.

    Returns:
        The rows, and the columns by role: tokens, and tags and text if there are any.

    Raises:
        InputError: values of another kind; in at most ten rows, numbered as in their source, tokens and tags
            of different numbers, spans that cut a word, lie outside of the text, hold no word or overlap.
    """
    names = [columns[role] for role in ("tokens", "tags") if role in columns]
    rows = rows.select_columns(names)
    of_text = isinstance(next((row[names[0]] for row in rows if row[names[0]] is not None), None), str)
    renamed = dict(zip(names, ("text" if of_text else "tokens", "tags"), strict=False))
    roles = {name: name for name in ("tokens", *renamed.values())}
    if of_text or is_stream(rows):
        return _converted(rows, renamed, split, overwrite_cache), roles
    problems: list[str] = []
    chunks = rows.with_format("arrow").iter(CHUNK)
    values = (zip(*(chunk[name].to_pylist() for name in names), strict=True) for chunk in chunks)
    for number, row in enumerate(itertools.chain.from_iterable(values), 1):
        problems += _read(*row, of_text=False, where=f"{split}, row {number}")[-1]
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise InputError(problems[:MOST_PROBLEMS])
    return rows.rename_columns(renamed), roles


def _converted(rows: Any, renamed: dict[str, str], split: str, overwrite_cache: bool) -> Any:
    """Texts, or rows of a stream, with the new columns alone."""
    import datasets

    of_text = "text" in renamed.values()
    lists = datasets.List(datasets.Value("string"))
    features = datasets.Features(
        {new: rows.features[old] for old, new in renamed.items()} if rows.features else {}
    )
    if of_text:
        features = datasets.Features(text=datasets.Value("string"), tokens=lists)
        features |= {"tags": lists} if "tags" in renamed.values() else {}
    make = partial(_of_chunk, names=list(renamed), of_text=of_text, split=split)
    return convert(rows, make, features, f"Finding words of {split}", overwrite_cache)


def _of_chunk(
    chunk: dict[str, list], numbers: list[int], names: list[str], of_text: bool, split: str
) -> dict[str, list]:
    """The new columns, and what is wrong."""
    made: dict[str, list] = {"tokens": [], "tags": [], PROBLEMS: []}
    for number, *row in zip(numbers, *(chunk[name] for name in names), strict=True):
        where = f"{split}, row {number + 1}"
        for name, value in zip(made, _read(*row, of_text=of_text, where=where), strict=True):
            made[name].append(value)
    if len(names) == 1:
        del made["tags"]
    return made | ({"text": chunk[names[0]]} if of_text else {})


def _read(
    value: Any, marks: Any = None, *, of_text: bool, where: str
) -> tuple[list[str] | None, list[Any] | None, list[str]]:
    """Tokens and tags of a row, which may lack either, and what is wrong with them.

    Raises:
        InputError: for a value of another kind, as then those of other rows are likely to be.
    """
    if value is None:
        return None, None, []
    if not (isinstance(value, str) if of_text else _is_list_of(value, str)):
        wanted = "a text like those before it" if of_text else "a list of words, or in every row a text"
        raise InputError(f"{where}: {wanted} was expected, not {quoted(value)}; {NAMES_ANOTHER[0]}.")
    if isinstance(marks, dict) and all(isinstance(values, list) for values in marks.values()):
        # How `datasets` gives a Sequence of dictionaries
        marks = [dict(zip(marks, values, strict=True)) for values in zip(*marks.values(), strict=True)]
    if marks is not None and not _is_list_of(marks, *((dict, list) if of_text else (str, int, type(None)))):
        wanted = "a list of the text's spans (start, end, label)" if of_text else "a tag for each word"
        raise InputError(f"{where}: {wanted} was expected, not {quoted(marks)}; {NAMES_ANOTHER[1]}.")
    if not of_text:
        if marks is None or len(marks) == len(value):
            return value, marks, []
        numbers = f"number of tokens {len(value)}, of tags {len(marks)}"
        return value, marks, [f"{where}: {numbers}; give each token one tag."]
    found = words.split(value)
    tokens = [value[start:end] for start, end in found]
    if marks is None:
        return tokens, None, []
    spans, problems = [], []
    for mark in marks:
        if span := _span(mark):
            spans.append(span)
        else:
            problems.append(
                f"{quoted(mark)} is no span: it needs start and end in characters, and one label."
            )
    tags, wrong = iob2(spans, value, found)
    return tokens, tags, [f"{where}: {problem}" for problem in problems + wrong]


def _is_list_of(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kinds) for item in value)


def _span(mark: Any) -> tuple[int, int, str] | None:
    """Start, end and label of a span as it stands in a file; None if it has not all of them."""
    if isinstance(mark, dict):
        mark = [next((mark[key] for key in keys if mark.get(key) is not None), None) for keys in KEYS]
    if len(mark) != len(KEYS):
        return None
    start, end, label = mark
    if isinstance(label, list) and len(label) == 1:
        (label,) = label
    is_span = type(start) is type(end) is int and isinstance(label, str) and label.strip()
    return (start, end, label) if is_span else None


def iob2(
    spans: Iterable[tuple[int, int, str]], text: str, found: list[tuple[int, int]]
) -> tuple[list[str], list[str]]:
    """Tags of the scheme IOB2 for the words of a text, and what is wrong with its spans.

    Args:
        spans: start, end and label of each.
        found: the words, as `words.split` gives them.
    """
    starts, ends = [start for start, _ in found], [end for _, end in found]
    tags, problems = ["O"] * len(found), []
    for start, end, label in spans:
        # The words that are wholly inside; white space at the ends does no harm.
        first, last = bisect.bisect_left(starts, start), bisect.bisect_right(ends, end)
        cuts = (first > 0 and ends[first - 1] > start) or (last < len(found) and starts[last] < end)
        if start < 0 or end > len(text):
            wrong = f"lies outside of the text, which has {len(text)} characters"
        elif start >= end or (first >= last and not cuts):
            wrong = "holds no word"
        elif cuts:
            wrong = "cuts a word: let it begin and end where words do, or give lists of tokens"
        elif any(tag != "O" for tag in tags[first:last]):
            wrong = "overlaps another: a word has one tag"
        else:
            tags[first:last] = [f"B-{label}", *[f"I-{label}"] * (last - first - 1)]
            continue
        problems.append(f"the span {start} to {end} ({label}), {_around(text, start, end)}, {wrong}.")
    return tags, problems


def _around(text: str, start: int, end: int) -> str:
    """The text around a span, which stands in brackets."""
    start, end = (max(0, min(place, len(text))) for place in (start, end))
    before, behind = text[max(0, start - AROUND) : start], text[end : end + AROUND]
    before, behind = "…" * (start > AROUND) + before, behind + "…" * (end + AROUND < len(text))
    return repr(f"{before}[{text[start:end]}]{behind}")
