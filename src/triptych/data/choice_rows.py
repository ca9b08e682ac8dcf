"""Questions with their choices, from rows of any form; which choice a label means; what is wrong there."""

import itertools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from triptych.data import choice_columns
from triptych.data.conversions import PROBLEMS, convert
from triptych.data.sources import CHUNK, is_stream
from triptych.errors import InputError, quoted

logger = logging.getLogger(__name__)

# How labels name the right choice
NUMBERS, LETTERS, TEXTS, CLASSES = "numbers", "letters", "texts of choices", "classes"
# What a label is after `prepare`: the choice's place from 0, or a number of which the first is not known yet
PLACE, NUMBER = "place", "number"
LOOKED_AT = 1000  # rows of a stream by which is told what its labels are
NO_LABEL = ("", "-1")
LETTER = re.compile(r"\(?([A-Za-z])[).:]?")


@dataclass(frozen=True)
class Reading:
    """How the labels of a split are read.

    Attributes:
        kind: NUMBERS, LETTERS, TEXTS or CLASSES, the numbers of a `datasets.ClassLabel`.
        first: the number of the first choice; None where other splits have to tell.
        source: what `first` is known by, for people.
        has: of numbers whose first is not known: whether some is 0, and whether some is that of its row's
            choices.
    """

    kind: str
    first: int | None = 0
    source: str = ""
    has: tuple[bool, bool] = (False, False)


def prepare(rows: Any, columns: dict[str, str], split: str, data_args: Any) -> tuple[Any, dict[str, str]]:
    """The rows with the columns `where` (split and row, for messages), `question` (context and question, ""
    where there is none), `choices` (two or more) and, if there is one, `label` (text: PLACE or NUMBER and a
    number; null in rows to predict without one).

    Choices are lists of texts, `{"label", "text"}` of two lists or a list of such, or columns of one each;
    empty ones at the end are none. A label is the choice's own label, a number, a letter or the whole text;
    which of these, all labels of a split tell together. Null and empty rows stay.

    Args:
        rows: as `load_splits` gives them.
        columns: by role, see `choice_columns.find`.
        data_args: first_choice_number, overwrite_cache.

    Returns:
        The rows, and the columns by role.

    Raises:
        InputError: in at most ten rows, numbered as in their source: values of another kind, a choice that is
            empty between others, a single choice, a label that is missing or none of the choices.
    """
    import datasets

    names = list(dict.fromkeys(columns.values()))
    rows = rows.select_columns(names)
    reading = _reading(rows, columns, split, data_args) if "label" in columns else None
    texts = datasets.List(datasets.Value("string"))
    features = {"where": datasets.Value("string"), "question": texts, "choices": texts}
    features |= {"label": datasets.Value("string")} if reading else {}
    make = partial(_of_chunk, columns=columns, reading=reading, split=split)
    title = f"Reading choices of {split}"
    rows = convert(rows, make, datasets.Features(features), title, data_args.overwrite_cache)
    return rows, {name: name for name in features}


def _reading(rows: Any, columns: dict[str, str], split: str, data_args: Any) -> Reading:
    """What the labels of all rows say together; of a stream those of the first rows."""
    kind = (rows.features or {}).get(columns["label"])
    if hasattr(kind, "names"):
        return Reading(CLASSES)
    names = [columns["label"], *choice_columns.of_choices(columns)]
    rows = rows.select_columns(names)
    if is_stream(rows):
        found: Iterable = ([row[name] for name in names] for row in rows.take(LOOKED_AT))
    else:
        chunks = rows.with_format("arrow").iter(CHUNK)
        lists = ([chunk[name].to_pylist() for name in names] for chunk in chunks)
        found = itertools.chain.from_iterable(zip(*chunk, strict=True) for chunk in lists)
    given = [(label, _choices(values)) for label, *values in found if not lacks(label)]
    read = [(label, choices) for label, (choices, keys, _) in given if not keys and len(choices) > 1]
    reading = told(read, data_args.first_choice_number, choice_columns.convention(columns), split)
    if read:
        counted = (
            "" if reading.kind != NUMBERS or reading.first is None else f", counted from {reading.first}"
        )
        logger.info("%s: the labels are %s%s%s.", split, reading.kind, counted, reading.source)
    return reading


