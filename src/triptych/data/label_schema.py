"""What the labels of a dataset are, which number the model knows each by, and predictions in their words."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from triptych import data
from triptych.batching.padding import UNCOUNTED
from triptych.errors import InputError

logger = logging.getLogger(__name__)

SINGLE = "single_label_classification"
MULTI = "multi_label_classification"
REGRESSION = "regression"
MOST = 10  # labels or rows that a message lists
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
    """

    column: str | None
    problem_type: str
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    delimiter: str | None = None

    @property
    def loss_unit(self) -> str:
        """What the loss is measured in."""
        units = {SINGLE: "nats per row", MULTI: "nats per row and label", REGRESSION: "squared error per row"}
        return units[self.problem_type]

    def encode(self, values: Sequence[Any]) -> list[Any]:
        """The targets of rows: the label's number; for several labels a list of 0.0 and 1.0; or the value."""
        if self.problem_type == REGRESSION:
            # A true value of -100 is moved by less than float32 can tell, so that it counts.
            return [value if value != UNCOUNTED else -100.00001 for value in map(float, values)]
        ids = {name: number for number, name in enumerate(self.names)}
        if self.problem_type == SINGLE:
            return [ids[self.name(value)] for value in values]
        rows = [{ids[name] for name in self.split(value)} for value in values]
        return [[float(number in row) for number in range(len(ids))] for row in rows]

    def name(self, value: Any) -> str:
        """A label as text; the number of a class as that class's name."""
        if self.classes is not None and isinstance(value, int):
            return self.classes[value] if 0 <= value < len(self.classes) else str(value)
        return str(value)

    def split(self, value: Any) -> list[str]:
        """The labels of a row, which may have none."""
        if isinstance(value, str):
            value = filter(None, map(str.strip, value.split(self.delimiter)))
        return [self.name(one) for one in value]

    def of(self, rows: Any) -> list[Any] | None:
        """The targets of raw rows; None if they have no labels."""
        return self.encode(rows[self.column]) if self.column in rows.column_names else None

    def decide(self, answers: Sequence[Any]) -> np.ndarray:
        """What probabilities or values come to: the number of the likeliest label, int64 (rows,); 1 for each
        label that is likelier than not, int64 (rows, labels); or the value of a regression, float (rows,).

        Args:
            answers: one a row: the probability of each label, or the value.
        """
        found = np.array(answers)
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
    the order it has. Rows to predict whose labels are missing, or all -1, lose the column.

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
    by_split = {
        split: rows.select_columns([column])[column][:]
        for split, rows in raw.items()
        if column in data.column_names(rows) and not data.is_stream(rows)
    }
    for split in [split for split in by_split if split.startswith("test")]:
        if lacking := _lacking(by_split[split], raw[split].features[column]):
            logger.info("%s: %s, so these rows are predicted and not scored.", split, lacking)
            raw[split] = raw[split].remove_columns(column)
            del by_split[split]
    labels = _kind(known, raw, by_split, column, data_args)
    problems = [
        f"{split}: {problem}" for split, values in by_split.items() for problem in _unreadable(labels, values)
    ]
    if labels.problem_type == REGRESSION and args.label_smoothing_factor:
        problems.append("--label_smoothing_factor: a regression has no labels to smooth.")
    if problems:
        raise InputError(problems)

    if labels.problem_type != REGRESSION:
        labels = _named(labels, known, config, raw, by_split, data_args)
        for split, values in by_split.items():
            if split != "train":
                problems += _unseen(labels, split, values)
        if problems:
            raise InputError(problems)
    elif known is not None and known.problem_type != REGRESSION and not data_args.ignore_mismatched_sizes:
        raise InputError(_other_head(f"labels {_some(known.names)}", "values (a regression)"))
    config.problem_type = labels.problem_type
    names = labels.names or ("LABEL_0",)  # transformers' own name for the output of a regression
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    what = f"{len(labels.names)} labels: {_some(labels.names)}" if labels.names else "one value a row"
    logger.info("Problem type %s, %s", labels.problem_type, what)
    return labels


