"""Questions with choices as a model reads them, the targets, and what its answers mean."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triptych import data
from triptych.batching.padding import UNCOUNTED
from triptych.data import choice_rows, windows
from triptych.data.label_schema import leave_unscored, require_finite, values_by_split
from triptych.data.readers import MOST_PROBLEMS
from triptych.errors import InputError, some
from triptych.models import configs

logger = logging.getLogger(__name__)

PLACEHOLDER = re.compile(r"(?<!\w)_+(?!\w)")  # in a question, where a choice belongs

Scored = tuple[np.ndarray, np.ndarray, np.ndarray] | None  # see `Choices.scored`


@dataclass(frozen=True)
class Choices:
    """The choices of a run.

    Attributes:
        column: of the labels; None if no split has it.
        first: the number of the first choice in labels that are numbers; None if none are.
    """

    column: str | None
    first: int | None = None
    loss_unit: str = "nats per row"

    def encode(self, labels: Sequence[str | None]) -> list[int]:
        """The targets of rows: the place of the right choice; those of rows without a label do not count.

        Raises:
            InputError: for numbers that only the later rows of a stream have.
        """
        return [UNCOUNTED if label is None else self._place(label) for label in labels]

    def _place(self, label: str) -> int:
        kind, _, number = label.partition(" ")
        if kind == choice_rows.PLACE:
            return int(number)
        if self.first is None:
            raise InputError(f"The label {number} counts from 0 or from 1? Give --first_choice_number.")
        return int(number) - self.first

    def chosen(self, answers: Sequence[Any], rows: Any) -> np.ndarray:
        """The place of the likeliest choice of each row, int64 (rows,).

        Args:
            answers: one a row: the probability of each choice, and maybe of places where there is none.

        Raises:
            RunError: if some are not finite.
        """
        own = [
            np.asarray(answer)[: len(of_row)] for answer, of_row in zip(answers, rows["choices"], strict=True)
        ]
        require_finite(np.concatenate(own))
        return np.array([probabilities.argmax() for probabilities in own])

    def scored(self, answers: Sequence[Any], rows: Any) -> Scored:
        """Predicted and right places, and the number of choices, int64 (rows,) each, of the rows that have
        labels; None if none has."""
        labels = rows[self.column][:] if self.column in rows.column_names else []
        labelled = [number for number, label in enumerate(labels) if label is not None]
        if not labelled:
            return None
        wanted = np.array(self.encode([labels[number] for number in labelled]))
        counts = np.array([len(choices) for choices in rows["choices"]])
        return self.chosen(answers, rows)[labelled], wanted, counts[labelled]

    def table(self, answers: Sequence[Any], rows: Any) -> list[tuple]:
        """Rows below their heading: row number, number of the chosen choice, from 1, its text, and its
        probability. Line breaks and tabs in texts are blanks."""
        found: list[tuple] = [("row", "number", "text", "probability")]
        each = zip(rows[data.NUMBER], self.chosen(answers, rows), rows["choices"], answers, strict=True)
        for number, place, choices, probabilities in each:
            text = " ".join(choices[place].split())
            found.append((number, int(place) + 1, text, f"{probabilities[place]:.4f}"))
        return found


def settle(raw: dict[str, Any], columns: dict[str, str]) -> Choices:
    """Decides from which number labels count, of all splits together, and tells what the rows are like.

    Args:
        raw: rows by split, as `data.load` gives them; labels that no row of a split has go.
        columns: by role.

    Raises:
        InputError: see `choice_rows.first_number`.
    """
    column = columns.get("label")
    labels, choices = (values_by_split(raw, name) for name in (column, "choices"))
    counts = {split: [len(one) for one in values] for split, values in choices.items()}
    seen: dict[str, Iterable[tuple[str | None, int]]] = {
        split: zip(values, counts[split], strict=True) for split, values in labels.items()
    }
    for split, rows in raw.items():
        if data.is_stream(rows) and column in data.column_names(rows):
            seen[split] = ((row[column], len(row["choices"])) for row in rows.take(choice_rows.LOOKED_AT))
    first = choice_rows.first_number(seen)
    for split, values in choices.items():
        same = [number for number, texts in enumerate(values, 1) if len({*texts}) < len(texts)]
        if same:
            logger.warning(
                "%s: in %d of %d rows two choices are the same: row %s, counted without empty ones.",
                *(split, len(same), len(values), some(same)),
            )
        numbers = sorted({*counts[split]})
        several = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else numbers[0]
        logger.info("%s: %d questions of %s choices.", split, len(values), several)
        if split in labels:
            empty = [number for number, label in enumerate(labels[split], 1) if label is None]
            leave_unscored(raw, split, labels, column, empty)
    return Choices(column, first)


def max_length(config: Any, data_args: Any) -> int:
    """The tokens that a question with a choice has at most: `--max_seq_length`, else the positions of the
    model, at most 512."""
    return data_args.max_seq_length or min(windows.MOST, configs.positions(config) or windows.MOST)


def texts(question: Sequence[str], choice: str) -> tuple[str, str]:
    """The two texts that a model reads of a choice: of the first, the context, the end may be cut. The second
    is the question with the choice at its only `_`, else behind it. Without a context the question is the
    first; one that holds the choice is then all, and the second empty.

    Args:
        question: the context and the question itself, of which one may be empty.
    """
    context, asked = question
    places = PLACEHOLDER.findall(asked)
    if len(places) == 1:
        filled = PLACEHOLDER.sub(lambda _: choice, asked)
        return (context, filled) if context.strip() else (filled, "")
    if context.strip():
        return context, f"{asked} {choice}" if asked.strip() else choice
    return asked, choice


def tokenize(rows: dict[str, list], tokenizer: Any, longest: int) -> dict[str, list]:
    """Token ids of each choice of each row: of `texts`, of which the context alone is cut.

    Args:
        rows: lists by column, as `choice_rows.prepare` makes them.
        longest: the most tokens of a choice with all that stands before it.

    Returns:
        `input_ids`, for each row a list of the ids of each choice; `token_type_ids` likewise if the tokenizer
        gives them.

    Raises:
        InputError: in at most ten rows, a question and a choice that leave no room.
    """
    every = [
        (row, number, texts(rows["question"][row], choice))
        for row, choices in enumerate(rows["choices"])
        for number, choice in enumerate(choices, 1)
    ]
    made = _encoded(tokenizer, [both for _, _, both in every])
    own = tokenizer.num_special_tokens_to_add(pair=True)
    long: list[int] = []
    problems: dict[int, str] = {}
    for place, (row, number, (_, second)) in enumerate(every):
        needed = len(made[place]["input_ids"])
        if needed <= longest:
            continue
        long.append(place)
        if rows["question"][row][0].strip():  # of which a token at least must stay
            needed = own + len(tokenizer(second, add_special_tokens=False)["input_ids"]) + 1
        if needed > longest:
            problems.setdefault(
                row,
                f"{rows['where'][row]}: the question with choice {number} needs {needed} tokens, but there "
                f"is room for {longest}, and only a context is cut. Give a larger --max_seq_length, or leave "
                "the row out.",
            )
    if problems:
        raise InputError(list(problems.values())[:MOST_PROBLEMS])
    cut = _encoded(
        tokenizer, [every[place][-1] for place in long], truncation="only_first", max_length=longest
    )
    for place, encoded in zip(long, cut, strict=True):
        made[place] = encoded
    found: dict[str, list] = {name: [[] for _ in rows["choices"]] for name in made[0]} if made else {}
    for (row, *_), encoded in zip(every, made, strict=True):
        for name, ids in encoded.items():
            found[name][row].append(ids)
    return found


def _encoded(tokenizer: Any, every: Sequence[tuple[str, str]], **cut: Any) -> list[dict[str, list[int]]]:
    """Token ids, and types if the tokenizer gives them, of pairs of texts, or of the first alone where the
    second is empty."""
    made: list[dict[str, list[int]]] = [{} for _ in every]
    for are_pairs in (True, False):
        places = [place for place, (_, second) in enumerate(every) if bool(second) == are_pairs]
        if not places:
            continue
        firsts, seconds = (list(side) for side in zip(*(every[place] for place in places), strict=True))
        encoded = tokenizer(firsts, seconds if are_pairs else None, verbose=False, **cut)
        for number, place in enumerate(places):
            made[place] = {
                name: encoded[name][number] for name in ("input_ids", "token_type_ids") if name in encoded
            }
    return made