def told(
    labels: Sequence[tuple[Any, Sequence[str]]],
    first: int | None,
    convention: tuple[str, int] | None,
    split: str,
) -> Reading:
    """How labels are read, from all of a split, each with its row's choices.

    They are numbers or letters if most look so. Digits in text are texts of choices instead if they do not
    fit as numbers, but each is among its row's choices.

    Args:
        first: the number of the first choice, if it was asked for.
        convention: a known dataset and its first number.

    Raises:
        InputError: digits in text that may be either, and would not mean the same.
    """
    written = [str(label).strip() for label, _ in labels]
    numbers = [number for label in written if (number := _number(label)) is not None]
    if 2 * len(numbers) <= len(labels):
        letters = sum(LETTER.fullmatch(label) is not None for label in written)
        return Reading(LETTERS if 2 * letters > len(labels) else TEXTS)
    pairs = [
        (number, len(choices)) for number, (_, choices) in zip(map(_number, written), labels, strict=True)
    ]
    are_texts = all(
        isinstance(label, str) and text in choices
        for text, (label, choices) in zip(written, labels, strict=True)
    )
    fit = all(number is not None and 0 <= number <= count for number, count in pairs)
    if are_texts and not fit:
        return Reading(TEXTS)
    has = any(number == 0 for number, _ in pairs), any(number == count for number, count in pairs)
    start = first if first is not None else convention[1] if convention else 0 if has[0] else 1
    is_same = all(
        choices[number - start : number - start + 1] == [text]
        for text, (number, _), (_, choices) in zip(written, pairs, labels, strict=True)
        if number is not None and number >= start
    )
    if are_texts and first is None and not is_same:
        raise InputError(
            f"{split}: the labels are digits, which may be numbers of choices or their texts and mean "
            "different ones. Write letters (A, B, …), or give --first_choice_number if they are numbers."
        )
    if first is not None:
        return Reading(NUMBERS, first, " (--first_choice_number)")
    if convention is not None:
        return Reading(NUMBERS, convention[1], f" as in {convention[0]}")
    return Reading(NUMBERS, None, has=has)


def _number(label: str) -> int | None:
    """The whole number that a label is; None if it is none."""
    return int(label.removesuffix(".0")) if re.fullmatch(r"-?\d+(\.0)?", label) else None


def lacks(label: Any) -> bool:
    """Whether a row has no label: null, an empty text, or -1."""
    return label is None or str(label).strip() in NO_LABEL


def _of_chunk(
    chunk: dict[str, list], numbers: list[int], columns: dict[str, str], reading: Reading | None, split: str
) -> dict[str, list]:
    """The new columns of a chunk, and what is wrong; see `prepare`."""
    made: dict[str, list] = {"where": [], "question": [], "choices": [], "label": [], PROBLEMS: []}
    of_choices = choice_columns.of_choices(columns)
    for place, number in enumerate(numbers):
        where = f"{split}, row {number + 1}"
        row = {role: chunk[name][place] for role, name in columns.items()}
        question, problems = [], []
        for role in ("context", "question"):
            text = row.get(role)
            if not isinstance(text, str | None):
                problems.append(f"the {role} must be text, not {quoted(text)}.")
            question.append(text if isinstance(text, str) else "")
        choices, keys, wrong = _choices([chunk[name][place] for name in of_choices])
        problems += wrong
        is_empty = not choices or not any(text.strip() for text in question)
        if len(choices) == 1:
            problems.append("there is a single choice: a question needs two or more.")
        label = None
        if reading and not is_empty and len(choices) > 1:
            label, wrong_label = _read(row["label"], choices, keys, reading, split)
            problems += [wrong_label] if wrong_label else []
        values = (where, question, choices, label, [f"{where}: {problem}" for problem in problems])
        for name, value in zip(made, values, strict=True):
            made[name].append(value)
    if reading is None:
        del made["label"]
    return made


