"""Where rows come from: own files, converted once to Arrow, or datasets of the hub and of folders."""

import copy
import functools
import glob
import hashlib
import itertools
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from triptych.data import pictures
from triptych.data.readers import (
    LINES,
    MOST_PROBLEMS,
    Rows,
    file_format,
    find_files,
    misaligned,
    opened_parquet,
    peek,
    read_rows,
)
from triptych.errors import InputError

logger = logging.getLogger(__name__)

PHASES = {"do_train": "train", "do_eval": "validation", "do_predict": "test"}  # by flag, the split it needs
PURPOSE = {"train": "training", "validation": "evaluation", "test": "prediction"}
SPELLINGS = {
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test", "test_matched"),
}
# MNLI's second sets, from sources other than those of its training rows
SECOND = {"validation_matched": "validation_mismatched", "test_matched": "test_mismatched"}
ARROW_NAMES = {"string": "text", "int64": "numbers", "double": "numbers", "bool": "true or false"}
CHUNK = 1000  # rows that are converted or tokenized at a time
Columns = Callable[[list[str], str], list[str]]
AS_IT_IS = "as it is"  # the format of Parquet whose values are copied, not looked at
LAYOUT = 1  # of the cached Arrow files; a new number makes the old ones unused


def load_splits(
    data_args: Any,
    *,
    train: bool,
    validation: bool,
    test: bool,
    columns: Columns | None = None,
    if_there: bool = False,
) -> dict[str, Any]:
    """The raw rows of the splits that are needed, as a dictionary with the keys train, validation and test;
    of a dataset with two sets to evaluate and to predict also validation_mm and test_mm.

    Own files are converted once to an Arrow file on disk, from which rows come into memory as they are
    needed. Values from CSV, TSV and text stay strings exactly as they stand in the file, those from JSON and
    Parquet keep their types. The Arrow file is known by the paths, sizes and times of its sources: a changed
    file is read again. With `streaming` the training rows become an `IterableDataset`; rows to evaluate and
    to predict are always a `Dataset`, because their number must be known.

    Args:
        data_args: `DataArguments`: dataset_name, dataset_config_name, train_file, validation_file, test_file,
            streaming, overwrite_cache.
        columns: of the names that there are, and a split, which to keep; the values of other columns are not
            even looked at. By default all are.
        if_there: whether a dataset may lack a split that is needed; one that lacks all gives its test split.

    Raises:
        InputError: with all problems of all splits, at most ten for each of them.
    """
    needed = [split for split, is_needed in zip(PURPOSE, (train, validation, test), strict=True) if is_needed]
    if data_args.dataset_name:
        return _from_name(data_args, needed, columns, if_there)
    problems = []
    found: dict[str, Any] = {}
    for split in needed:
        files = data_args.source(split)
        if not files:
            problems.append(f"There are no rows for {PURPOSE[split]}: give --{split}_file.")
            continue
        try:
            if os.path.isdir(files) and data_args.media_roles:
                found[split] = pictures.from_folder(files, split)
            elif aligned := data_args.aligned_files(split):
                found[split] = _from_aligned(aligned, split, data_args)
            else:
                format = getattr(data_args, "format", None)
                found[split] = _from_files(files, split, columns, data_args, format)
        except InputError as error:
            problems += [f"--{data_args.source_flag(split)}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    return found


def _from_aligned(files: Mapping[str, str], split: str, data_args: Any) -> Any:
    """Rows of files whose lines belong together, those of each a column."""
    import datasets

    if problems := misaligned(files):
        raise InputError(problems)
    sides = {name: _from_files(value, split, None, data_args, LINES) for name, value in files.items()}
    rows = [side.rename_column("text", name) for name, side in sides.items()]
    joined = datasets.concatenate_datasets(rows, axis=1)
    if is_stream(joined):
        joined.info.download_checksums = {
            f"{name}: {file}": size
            for name, side in sides.items()
            for file, size in side.info.download_checksums.items()
        }
    return joined


def _from_files(files: str, split: str, choose: Columns | None, data_args: Any, format: str | None) -> Any:
    import datasets

    names, problems = peek(files, format=format)
    columns = choose(names, split) if choose and not problems else None
    lacking = [name for name in columns or () if name not in names]
    if lacking:
        problems.append(f"{files} has no column {', '.join(lacking)}; there are: {', '.join(names)}.")
    if problems:
        raise InputError(problems)
    paths, has_media = find_files(files, format)[0], bool(data_args.media_roles)
    if has_media and not (data_args.streaming and split == "train"):
        return _with_folders(paths, split, columns, data_args)
    if not (data_args.streaming and split == "train"):
        path = _arrow_file(paths, columns, format, data_args.overwrite_cache)
        try:
            return datasets.Dataset.from_file(path, split=split)
        except ValueError as error:  # a null character in a JSON key, for example
            raise InputError(f"{files}: {' '.join(str(error).split())}") from error
    source = {"paths": paths, "columns": tuple(columns or names), "format": format, "folders": has_media}
    rows = datasets.IterableDataset.from_generator(_stream, gen_kwargs=source, split=split)
    rows.info.download_checksums = {
        os.path.basename(path): {"num_bytes": os.path.getsize(path)} for path in paths
    }
    return rows


def _with_folders(paths: list[str], split: str, columns: list[str] | None, data_args: Any) -> Any:
    """Rows with the folder of their file, to which paths of pictures are relative."""
    import datasets

    parts = []
    for path in paths:
        as_it_is = file_format(path) == "parquet"
        cached = _arrow_file([path], columns, AS_IT_IS if as_it_is else None, data_args.overwrite_cache)
        part = undecoded(datasets.Dataset.from_file(cached, split=split))
        parts.append(part.add_column(pictures.FOLDER, [os.path.dirname(os.path.abspath(path))] * len(part)))
    try:
        return datasets.concatenate_datasets(parts)
    except ValueError as error:
        raise InputError(f"{', '.join(paths)}: their columns differ: {error}") from error


def undecoded(rows: Any) -> Any:
    """Rows whose pictures stay what they are in their source: `datasets` would decode them whenever a row is
    looked at."""
    for name, feature in (rows.features or {}).items():
        if getattr(feature, "decode", False):
            feature = copy.copy(feature)
            feature.decode = False
            rows = rows.cast_column(name, feature)
    return rows


def _stream(
    paths: list[str], columns: Iterable[str], format: str | None, folders: bool = False
) -> Iterator[dict[str, Any]]:
    problems: list[str] = []
    for path in paths:
        own = {pictures.FOLDER: os.path.dirname(os.path.abspath(path))} if folders else {}
        for _, row in read_rows(path, problems, columns, format):
            if problems:
                break
            yield row | own
    if problems:
        raise InputError(problems)


def _arrow_file(paths: list[str], columns: list[str] | None, format: str | None, overwrite: bool) -> str:
    """The path of the Arrow file that holds the rows of `paths`; it appears whole or not at all."""
    import datasets
    import pyarrow

    folder = os.path.join(datasets.config.HF_DATASETS_CACHE, "triptych")
    key = _source_key(paths, columns, format)
    target = os.path.join(folder, f"{key}.arrow")
    if os.path.exists(target) and not overwrite:
        return target
    problems: list[str] = []
    schema = None if format == AS_IT_IS else _schema(paths, columns, format, problems)
    if problems:
        raise InputError(problems)
    partial = f"{target}.{uuid.uuid4().hex}"
    rows = itertools.chain.from_iterable(read_rows(path, problems, columns, format) for path in paths)
    bar = datasets.utils.tqdm(rows, desc=f"Reading {os.path.basename(paths[0])}", unit=" rows", delay=1)
    where = paths[0]
    try:
        os.makedirs(folder, exist_ok=True)
        if schema is None:
            _copy_parquet(paths[0], partial, columns)
        else:
            with pyarrow.OSFile(partial, "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
                for chunk in _chunks(bar):
                    where = f"{chunk[0][0]} and the {len(chunk) - 1} rows behind it"
                    if not problems:
                        writer.write_batch(pyarrow.RecordBatch.from_pylist([row for _, row in chunk], schema))
        if not problems and _source_key(paths, columns, format) != key:
            problems.append(f"{', '.join(paths)}: changed while being read; run again.")
        if problems:
            raise InputError(problems)
        # Cached results of `map` go by this time, so it is the same whoever writes the file.
        os.utime(partial, (newest := max(map(os.path.getmtime, paths)), newest))
        os.replace(partial, target)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{where}: {error}") from error
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror or error}; let HF_HOME name a folder with room."
        ) from error
    finally:
        bar.close()
        if os.path.exists(partial):
            os.remove(partial)
    return target


