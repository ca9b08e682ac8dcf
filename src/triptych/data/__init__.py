"""From rows to what a script's `preprocess` makes of them: columns by role, limits, empty rows."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from triptych.data import pictures
from triptych.data.columns import name_of_joined
from triptych.data.sources import CHUNK, PHASES, PURPOSE, is_stream, load_splits
from triptych.errors import InputError

__all__ = [
    "PHASES",
    "by_source",
    "column_names",
    "count",
    "features",
    "fingerprint",
    "is_stream",
    "join_texts",
    "lengths",
    "load",
    "parts",
    "sequences",
]

logger = logging.getLogger(__name__)

# Columns that `load` adds to the rows to predict
NUMBER = "row number in the source"
TOTAL = "number of rows in the source"
# The column of features that says which raw row each is of, where `preprocess` makes more of a row, or fewer;
# or, where it makes one of several, the rows that its pieces are of
ROW = "row"


def column_names(dataset: Any) -> list[str]:
    """The names of the columns; of a stream without them, the names in its first row."""
    return list(dataset.column_names or next(iter(dataset), {}))


def count(dataset: Any) -> int | None:
    """The number of rows: 0 without a dataset, None for a stream."""
    return 0 if dataset is None else None if is_stream(dataset) else len(dataset)


def limit(dataset: Any, rows: int | None) -> Any:
    """The first `rows` rows, or all of them if there are fewer or `rows` is None."""
    if rows is None:
        return dataset
    return dataset.take(rows) if is_stream(dataset) else dataset.select(range(min(rows, len(dataset))))


def drop_empty(
    dataset: Any, columns: Iterable[str], split: str, values: Iterable[str] = (), lists: Iterable[str] = ()
) -> Any:
    """The rows in which all `columns` hold text; how many others are dropped, and which, the log says.

    Null, the empty string and white space are not text. In a stream they are dropped as they come, uncounted.

    Args:
        values: which of the columns may hold other values than text, such as numbers or lists.
        lists: which hold lists of texts, of which one at least must be more than white space.

    Raises:
        InputError: if a column is not of strings, or no row is left.
    """
    columns, values, lists = list(columns), set(values), set(lists)
    if is_stream(dataset):
        logger.info("%s: rows with an empty %s are dropped as they come.", split, " or ".join(columns))
        return dataset.filter(_is_full, fn_kwargs={"columns": columns, "values": values, "lists": lists})
    import pyarrow.compute

    kinds = {name: getattr(dataset.features[name], "dtype", "lists") for name in columns}
    text = ("string", "large_string", "null")
    wrong = {name: kind for name, kind in kinds.items() if kind not in text and name not in values | lists}
    if wrong:
        raise InputError(
            [f"{split}: column {name!r} must hold text, not {kind}." for name, kind in wrong.items()]
        )
    full: list[bool] = []
    for table in dataset.select_columns(columns).with_format("arrow").iter(10_000):
        every = pyarrow.repeat(True, len(table))
        for name, column in zip(table.column_names, table.columns, strict=True):
            if kinds[name] in text:
                trimmed = pyarrow.compute.utf8_trim_whitespace(column.cast("string"))
                is_full = pyarrow.compute.greater(pyarrow.compute.utf8_length(trimmed), 0)
            elif name in lists:
                is_full = pyarrow.array([_holds_text(value) for value in column.to_pylist()])
            else:
                is_full = pyarrow.compute.is_valid(column)
            every = pyarrow.compute.and_(every, pyarrow.compute.fill_null(is_full, False))
        full += every.to_pylist()
    empty = [number for number, is_full in enumerate(full, 1) if not is_full]
    if len(empty) == len(full):
        raise InputError(f"{split}: not one of {len(full)} rows has text in {' and '.join(columns)}.")
    if not empty:
        return dataset
    first = ", ".join(map(str, empty[:5])) + (", …" if len(empty) > 5 else "")
    names = " or ".join(columns)
    logger.warning(
        "%s: %d of %d rows dropped, %s being empty: row %s.", split, len(empty), len(full), names, first
    )
    return dataset.select([index for index, is_full in enumerate(full) if is_full])


def _holds_text(values: list[str | None] | None) -> bool:
    return any(value is not None and value.strip() for value in values or ())


def _is_full(row: dict[str, Any], columns: list[str], values: set[str], lists: set[str]) -> bool:
    texts = [name for name in columns if name not in lists]
    wrong = [name for name in texts if not isinstance(row[name], str | None) and name not in values]
    if wrong:
        raise InputError(
            [f"column {name!r} must hold text, not {json.dumps(row[name])[:60]}." for name in wrong]
        )
    full = all(str(row[name] if row[name] is not None else "").strip() for name in texts)
    return full and all(_holds_text(row[name]) for name in lists)


def features(
    raw: dict[str, Any],
    preprocess: Callable[[dict[str, list]], dict[str, list]],
    names: dict[str, str],
    data_args: Any,
) -> dict[str, Any]:
    """What a script's `preprocess` makes of the rows of each split, in chunks and in order.

    Chunks differ with the number of workers, so that what becomes of a row must not depend on the others of
    its chunk.

    Args:
        raw, names: as `load` gives them; of the columns named, those that are there are read.
        preprocess: from lists by raw column to lists by new column, for example `input_ids` and `labels`;
            only these remain. If it makes more of some rows, or fewer, its column `ROW` says which of the
            rows that it was given each is of; that becomes the row's number in the split.
        data_args: `DataArguments`: preprocessing_num_workers, overwrite_cache.
    """
    media = next((names[role] for role in data_args.media_roles), None)
    columns = [name for name in names.values() if name != media]
    return {split: _features(rows, preprocess, columns, data_args, media) for split, rows in raw.items()}


def _features(
    dataset: Any, preprocess: Callable, columns: Iterable[str], data_args: Any, media: str | None = None
) -> Any:
    columns = [name for name in columns if name in column_names(dataset)]
    if media is not None and not is_stream(dataset):
        made = _features(dataset, preprocess, columns, data_args) if columns else None
        return pictures.Beside(dataset, media, made)
    beside = (
        [] if media is None else [name for name in (media, pictures.FOLDER) if name in column_names(dataset)]
    )
    raw = dataset.select_columns([*columns, *beside])
    mapping = dict(batched=True, batch_size=CHUNK, remove_columns=columns, with_indices=True)
    to_features = partial(_numbered_features, preprocess=preprocess)
    if is_stream(dataset):
        made = raw.map(to_features, **mapping)
        return made if media is None else made.rename_column(media, pictures.PICTURE)
    return raw.map(
        to_features,
        **mapping,
        num_proc=data_args.preprocessing_num_workers,
        load_from_cache_file=not data_args.overwrite_cache,
        desc=f"Preparing {dataset.split or 'rows'}",
    )


def _numbered_features(rows: dict[str, list], numbers: list[int], preprocess: Callable) -> dict[str, list]:
    made = preprocess(rows)
    return made | {ROW: [numbers[place] for place in made[ROW]]} if ROW in made else made


def fingerprint(dataset: Any) -> str:
    """A SHA-256 of names and values, the same wherever the rows come from and in every process.

    Of a stream, whose values are not known beforehand, it is one of the names and sizes of its files, or
    (from the hub) of its name, configuration and version.
    """
    digest = hashlib.sha256()
    if is_stream(dataset):
        info = dataset.info
        sizes = {name: entry["num_bytes"] for name, entry in (info.download_checksums or {}).items()}
        source = [
            info.dataset_name,
            info.config_name,
            str(info.version),
            str(dataset.split),
            sorted(sizes.items()),
        ]
        digest.update(json.dumps(source).encode())
        return digest.hexdigest()
    # Where pictures lie is nothing that decides a result.
    names = sorted(name for name in dataset.column_names if name != pictures.FOLDER)
    digest.update(json.dumps([names, len(dataset)]).encode())
    has_bytes = any("binary" in str(field.type) for field in dataset.data.schema)
    for table in dataset.with_format("arrow").iter(100 if has_bytes else CHUNK):
        for name in names:
            if "binary" in str(table.column(name).type):
                pictures.add_to(digest, table.column(name))
                continue
            values = table.column(name).to_pylist()
            if all(isinstance(value, str | None) for value in values):
                digest.update(
                    json.dumps([value if value is None else len(value) for value in values]).encode()
                )
                digest.update("".join(filter(None, values)).encode())
            else:
                digest.update(json.dumps(values, default=str).encode())
    return digest.hexdigest()


def load(data_args: Any, args: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The raw rows that a run needs, and which column plays which role.

    Training rows are shuffled if that is asked for, rows are limited by `--max_*_samples`, the task makes of
    them what it needs (`DataArguments.prepare`), and those with an empty column are left out. Rows to predict
    may lack the columns that are to be predicted, and values in them; they get the columns `NUMBER`, from 1,
    and `TOTAL`. Columns that play no role are not even looked at.

    Returns:
        Datasets by split (see `load_splits`), and column names by role.

    Raises:
        InputError: with all problems of all splits.
    """
    taken: dict[str, str] = {}

    def used(available: list[str], split: str) -> list[str]:
        taken.update(data_args.resolve_columns(available, split, tell=False, before=taken))
        kept = {*taken.values(), *data_args.joined_columns(), *data_args.kept_columns}
        return [name for name in available if name in kept]

    held_out = data_args.holds_out() and args.do_eval
    needed = {"train": args.do_train or held_out, "validation": args.do_eval and not held_out}
    unasked = "do_train" in args.chosen
    if_there = unasked and args.eval_strategy == "no"
    raw = load_splits(data_args, **needed, test=args.do_predict, columns=used, if_there=if_there)
    if held_out:
        found = data_args.resolve_columns(column_names(raw["train"]), "train", tell=False)
        raw |= data_args.hold_out(raw["train"], found, args.seed)
        raw = {split: raw[split] for split in raw if split != "train" or args.do_train}
    if unasked:
        _settle_phases(args, raw)
    limits = {
        "train": data_args.max_train_samples,
        "validation": data_args.max_eval_samples,
        "test": data_args.max_predict_samples,
    }
    in_source: dict[str, str] = {}
    names: dict[str, str] = {}
    problems = []
    for split, rows in raw.items():
        most = limits[split.removesuffix("_mm")]
        try:
            given = column_names(rows)
            found = data_args.resolve_columns(given, split, tell=not in_source, before=in_source)
            in_source |= found
            if split == "train" and data_args.shuffle_train_dataset:
                # Prepared in their order in the source, by which messages number them
                rows, found = data_args.prepare(rows, found, split)
                rows = limit(rows.shuffle(seed=data_args.shuffle_seed), most)
            else:
                rows, found = data_args.prepare(limit(rows, most), found, split)
            values = {found[role] for role in data_args.value_roles if role in found}
            lists = {found[role] for role in data_args.list_roles if role in found}
            columns = list(found.values())
            if split.startswith("test"):
                rows = rows.add_column(NUMBER, list(range(1, len(rows) + 1)))
                rows = rows.add_column(TOTAL, [len(rows)] * len(rows))
                columns = [name for name in columns if name not in values]
            media = {found[role] for role in data_args.media_roles}
            raw[split] = drop_empty(rows, columns, split, values | media, lists)
        except InputError as error:
            problems += error.problems
            continue
        problems += [
            f"The {role} is in the column {name!r} of the {split} rows, but in {names[role]!r} of those "
            "before; give all files the same names."
            for role, name in found.items()
            if names.get(role, name) != name
        ]
        names |= found
    if problems:
        raise InputError(problems)
    return raw, names