def _of_model(config: Any) -> Labels | None:
    """What the head of a checkpoint knows; None if it has none. Names of the form LABEL_0 are none."""
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        return None
    names = tuple(config.id2label[number] for number in sorted(config.id2label))
    kind = config.problem_type or (REGRESSION if len(names) == 1 else SINGLE)
    if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        names = tuple(map(str, range(len(names))))
    return Labels(None, kind, () if kind == REGRESSION else names)


def _lacking(values: list[Any], feature: Any) -> str | None:
    """Why rows to predict count as unlabelled."""
    lacking = (value is None or not str(value).strip() for value in values)
    empty = [number for number, is_empty in enumerate(lacking, 1) if is_empty]
    if hasattr(feature, "names"):
        empty += [number for number, value in enumerate(values, 1) if value == -1]
    if empty:
        return f"the label is missing in {len(empty)} of {len(values)} rows (row {_some(empty)})"
    return "all labels are -1" if set(values if _hashable(values) else ()) in ({-1}, {"-1"}) else None


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
    features: dict = next((rows.features for rows in raw.values() if column in (rows.features or ())), {})
    inner = getattr(features.get(column), "feature", features.get(column))
    classes = tuple(inner.names) if inner is not None and hasattr(inner, "names") else None
    first = next((value for values in by_split.values() for value in values if value is not None), None)
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
    return Labels(column, kind, (), None if kind == REGRESSION else classes, data_args.label_delimiter)


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

    wanted = {
        REGRESSION: "a number",
        MULTI: "a list of labels, or labels in a string with --label_delimiter",
        SINGLE: "one label",
    }[labels.problem_type]
    wrong = [(number, value) for number, value in enumerate(values, 1) if is_wrong(value)]
    if not wrong:
        return []
    shown = _some([f"{value!r} in row {number}" for number, value in wrong])
    return [f"{len(wrong)} of {len(values)} labels are not {wanted}: {shown}, {COUNTED}."]


def _used(labels: Labels, values: Iterable[Any]) -> dict[str, int]:
    """The first row, from 1, of every label."""
    first: dict[str, int] = {}
    for number, value in enumerate(values, 1):
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
        found = list(labels.classes or _ordered(_used(labels, by_split["train"])))
    elif "train" in raw and labels.classes:
        found = list(labels.classes)
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
    if known.problem_type == labels.problem_type:
        if set(found) <= set(known.names):
            if list(known.names) != found:
                logger.info("The labels keep the order that the model has.")
            return with_names(known.names)
        unnamed = list(known.names) == list(map(str, range(len(known.names))))
        if unnamed and len(found) == len(known.names):
            logger.warning("The model's labels have no names; they get these, in order: %s.", _some(found))
            return with_names(found)
    if not data_args.ignore_mismatched_sizes:
        theirs = f"labels {_some(known.names)}" if known.names else "values (a regression)"
        foreign = [name for name in found if name not in known.names]
        raise InputError(_other_head(theirs, f"labels {_some(foreign)}"))
    if len(found) == len(known.names):
        logger.warning("The head keeps its weights, and learns other labels: %s.", _some(found))
    return with_names(found)


def _ordered(names: Iterable[str]) -> list[str]:
    """By number if all are whole numbers, else by letters."""
    names = list(names)
    numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if numbers else sorted(names)


def _unseen(labels: Labels, split: str, values: list[Any]) -> list[str]:
    unseen = {name: row for name, row in _used(labels, values).items() if name not in labels.names}
    if not unseen:
        return []
    shown = _some([f"{name!r} (row {row})" for name, row in unseen.items()])
    return [
        f"{split}: labels that the model does not know: {shown}, {COUNTED}. It knows: {_some(labels.names)}."
    ]


def _other_head(theirs: str, ours: str) -> str:
    return (
        f"The model knows {theirs}, but the rows have {ours}. Give --ignore_mismatched_sizes to replace its "
        "head by a new one."
    )


def _some(items: Iterable[Any]) -> str:
    items = list(items)
    more = f" and {len(items) - MOST} more" if len(items) > MOST else ""
    return ", ".join(map(str, items[:MOST])) + more
