"""What the labels of a dataset are, which number the model knows each by, and predictions in their words."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from triptych import data
from triptych.batching.padding import UNCOUNTED
from triptych.errors import MOST, InputError, RunError, some

logger = logging.getLogger(__name__)

SINGLE = "single_label_classification"
MULTI = "multi_label_classification"
REGRESSION = "regression"
# How classes of transformers with such heads are called
CLASSIFIERS = ("ForSequenceClassification", "ForImageClassification", "ForImageClassificationWithTeacher")
COUNTED = "rows counted without empty ones"


@dataclass(frozen=True)
class Labels:
    """The labels of a run.

    Attributes:
        column: of the labels; None if no split has it.
        problem_type: SINGLE, MULTI or REGRESSION, the names of transformers.
        names: of the labels, in the order of the model's outputs; none for a regression.
        classes: what the integers of a `datasets.ClassLabel` column stand for; None for other columns.
        delimiter: between the labels of a row, where they stand in one string.
        vector: how many labels there are, where a row says 0 or 1 of each; None where it names its own.
    """

    column: str | None
    problem_type: str
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    delimiter: str | None = None
    vector: int | None = None

    @property
    def loss_unit(self) -> str:
        """What the loss is measured in."""
        units = {SINGLE: "nats per row", MULTI: "nats per row and label", REGRESSION: "squared error per row"}
        return units[self.problem_type]

    def encode(self, values: Sequence[Any]) -> list[Any]:
        """The targets of rows: the label's number; for several labels a list of 0.0 and 1.0; or the value.
        Those of rows to predict without a label do not count.

        Raises:
            InputError: for a label that is not known: streamed rows show theirs only now.
        """
        return [self._target(value) for value in values]

    def _target(self, value: Any) -> Any:
        if self.lacks(value):
            return [float(UNCOUNTED)] * len(self.names) if self.problem_type == MULTI else UNCOUNTED
        try:
            if self.problem_type == REGRESSION:
                # A true value of -100 is moved by less than float32 can tell, so that it counts.
                return float(value) if float(value) != UNCOUNTED else -100.00001
            if self.problem_type == SINGLE:
                return self.names.index(self.name(value))
            chosen = {self.names.index(name) for name in self.split(value)}
        except (ValueError, TypeError):
            known = f"It knows: {some(self.names)}." if self.names else "It predicts numbers."
            raise InputError(f"The model does not know the label {value!r}. {known}") from None
        return [float(number in chosen) for number in range(len(self.names))]

    def lacks(self, value: Any) -> bool:
        """Whether a row has no label: null, an empty text, or -1 where integers stand for classes, as in SNLI
        and in the test rows of GLUE."""
        if isinstance(value, str):
            # The delimiter alone says that a row has none of the labels.
            return not value.strip() and (self.delimiter is None or self.delimiter not in value)
        return value is None or (self.classes is not None and value == -1)

    def name(self, value: Any) -> str:
        """A label as text; the number of a class as that class's name."""
        if self.classes is not None and isinstance(value, int):
            return self.classes[value] if 0 <= value < len(self.classes) else str(value)
        return str(value)

    def split(self, value: Any) -> list[str]:
        """The labels of a row, which may have none."""
        parts = _parts(value, self.delimiter)
        if self.vector is not None:
            names = self.names or tuple(map(str, range(self.vector)))
            return [name for name, part in zip(names, parts, strict=True) if float(part)]
        return [self.name(part) for part in parts]

    def scored(self, answers: Sequence[Any], rows: Any) -> tuple[Any, list[Any]] | None:
        """What the answers come to (see `decide`), and the targets, of the rows that have labels; None if
        none has."""
        values = rows[self.column][:] if self.column in rows.column_names else []
        labelled = [number for number, value in enumerate(values) if not self.lacks(value)]
        if not labelled:
            return None
        return self.decide(answers)[labelled], self.encode([values[number] for number in labelled])

    def decide(self, answers: Sequence[Any]) -> np.ndarray:
        """What probabilities or values come to: the number of the likeliest label, int64 (rows,); 1 for each
        label that is likelier than not, int64 (rows, labels); or the value of a regression, float (rows,).

        Args:
            answers: one a row: the probability of each label, or the value.

        Raises:
            RunError: if some are not finite.
        """
        found = np.array(answers)
        require_finite(found)
        if self.problem_type == SINGLE:
            return found.argmax(axis=1)
        return (found > 0.5).astype(np.int64) if self.problem_type == MULTI else found

    def table(self, answers: Sequence[Any], numbers: Iterable[int]) -> list[tuple]:
        """Rows below their heading: row number, label, probability, or the value of a regression; of several
        labels all that were chosen, with a probability each.

        Args:
            answers: see `decide`.
            numbers: of the rows in their source.
        """
        if self.problem_type == REGRESSION:
            return [("row", "value"), *zip(numbers, (f"{value:.6g}" for value in answers), strict=True)]
        rows: list[tuple] = [("row", "label", "probability")]
        between = self.delimiter or ","
        for number, chosen, shares in zip(numbers, self.decide(answers), answers, strict=True):
            ids = [int(chosen)] if self.problem_type == SINGLE else np.flatnonzero(chosen).tolist()
            names = between.join(self.names[label] for label in ids)
            rows.append((number, names, between.join(f"{shares[label]:.4f}" for label in ids)))
        return rows