def _copy_parquet(path: str, target: str, columns: list[str] | None) -> None:
    """Writes a Parquet file's rows as Arrow, without a Python object for each value: pictures are large."""
    import pyarrow
    import pyarrow.parquet

    with opened_parquet(path) as file:
        schema = file.schema_arrow
        if columns is not None:
            schema = pyarrow.schema([schema.field(name) for name in columns], schema.metadata)
        with pyarrow.OSFile(target, "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            for batch in file.iter_batches(100, columns=columns):
                batch.validate(full=True)
                writer.write_batch(batch.select(schema.names).cast(schema))


def _source_key(paths: list[str], columns: list[str] | None, format: str | None) -> str:
    states = [(os.path.abspath(path), os.stat(path)) for path in paths]
    sources = [(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in states]
    return hashlib.sha256(json.dumps([LAYOUT, format, columns, sources]).encode()).hexdigest()[:32]


def _chunks(rows: Rows) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    while chunk := list(itertools.islice(rows, CHUNK)):
        yield chunk


def _schema(paths: list[str], columns: list[str] | None, format: str | None, problems: list[str]) -> Any:
    """The Arrow schema of all rows; JSON and Parquet are read through for it, the rest is of strings, or of
    lists of them, anyhow."""
    import pyarrow

    schema = pyarrow.schema([])
    for path in paths:
        rows = read_rows(path, problems, columns, format)
        typed = file_format(path, format) in ("json", "jsonl", "parquet")
        for chunk in _chunks(rows if typed else itertools.islice(rows, 1)):
            schema = _widen(schema, chunk, problems)
    return schema


def _widen(schema: Any, chunk: list[tuple[str, dict[str, Any]]], problems: list[str]) -> Any:
    """`schema` with the types that `chunk` needs as well; rows that contradict those before are problems."""
    import pyarrow

    def with_values(name: str, values: list[Any]) -> Any:
        own = pyarrow.schema([(name, pyarrow.array(values).type)])
        return pyarrow.unify_schemas([schema, own], promote_options="permissive")

    misfit = (pyarrow.ArrowException, ValueError, OverflowError)
    for name in dict.fromkeys(itertools.chain.from_iterable(row for _, row in chunk)):
        try:
            schema = with_values(name, [row.get(name) for _, row in chunk])
        except misfit:  # so look for the rows
            for where, row in chunk:
                try:
                    schema = with_values(name, [row.get(name)])
                except misfit as error:
                    reason = str(error)
                    if isinstance(error, pyarrow.ArrowTypeError) and name in schema.names:
                        kind = str(schema.field(name).type)
                        reason = f"the rows before it hold {ARROW_NAMES.get(kind, kind)}"
                    value = json.dumps(row[name], default=str)[:60]
                    problems.append(f"{where}: column {name!r} holds {value}, but {reason}.")
                if len(problems) >= MOST_PROBLEMS:
                    return schema
    return schema


def _from_name(data_args: Any, needed: list[str], choose: Columns | None, if_there: bool) -> dict[str, Any]:
    import datasets

    name: str = os.path.expanduser(data_args.dataset_name)
    saved = any(os.path.exists(os.path.join(name, file)) for file in ("dataset_dict.json", "state.json"))
    mode = "reuse_cache_if_exists" if data_args.overwrite_cache else None
    removed = {each.strip() for each in (data_args.remove_splits or "").split(",")}
    picked: dict[str, Any] = {}
    problems = []

    @functools.cache
    def splits_of(config: str | None) -> dict[str, Any]:
        if saved:
            found = datasets.load_from_disk(name)
        else:
            _check_reachable(name)
            found = datasets.load_dataset(name, config, streaming=data_args.streaming, download_mode=mode)
        if not isinstance(found, Mapping):  # saved without splits
            found = {str(found.split or "train"): found}
        return {str(split): rows for split, rows in found.items() if split not in removed}

    def source_of(split: str) -> str | None:
        asked = getattr(data_args, f"{split}_split_name")
        spellings = [asked] if asked else SPELLINGS.get(split, [split])
        return next((each for each in spellings if each in splits_of(data_args.config_of(split))), None)

    try:
        if if_there:
            needed = [split for split in needed if source_of(split)] or ["test"]
        for split in needed:
            found, spelling = splits_of(data_args.config_of(split)), source_of(split)
            if spelling is None:
                problems.append(f"--dataset_name {name} {_lacks(split, list(found), data_args)}")
                continue
            if spelling != split:
                logger.warning("Taking the split %r of %s for %s.", spelling, name, PURPOSE[split])
            sources = {split: spelling}
            if SECOND.get(spelling) in found:
                sources[f"{split}_mm"] = SECOND[spelling]
            for key, source in sources.items():
                rows = found[source]
                rows = undecoded(rows)
                if choose is not None:
                    rows = rows.select_columns(choose(list(rows.column_names or next(iter(rows), {})), key))
                if data_args.streaming and split == "train":
                    rows = rows if is_stream(rows) else rows.to_iterable_dataset()
                elif is_stream(rows):
                    rows = datasets.Dataset.from_list(list(rows), features=rows.features, split=split)
                picked[key] = rows
    except InputError:
        raise
    except ConnectionError as error:
        raise InputError(_unreachable(name)) from error
    except Exception as error:  # whatever it is, it is about the source that was named
        cause = error.__cause__ or error
        raise InputError(
            f"--dataset_name {name}: {type(cause).__name__}: {' '.join(str(cause).split())}"
        ) from error
    if problems:
        raise InputError(problems)
    return picked


def _lacks(split: str, present: list[str], data_args: Any) -> str:
    """What to say of a dataset that lacks a split, with the test split in its place where that has labels."""
    asked = getattr(data_args, f"{split}_split_name")
    said = f"has no split {asked or split} for {PURPOSE[split]}; there are: {', '.join(present) or 'none'}"
    test = next((each for each in SPELLINGS["test"] if each in present), None)
    if split == "validation" and not asked and test:
        said += f". To evaluate on its test rows, give --validation_split_name {test}"
    return f"{said}."


def _check_reachable(name: str) -> None:
    """Says at once what `load_dataset` would find out after 23 seconds of retries, or not say clearly."""
    import socket
    import urllib.parse
    import urllib.request

    import datasets
    import huggingface_hub

    if os.path.isfile(name):
        raise InputError(
            f"--dataset_name {name} is a file: give --train_file, --validation_file, --test_file."
        )
    if not os.path.isdir(name) and (name.startswith((".", "/")) or name.count("/") > 1):
        raise InputError(f"--dataset_name {name}: there is no such folder.")
    cached = os.path.join(
        datasets.config.HF_DATASETS_CACHE, f"*{name.rstrip('/').rsplit('/', 1)[-1].lower()}*"
    )
    by_proxy = urllib.request.getproxies()  # which looks names up itself
    if os.path.isdir(name) or by_proxy or datasets.config.HF_HUB_OFFLINE or glob.glob(cached):
        return
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError as error:
        raise InputError(_unreachable(name)) from error


def _unreachable(name: str) -> str:
    return (
        f"--dataset_name {name}: the hub cannot be reached, and the cache does not hold it. Either give "
        "local files (--train_file, --validation_file, --test_file), or download it once while online and "
        "then set HF_HOME to that cache and HF_HUB_OFFLINE=1."
    )


def is_stream(dataset: Any) -> bool:
    """Whether rows come one by one (`datasets.IterableDataset`), so that their number is unknown."""
    return not hasattr(dataset, "__len__")