def join_texts(rows: Any, names: list[str], delimiter: str | None) -> Any:
    """The rows with a further column, the texts of several; those that are empty are left out of it."""
    between, target = " " if delimiter is None else delimiter, name_of_joined(names)

    def join(columns: dict[str, list]) -> dict[str, list]:
        texts = zip(*(columns[name] for name in names), strict=True)
        full = ([str(text) for text in row if text is not None and str(text).strip()] for row in texts)
        return {target: [between.join(parts) for parts in full]}

    return rows.map(join, batched=True, batch_size=CHUNK)


def _settle_phases(args: Any, raw: dict[str, Any]) -> None:
    """Sets the flags of the phases, of which none is given, to what there are rows for, and says so."""
    doing = []
    for phase, split in PHASES.items():
        setattr(args, phase, split in raw)
        doing += [PURPOSE[split]] if split in raw else []
    logger.info(
        "None of --do_train, --do_eval, --do_predict is given: doing what there are rows for, %s.",
        " and ".join(doing),
    )


def by_source(answers: Iterable[str], rows: Any) -> list[str]:
    """Answers to rows that were predicted, one for each row of their source: empty for those left out.

    Args:
        rows: the raw rows, as `load` gives them.
    """
    found = dict(zip(rows[NUMBER], answers, strict=True))
    return [found.get(number, "") for number in range(1, rows[TOTAL][0] + 1)]