def settle(config: Any, raw: dict[str, Any], column: str | None, data_args: Any, args: Any) -> Labels:
    """Decides what the labels are, makes sure that all rows have known ones, and tells the model's
    configuration: `problem_type`, `id2label`, `label2id`.

    Lists, or strings with `--label_delimiter`, are several labels a row; numbers with decimals (in JSON and
    Parquet) and `--do_regression` are values; all else is one label a row. Labels are numbered in the order
    of a ClassLabel feature, else in that of their numbers or letters. A model that knows all of them keeps
    the order it has. Lists of 0 and 1 of one length say of each label whether a row has it.

    Rows to predict may lack labels: those that have one are scored, and where none has, or all are -1, the
    column goes. Other rows whose class is -1, which says that people did not agree, are left out.

    Args:
        config: of transformers, of the checkpoint that the run starts from or of a new model.
        raw: rows by split, which may be changed.
        column: of the labels; None if no split has it.
        data_args: the flags do_regression, label_delimiter, ignore_mismatched_sizes.
        args: the flag label_smoothing_factor.

    Raises:
        InputError: for labels that cannot be read, that no training row or the model does not have, or
            that are others than the model's, unless its head may be replaced.
    """
    known = _of_model(config)
    by_split = values_by_split(raw, column)
    labels = _kind(known, raw, by_split, column, data_args)
    for split in list(raw):
        if column in data.column_names(raw[split]):
            _leave_out_unlabelled(labels, raw, split, by_split)
    labels, problems = _doubted(labels, by_split)
    problems += [
        f"{split}: {problem}{may_be_left_out(split)}"
        for split, values in by_split.items()
        for problem in _unreadable(labels, values)
    ]
    if labels.problem_type == REGRESSION and args.label_smoothing_factor:
        problems.append("--label_smoothing_factor: a regression has no labels to smooth.")
    if problems:
        raise InputError(problems)

    if labels.problem_type != REGRESSION:
        labels = _named(labels, known, config, raw, by_split, data_args)
        for split, values in by_split.items():
            problems += unseen(_used(labels, values), labels.names, split)
        if problems:
            raise InputError(problems)
    elif known is not None and known.problem_type != REGRESSION and not data_args.ignore_mismatched_sizes:
        raise InputError(_other_head(f"labels {some(known.names)}", "values (a regression)"))
    config.problem_type = labels.problem_type
    names = labels.names or ("LABEL_0",)  # transformers' own name for the output of a regression
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    what = f"{len(labels.names)} labels: {some(labels.names)}" if labels.names else "one value a row"
    logger.info("Problem type %s, %s", labels.problem_type, what)
    return labels


def _of_model(config: Any) -> Labels | None:
    """What the head of a checkpoint knows; None if it has none. Names of the form LABEL_0 are none."""
    names = names_of_head(config, CLASSIFIERS)
    if names is None:
        return None
    kind = config.problem_type or (REGRESSION if len(names) == 1 else SINGLE)
    return Labels(None, kind, () if kind == REGRESSION else names)


def names_of_head(config: Any, ending: str | tuple[str, ...]) -> tuple[str, ...] | None:
    """The labels of a checkpoint whose architecture's name has that ending, or one of several, in the order
    of its outputs; None for another one. Names of the form LABEL_0 are none: they become numbers."""
    if not any(name.endswith(ending) for name in config.architectures or ()):
        return None
    names = tuple(config.id2label[number] for number in sorted(config.id2label))
    if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        names = tuple(map(str, range(len(names))))
    return names