def _choices(values: list[Any]) -> tuple[list[str], list[str], list[str]]:
    """The choices of a row, their own labels if they have any, and what is wrong with them.

    Args:
        values: of the columns of choices: one list, or several texts.
    """
    keys: list[Any] = []
    (value,) = values if len(values) == 1 else (values,)
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        value = {name: [one.get(name) for one in value] for name in ("label", "text")}
    if isinstance(value, dict):
        keys, value = value.get("label") or [], value.get("text")
    if value is None:
        return [], [], []
    if not isinstance(value, list):
        return [], [], [f"a list of choices was expected, not {quoted(value)}; {_columns_hint()}."]
    if other := [one for one in value if not isinstance(one, str | int | float | None)]:
        return [], [], [f"a choice must be text, not {quoted(other[0])}."]
    choices = ["" if one is None else str(one) for one in value]
    count = max((number for number, text in enumerate(choices, 1) if text.strip()), default=0)
    choices, own = choices[:count], [str(key).strip() for key in keys[:count] if key is not None]
    problems = [
        f"choice {number} is empty, but choice {count} is not."
        for number, text in enumerate(choices, 1)
        if not text.strip()
    ]
    return choices, own if len(own) == count else [], problems


def _columns_hint() -> str:
    return f"columns of a choice each are named with {choice_columns.FLAGS['choices']} a,b,c"


def _read(
    label: Any, choices: Sequence[str], keys: Sequence[str], reading: Reading, split: str
) -> tuple[str | None, str | None]:
    """What a label means, as `prepare` writes it, and what is wrong with it."""
    if lacks(label):
        return None, None if split.startswith("test") else "the label is missing."
    text, count = str(label).strip(), len(choices)
    if keys:
        wrong = f"the label {text!r} is none of {', '.join(keys)}."
        return (f"{PLACE} {keys.index(text)}", None) if text in keys else (None, wrong)
    beyond = f"the label {text!r} is beyond the choices, of which there are {count}"
    if reading.kind == LETTERS:
        letter = LETTER.fullmatch(text)
        if letter is None:
            return None, f"the label {text!r} is no letter, as those of most other rows are."
        place = ord(letter[1].upper()) - ord("A")
        return (f"{PLACE} {place}", None) if place < count else (None, f"{beyond}.")
    if reading.kind == TEXTS:
        stripped = [choice.strip() for choice in choices]
        if text in stripped:
            return f"{PLACE} {stripped.index(text)}", None
        return None, f"the label {text[:60]!r} is no number, no letter, and the text of no choice."
    number = _number(text)
    if number is None:
        return None, f"the label {text[:60]!r} is no number, as those of most other rows are."
    if reading.first is None:
        # Seen so far they count from 0 if some is 0.
        if 0 <= number <= count - reading.has[0]:
            return f"{NUMBER} {number}", None
        counted = ", counted from 0 as other rows do" if reading.has[0] else ""
        return None, f"{beyond}{counted}."
    if 0 <= number - reading.first < count:
        return f"{PLACE} {number - reading.first}", None
    counted = f"counted from {reading.first}{reading.source}"
    hint = (
        "" if "--" in reading.source or reading.kind == CLASSES else "; --first_choice_number tells otherwise"
    )
    return None, f"{beyond}, {counted}{hint}."


def first_number(by_split: Mapping[str, Iterable[tuple[str | None, int]]]) -> int | None:
    """The number by which labels call the first choice; None where they have told places already.

    Args:
        by_split: labels as `prepare` writes them, each with how many choices its row has.

    Raises:
        InputError: splits that count from different numbers, or labels that fit both.
    """
    zeros: dict[str, int] = {}
    ends: dict[str, int] = {}
    numbers = 0
    for split, labels in by_split.items():
        for label, count in labels:
            kind, _, number = (label or "").partition(" ")
            if kind == NUMBER:
                numbers += 1
                if int(number) == 0:
                    zeros[split] = zeros.get(split, 0) + 1
                if int(number) == count:
                    ends[split] = ends.get(split, 0) + 1
    if not numbers:
        return None
    if zeros and ends:
        raise InputError(
            f"The labels of {' and '.join(zeros)} count the choices from 0, those of {' and '.join(ends)} "
            "from 1: some are as large as the number of choices. Write letters (A, B, …) in all files."
        )
    if not zeros and not ends:
        raise InputError(
            "The labels are numbers, of which none is 0 and none that of its row's choices: do they count "
            "from 0 or from 1? Give --first_choice_number."
        )
    first = 0 if zeros else 1
    evidence = "some are 0" if zeros else "some are as large as the number of choices"
    logger.info("The labels are numbers, counted from %d: %s.", first, evidence)
    return first