def parts(raw: dict[str, Any], split: str, prefix: str) -> list[tuple[str, str]]:
    """A split's sets, each with a prefix for its metrics: most datasets have one, MNLI has two to evaluate
    and two to predict, the second with `<prefix>_mm`."""
    both = [(split, prefix), (f"{split}_mm", f"{prefix}_mm")]
    return [(name, of_metrics) for name, of_metrics in both if name in raw]


def lengths(features: Any) -> Any:
    """Tokens of each row, of a row of several sequences (choices) those of its longest, int64 array (rows,),
    without reading the tokens themselves; None for rows that have no `input_ids`, and so no length."""
    import numpy as np
    import pyarrow.compute

    if "input_ids" not in features.column_names:
        return None
    counts = []
    for ids in _token_ids(features):
        if pyarrow.types.is_nested(ids.type.value_type):
            of_each = pyarrow.compute.list_value_length(ids.flatten()).to_numpy()
            starts = np.cumsum([0, *pyarrow.compute.list_value_length(ids).to_numpy()[:-1]])
            counts.append(np.maximum.reduceat(of_each, starts))
        else:
            counts.append(pyarrow.compute.list_value_length(ids).to_numpy())
    return np.concatenate(counts).astype(np.int64)


def sequences(features: Any) -> int:
    """How many sequences of tokens (choices) a row has at most; 1 where rows are sequences."""
    import pyarrow.compute

    most = 1
    for ids in _token_ids(features):
        if pyarrow.types.is_nested(ids.type.value_type):
            most = max(most, pyarrow.compute.max(pyarrow.compute.list_value_length(ids)).as_py())
    return most


def _token_ids(features: Any) -> Any:
    if "input_ids" in features.column_names:
        for chunk in features.select_columns(["input_ids"]).with_format("arrow").iter(10_000):
            yield chunk["input_ids"].combine_chunks()