def values_by_split(raw: dict[str, Any], column: str | None) -> dict[str, list[Any]]:
    """The values of a column in the splits that have it, beside those that are streamed."""
    return {
        split: rows.select_columns([column])[column][:]
        for split, rows in raw.items()
        if column in data.column_names(rows) and not data.is_stream(rows)
    }


def classes_of(raw: dict[str, Any], column: str | None) -> tuple[str, ...] | None:
    """What the integers of a `datasets.ClassLabel` column, or of its lists, stand for; None for others."""
    features: dict = next((rows.features for rows in raw.values() if column in (rows.features or ())), {})
    inner = getattr(features.get(column), "feature", features.get(column))
    return tuple(inner.names) if inner is not None and hasattr(inner, "names") else None


def _leave_out_unlabelled(
    labels: Labels, raw: dict[str, Any], split: str, by_split: dict[str, list[Any]]
) -> None:
    """Settles what becomes of a split's rows without a label; see `settle`."""
    rows, column = raw[split], labels.column
    if data.is_stream(rows):
        if labels.classes is not None:
            raw[split] = rows.filter(_has_label, fn_kwargs={"labels": labels})
        return
    values = by_split[split]
    empty = [number for number, value in enumerate(values, 1) if labels.lacks(value)]
    if split.startswith("test"):
        if not empty and _hashable(values) and set(values) in ({-1}, {"-1"}):
            logger.info("%s: all labels are -1, so these rows are predicted and not scored.", split)
            raw[split] = rows.remove_columns(column)
            del by_split[split]
        else:
            leave_unscored(raw, split, by_split, column, empty)
        return
    if len(empty) == len(values):
        raise InputError(f"{split}: not one of {len(values)} rows has a label.")
    if empty:
        shown = f"{len(empty)} of {len(values)} rows left out, their label being -1: row {some(empty)}"
        logger.warning("%s: %s.", split, shown)
        kept = [index for index, value in enumerate(values) if not labels.lacks(value)]
        raw[split], by_split[split] = rows.select(kept), [values[index] for index in kept]


def leave_unscored(
    raw: dict[str, Any], split: str, by_split: dict[str, list[Any]], column: str | None, empty: list[int]
) -> None:
    """Says which rows to predict are not scored; the column goes if it is all of them.

    Args:
        empty: the numbers, from 1, of the rows that lack a value.
    """
    rows = len(by_split[split])
    if len(empty) == rows:
        missing = f"the label is missing in {rows} of {rows} rows"
        logger.info("%s: %s, so these rows are predicted and not scored.", split, missing)
        raw[split] = raw[split].remove_columns(column)
        del by_split[split]
    elif empty:
        shown = f"{len(empty)} of {rows} rows (row {some(empty)})"
        logger.info("%s: the label is missing in %s; the others are scored.", split, shown)


def _has_label(row: dict[str | None, Any], labels: Labels) -> bool:
    return not labels.lacks(row[labels.column])


def _hashable(values: list[Any]) -> bool:
    return not any(isinstance(value, list | dict) for value in values)


def _kind(
    known: Labels | None,
    raw: dict[str, Any],
    by_split: dict[str, list[Any]],
    column: str | None,
    data_args: Any,
) -> Labels:
    """The problem type, without names yet: of the first label, where the model need not be asked."""
    classes = classes_of(raw, column)
    bare = Labels(column, SINGLE, (), classes, data_args.label_delimiter)
    first = next((value for values in by_split.values() for value in values if not bare.lacks(value)), None)
    keeps = known is not None and ("train" not in raw or known.problem_type == REGRESSION)
    if data_args.do_regression:
        kind = REGRESSION
    elif known is not None and keeps and not data_args.ignore_mismatched_sizes:
        kind = known.problem_type
    elif isinstance(first, list) or (data_args.label_delimiter and first is not None):
        kind = MULTI
    elif isinstance(first, float) and data_args.do_regression is None:
        kind = REGRESSION
        logger.info("The labels are numbers with decimals: --do_regression false would take them as names.")
    else:
        kind = SINGLE
    return replace(bare, problem_type=kind, classes=None if kind == REGRESSION else classes)


