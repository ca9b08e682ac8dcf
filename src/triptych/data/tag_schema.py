"""What the tags of words are, which number the model knows each by, and the tags that its answers come to."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from triptych.data import schemes
from triptych.data.label_schema import (
    COUNTED,
    classes_of,
    in_order_of_head,
    leave_unscored,
    may_be_left_out,
    names_of_head,
    ordered,
    require_finite,
    unseen,
    values_by_split,
)
from triptych.errors import InputError, some

logger = logging.getLogger(__name__)

LEAST = 1e-30  # probability that is told from none
FORBIDDEN = -1e9  # log probability that no sequence of likely tags makes up for
MEND = "Give --repair_tags to mend what can be read all the same, or --scheme if the tags follow another one."

Rows = list[list[str] | None]


@dataclass(frozen=True)
class Tags:
    """The tags of a run.

    Attributes:
        column: of the tags; None if no split has it.
        names: of the tags, in the order of the model's outputs.
        scheme: one of `schemes.SCHEMES`.
        classes: what the integers of a `datasets.ClassLabel` column stand for; None for other columns.
        constrained: whether only sequences that the scheme allows are decided for.
        mended: whether sequences that the scheme does not allow are mended as they are read.
        marks_entities: whether the tags mark entities, or say something of each word by itself.
    """

    column: str | None
    names: tuple[str, ...]
    scheme: str
    classes: tuple[str, ...] | None = None
    constrained: bool = False
    mended: bool = False
    marks_entities: bool = True

    loss_unit = "nats per labelled token"

    def lacks(self, value: Any) -> bool:
        """Whether a row has no tags: null, or null for every word."""
        return value is None or all(tag is None for tag in self.spelled(value))

    def spelled(self, value: Sequence[Any]) -> list[str | None]:
        """The tags of a row as they stand there, numbers of classes by their names; None for null, an empty
        text, and -1 where integers stand for classes."""
        return [self._name(tag) for tag in value]

    def _name(self, tag: Any) -> str | None:
        if tag is None or tag == "" or (self.classes is not None and tag == -1):
            return None
        if self.classes is not None and isinstance(tag, int) and 0 <= tag < len(self.classes):
            return self.classes[tag]
        return str(tag)

    def read(self, value: Sequence[Any]) -> list[str]:
        """The tags of a row that has them, mended if that is asked for.

        Raises:
            InputError: for a word without a tag, and a sequence that the scheme does not allow: streamed rows
                show theirs only now.
        """
        tags = [tag for tag in self.spelled(value) if tag is not None]
        if len(tags) < len(value):
            raise InputError(f"Some words have no tag: {some(value)}.")
        if self.mended:
            return schemes.mend(tags, self.scheme, self.names)
        if (place := schemes.first_fault(tags, self.scheme)) is not None:
            raise InputError(f"{_fault(tags, place)}: {self.scheme} does not allow it. {MEND}")
        return tags

    def encode(self, values: Sequence[Any]) -> list[list[int] | None]:
        """The numbers of the tags of rows; None for a row to predict that has none.

        Raises:
            InputError: for a tag that is not known; see `read`.
        """
        return [None if self.lacks(value) else self._numbers(self.read(value)) for value in values]

    def _numbers(self, tags: list[str]) -> list[int]:
        numbers = _numbers_of(self.names)
        try:
            return [numbers[tag] for tag in tags]
        except KeyError as error:
            known = f"It knows: {some(self.names)}."
            raise InputError(f"The model does not know the tag {error.args[0]!r}. {known}") from None

    @property
    def inside(self) -> tuple[int, ...]:
        """For each tag the one of the further tokens of its word: they begin no other entity."""
        found = []
        for number, name in enumerate(self.names):
            part, kind = schemes.parse(name, self.scheme) or (schemes.OUTSIDE, "")
            go_on = [
                n for n, other in enumerate(self.names) if schemes.parse(other, self.scheme) == ("I", kind)
            ]
            found.append(go_on[0] if part in ("B", "S") and go_on else number)
        return tuple(found)

    def of_row(self, windows: Sequence[Any], words: int) -> np.ndarray:
        """The probability of each tag for each word of a row, float32 (words, tags).

        A word that no window holds, because the tokenizer makes nothing of it, is O, or the first tag where
        there is no O.

        Args:
            windows: of the row, each float32 (tokens, 1 + tags): at the first token of a word its number in
                the row, elsewhere one below 0; then the probabilities.
        """
        found = np.zeros((words, len(self.names)), np.float32)
        found[:, self.names.index(schemes.OUTSIDE) if schemes.OUTSIDE in self.names else 0] = 1
        for window in windows:
            answers = np.asarray(window, np.float32).reshape(-1, 1 + len(self.names))
            answers = answers[answers[:, 0] >= 0]
            found[answers[:, 0].astype(np.int64)] = answers[:, 1:]
        return found

    def decide(self, probabilities: Any) -> np.ndarray:
        """The numbers of the tags of a row, int64 (words,): the likeliest of each word, or, where only legal
        sequences are asked for, those of the likeliest legal one by Viterbi's algorithm (1967,
        doi:10.1109/TIT.1967.1054010). Of equals the lowest. If no sequence is legal, that with the fewest
        steps that are not.

        Args:
            probabilities: (words, tags), see `of_row`.

        Raises:
            RunError: if some are not finite.
        """
        found = np.asarray(probabilities, np.float64)
        require_finite(found)
        if not self.constrained or not len(found):
            return found.argmax(axis=1)
        scores = np.log(np.maximum(found, LEAST))
        costs = np.where(_legal_steps(self.names, self.scheme), 0.0, FORBIDDEN)
        before = np.zeros(found.shape, np.int64)  # the best tag of the word before, for each tag of a word
        best = scores[0] + costs[-1, :-1]
        for word in range(1, len(found)):
            reached = best[:, None] + costs[:-1, :-1]
            before[word] = reached.argmax(axis=0)
            best = reached.max(axis=0) + scores[word]
        decided = np.zeros(len(found), np.int64)
        decided[-1] = (best + costs[:-1, -1]).argmax()
        for word in range(len(found) - 1, 0, -1):
            decided[word - 1] = before[word, decided[word]]
        return decided

    def answer(self, windows: Sequence[Any], words: int) -> tuple[list[str], np.ndarray]:
        """The tags of a row's words by `decide`, and the probability of each, float32 (words,).

        Args:
            windows: see `of_row`.
        """
        probabilities = self.of_row(windows, words)
        decided = self.decide(probabilities)
        return [self.names[number] for number in decided], probabilities[np.arange(words), decided]

    def scored(
        self, answers: Sequence[Sequence[Any]], rows: Any, tokens: str
    ) -> tuple[list[list[str]], list[list[str]]] | None:
        """The tags that the answers come to, and those of the rows, for the rows that have tags; None if none
        has.

        Args:
            answers: for each row its windows, see `of_row`.
            rows: the raw rows.
            tokens: the column of their words.
        """
        values = rows[self.column][:] if self.column in rows.column_names else []
        found = [
            (self.answer(windows, len(words))[0], self.read(value))
            for windows, words, value in zip(answers, rows[tokens][:], values, strict=bool(values))
            if not self.lacks(value)
        ]
        return ([predicted for predicted, _ in found], [wanted for _, wanted in found]) if found else None


@lru_cache(maxsize=8)
def _numbers_of(names: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


@lru_cache(maxsize=8)
def _legal_steps(names: tuple[str, ...], scheme: str) -> np.ndarray:
    """Whether a tag (down) may come before another one (across), bool (tags + 1, tags + 1); the last row and
    column are the edges of a sentence."""
    edged = (*names, None)
    return np.array([[schemes.may_follow(before, after, scheme) for after in edged] for before in edged])


def settle(config: Any, raw: dict[str, Any], columns: dict[str, str], data_args: Any) -> Tags:
    """Decides what the tags are, makes sure that all rows have known ones, and tells the model's
    configuration: `id2label`, `label2id`, and `tag_scheme`, for rows to predict that do not show it.

    Tags are numbered in the order of a ClassLabel feature, else O first and those of a type together. A model
    that knows all of them keeps the order it has. Rows to predict may lack tags: those that have them are
    scored, and where none has, the column goes.

    Args:
        config: of transformers, of the checkpoint that the run starts from or of a new model.
        raw: rows by split, which may be changed.
        columns: by role; that of the role "tags" may be missing.
        data_args: the flags task_name, scheme, repair_tags, ignore_mismatched_sizes, constrained_decoding.

    Raises:
        InputError: for words without a tag, tags that are none of the scheme or in an order that it does not
            allow, that no training row or the model does not have, or that are others than the model's,
            unless its head may be replaced.
    """
    column = columns.get("tags")
    known = names_of_head(config, "ForTokenClassification")
    by_split = values_by_split(raw, column)
    tags = Tags(column, (), schemes.NONE, classes_of(raw, column), data_args.constrained_decoding)
    for split in [split for split in by_split if split.startswith("test")]:
        empty = [number for number, value in enumerate(by_split[split], 1) if tags.lacks(value)]
        leave_unscored(raw, split, by_split, column, empty)
    problems = [problem for split, values in by_split.items() for problem in _null(tags, split, values)]
    if problems:
        raise InputError(problems)

    spelled = {
        split: [None if tags.lacks(value) else tags.read(value) for value in values]
        for split, values in by_split.items()
    }
    tags = _with_scheme(tags, spelled, known, config, data_args)
    every = tuple(dict.fromkeys(tag for rows in spelled.values() for row in rows for tag in row or ()))
    for split, rows in spelled.items():
        problems += _foreign(tags, split, rows)
        problems += _faults(tags, split, rows, data_args.repair_tags)
    if data_args.repair_tags:
        tags = replace(tags, mended=True)
        spelled = {
            split: [row and schemes.mend(row, tags.scheme, every) for row in rows]
            for split, rows in spelled.items()
        }

    try:
        tags = _named(tags, known, raw, spelled, data_args)
    except InputError as error:
        raise InputError(problems + error.problems) from None
    for split, rows in spelled.items():
        of_scheme = {
            tag: row for tag, row in _first_rows(rows).items() if schemes.parse(tag, tags.scheme) is not None
        }
        problems += unseen(of_scheme, tags.names, split, "tags")
    if problems:
        raise InputError(problems)
    config.problem_type = None
    config.id2label = dict(enumerate(tags.names))
    config.label2id = dict(_numbers_of(tags.names))
    config.tag_scheme = tags.scheme
    logger.info("%d tags: %s", len(tags.names), some(tags.names))
    return tags


def _null(tags: Tags, split: str, values: list[Any]) -> list[str]:
    """Which rows have words without a tag; those to predict may lack all of theirs."""
    wrong = [
        number
        for number, value in enumerate(values, 1)
        if (None in tags.spelled(value or []) or value is None)
        and not (split.startswith("test") and tags.lacks(value))
    ]
    if not wrong:
        return []
    count = f"{len(wrong)} of {len(values)} rows"
    return [
        f"{split}: {count} have words without a tag: row {some(wrong)}, {COUNTED}.{may_be_left_out(split)}"
    ]


def _with_scheme(
    tags: Tags, spelled: dict[str, Rows], known: tuple[str, ...] | None, config: Any, data_args: Any
) -> Tags:
    """With the scheme that is asked for, or that the tags of all splits tell."""
    steps = Counter(step for rows in spelled.values() for row in rows if row for step in schemes.steps(row))
    found = {after for _, after in steps if after is not None}
    if all(name.isdecimal() for name in found or tags.classes or known or ("O",)):
        logger.warning("The tags are numbers without names, so that they are scored by word.")
        return replace(tags, marks_entities=False)
    if data_args.task_name == "pos":
        return replace(tags, marks_entities=False)
    if data_args.scheme:
        logger.info("The tags are read as %s.", data_args.scheme)
        return replace(tags, scheme=data_args.scheme)
    of_model = () if "train" in spelled else known or ()
    scheme = schemes.tell(steps, {*(tags.classes or of_model), *found}, getattr(config, "tag_scheme", None))
    shown = "have no scheme: words of the same tag that stand together are one entity"
    shown = shown if scheme == schemes.NONE else f"follow {scheme}, as far as they tell"
    logger.info("The tags %s. --scheme would say otherwise.", shown)
    return replace(tags, scheme=scheme)


def _first_rows(rows: Rows) -> dict[str, int]:
    """The first row, from 1, of every tag."""
    first: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        for tag in row or ():
            first.setdefault(tag, number)
    return first


def _foreign(tags: Tags, split: str, rows: Rows) -> list[str]:
    first = _first_rows(rows)
    wrong = [f"{tag!r} (row {row})" for tag, row in first.items() if schemes.parse(tag, tags.scheme) is None]
    if not wrong:
        return []
    begins = ", ".join(f"{letter}-" for letter in schemes.LETTERS[tags.scheme])
    return [
        f"{split}: tags that are none of {tags.scheme}, where all but O begin with {begins}: {some(wrong)}, "
        f"{COUNTED}. Give --scheme none if they are meant so.{may_be_left_out(split)}"
    ]


def _faults(tags: Tags, split: str, rows: Rows, are_mended: bool) -> list[str]:
    found = [
        (number, row, place)
        for number, row in enumerate(rows, 1)
        if row and (place := schemes.first_fault(row, tags.scheme)) is not None
    ]
    if not found:
        return []
    count = f"{len(found)} of {len(rows)} rows"
    if are_mended:
        numbers = some([number for number, _, _ in found])
        logger.warning("%s: the tags of %s mended: row %s.", split, count, numbers)
        return []
    shown = some([f"{_fault(row, place)} in row {number}" for number, row, place in found])
    return [
        f"{split}: {count} have tags in an order that is not of {tags.scheme}: {shown}, {COUNTED}. {MEND}"
        f"{may_be_left_out(split)}"
    ]


def _fault(row: Sequence[str], place: int) -> str:
    if place == len(row):
        return f"{row[-1]!r} at the end (word {place})"
    return f"{row[place]!r} {f'after {row[place - 1]!r}' if place else 'at the start'} (word {place + 1})"


def _named(
    tags: Tags, known: tuple[str, ...] | None, raw: dict[str, Any], spelled: dict[str, Rows], data_args: Any
) -> Tags:
    """With the names, in the order of the model's outputs."""
    if "train" in raw and tags.classes:
        found: Sequence[str] = tags.classes
    elif "train" in spelled:
        used = _first_rows(spelled["train"])
        is_numbers = all(name.isdecimal() for name in used)
        found = ordered(used) if is_numbers else schemes.by_type(used, tags.scheme)
    elif known is not None:
        return replace(tags, names=known)
    else:
        raise InputError(
            "The tags are not known: streamed rows tell them too late. Start from a model that was trained "
            "for them, or leave out --streaming."
            if "train" in raw
            else "The model has no head that knows tags: --do_train gives it one."
        )
    if len(found) < 2:
        raise InputError(f"All training rows have the same tag, {found[0]!r}: there is nothing to learn.")
    if known is not None:
        found = in_order_of_head(known, found, data_args)
    return replace(tags, names=tuple(found))