def _parts(value: Any, delimiter: str | None) -> list[Any]:
    """The labels of a row as they stand there."""
    if isinstance(value, str):
        return list(filter(None, map(str.strip, value.split(delimiter))))
    return list(value)


def _doubted(labels: Labels, by_split: dict[str, list[Any]]) -> tuple[Labels, list[str]]:
    """The labels as all values together say, and what looks like another form than the first value's."""
    problems = []
    for split, values in by_split.items():
        lists = [
            (n, value) for n, value in enumerate(values, 1) if isinstance(value, str) and _is_list(value)
        ]
        if lists and len(lists) == sum(not labels.lacks(value) for value in values):
            problems.append(
                f"{split}: the labels are lists written as text, {lists[0][1]!r} in row {lists[0][0]}, "
                f"{COUNTED}. Write the rows as JSON Lines, with lists, or the names of a row's labels with a "
                "sign between them, as a|c, and give --label_delimiter '|'."
            )
    if problems or labels.problem_type != MULTI or labels.classes is not None:
        _warn_of_decimals(labels, by_split)
        return labels, problems
    readable = {
        split: [
            (number, _parts(value, labels.delimiter))
            for number, value in enumerate(values, 1)
            if isinstance(value, list | str) and not labels.lacks(value)
        ]
        for split, values in by_split.items()
    }
    every = [parts for rows in readable.values() for _, parts in rows]
    marks = {str(part).removesuffix(".0") for parts in every for part in parts} <= {*"01", "True", "False"}
    lengths = {len(parts) for parts in every}
    if marks and len(lengths) == 1 and max(lengths) > 1:
        logger.warning("The labels are vectors: each row says 0 or 1 of %d labels.", max(lengths))
        return replace(labels, vector=max(lengths)), []
    for split, rows in readable.items():
        for number, parts in rows:
            names = list(map(str, parts))
            if marks and len(set(names)) < len(names):
                problems.append(
                    f"{split}: {parts} in row {number}, {COUNTED}, looks like a vector of 0 and 1, but other "
                    f"rows have another length: {some(sorted(lengths))}. Give all the same, or the names."
                )
            elif any(isinstance(part, float) and not part.is_integer() for part in parts):
                problems.append(
                    f"{split}: {parts} in row {number}, {COUNTED}, holds decimals, which name no labels: "
                    "give the names of a row's labels, or 0 and 1 for each label."
                )
    return labels, problems[:MOST]


def _is_list(text: str) -> bool:
    return text.strip().startswith("[") and text.strip().endswith("]")


def _warn_of_decimals(labels: Labels, by_split: dict[str, list[Any]]) -> None:
    """Numbers in text, as those of CSV are, count as names: many different ones are hardly meant so."""
    values = [value for value in by_split.get("train", []) if isinstance(value, str)]
    different = {number for value in values if (number := _number(value)) is not None}
    fractions = [number for number in different if number % 1]
    if labels.problem_type == SINGLE and fractions and len(different) > MOST:
        logger.warning(
            "The labels are taken as names, %d different ones such as %g: --do_regression would predict "
            "them as numbers.",
            *(len(different), min(fractions)),
        )


def _unreadable(labels: Labels, values: list[Any]) -> list[str]:
    """What is wrong with the values of a split."""

    def is_wrong(value: Any) -> bool:
        if labels.problem_type == REGRESSION:
            try:
                return not np.isfinite(float(value))
            except (TypeError, ValueError):
                return True
        if labels.problem_type == MULTI:
            return not isinstance(value, list | str) or (isinstance(value, str) and labels.delimiter is None)
        return isinstance(value, list | dict)

    def is_wrong_label(value: Any) -> bool:
        return not labels.lacks(value) and is_wrong(value)

    wanted = {
        REGRESSION: "a number",
        MULTI: "a list of labels, or labels in a string with --label_delimiter",
        SINGLE: "one label",
    }[labels.problem_type]
    wrong = [(number, value) for number, value in enumerate(values, 1) if is_wrong_label(value)]
    if not wrong:
        return []
    shown = some([f"{value!r} in row {number}" for number, value in wrong])
    return [f"{len(wrong)} of {len(values)} labels are not {wanted}: {shown}, {COUNTED}."]


def _used(labels: Labels, values: Iterable[Any]) -> dict[str, int]:
    """The first row, from 1, of every label."""
    first: dict[str, int] = {}
    for number, value in enumerate(values, 1):
        if not labels.lacks(value):
            for name in labels.split(value) if labels.problem_type == MULTI else [labels.name(value)]:
                first.setdefault(name, number)
    return first


def _named(
    labels: Labels,
    known: Labels | None,
    config: Any,
    raw: dict[str, Any],
    by_split: dict[str, list[Any]],
    data_args: Any,
) -> Labels:
    """With the names, in the order of the model's outputs."""

    def with_names(names: Iterable[str]) -> Labels:
        return replace(labels, names=tuple(names))

    if "train" in by_split:
        numbered = tuple(map(str, range(labels.vector or 0)))
        found = list(labels.classes or numbered or ordered(_used(labels, by_split["train"])))
    elif "train" in raw and labels.classes:
        found = list(labels.classes)
    elif known is not None and known.names and labels.vector not in (None, len(known.names)):
        raise InputError(f"The model has {len(known.names)} labels, the rows say 0 or 1 of {labels.vector}.")
    elif known is not None and known.names:
        return with_names(known.names)
    else:
        raise InputError(
            "The labels are not known: streamed rows tell them too late. Start from a model that was trained "
            "for them, or leave out --streaming."
            if "train" in raw
            else "The model has no head that knows labels: --do_train gives it one."
        )
    if labels.problem_type == SINGLE and len(found) < 2:
        raise InputError(f"All training rows have the same label, {found[0]!r}: there is nothing to learn.")
    if known is None:
        return with_names(found)
    is_same_kind = known.problem_type == labels.problem_type
    if is_same_kind and labels.vector == len(known.names):
        return with_names(known.names)
    return with_names(in_order_of_head(known.names, found, data_args, is_same_kind))


def in_order_of_head(
    known: Sequence[str], found: Sequence[str], data_args: Any, is_same_kind: bool = True
) -> Sequence[str]:
    """The labels that a run found in its rows, in the order that the model's head has if it knows them all.

    Args:
        known: the labels of the head; none of a regression's.
        data_args: the flag ignore_mismatched_sizes.
        is_same_kind: whether the head answers the same kind of question.

    Raises:
        InputError: if the head has other labels, and may not be replaced.
    """
    if is_same_kind:
        if set(found) <= set(known):
            if list(known) != list(found):
                logger.info("The labels keep the order that the model has.")
            return known
        if list(known) == list(map(str, range(len(found)))):
            logger.warning("The model's labels have no names; they get these, in order: %s.", some(found))
            return found
    if not data_args.ignore_mismatched_sizes:
        theirs = f"labels {some(known)}" if known else "values (a regression)"
        foreign = [name for name in found if name not in known]
        raise InputError(_other_head(theirs, f"labels {some(foreign)}"))
    if len(found) == len(known):
        logger.warning("The head keeps its weights, and learns other labels: %s.", some(found))
    return found


def ordered(names: Iterable[str]) -> list[str]:
    """By number if all are numbers, else by letters."""
    numbers = {name: _number(name) for name in names}
    if None in numbers.values():
        return sorted(numbers)
    return sorted(numbers, key=lambda name: (numbers[name], name))


def _number(name: str) -> float | None:
    """The number that a label is; None if it is none."""
    try:
        number = float(name)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def unseen(used: dict[str, int], names: Sequence[str], split: str, what: str = "labels") -> list[str]:
    """What is wrong with a split that has labels beyond the model's.

    Args:
        used: the first row, from 1, of every label of the split.
    """
    foreign = [f"{name!r} (row {row})" for name, row in used.items() if name not in names]
    if not foreign:
        return []
    return [
        f"{split}: {what} that the model does not know: {some(foreign)}, {COUNTED}. It knows: {some(names)}."
        f"{may_be_left_out(split)}"
    ]


def may_be_left_out(split: str) -> str:
    """What to do where a file to predict holds something in the place of labels that are not known yet."""
    if not split.startswith("test"):
        return ""
    return " If these rows have no labels yet, leave the column out, or its fields empty."


def require_finite(answers: np.ndarray) -> None:
    """
    Raises:
        RunError: if some answers of a model are no numbers.
    """
    if not np.isfinite(answers).all():
        raise RunError("The model answers with what is no number (nan): its weights are spoilt.")


def _other_head(theirs: str, ours: str) -> str:
    return (
        f"The model knows {theirs}, but the rows have {ours}. Give --ignore_mismatched_sizes to replace its "
        "head by a new one."
    )
