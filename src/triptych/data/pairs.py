"""Sources with their targets and languages: from pairs by language, from columns, from aligned files."""

import itertools
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from triptych.data import language_codes, readers
from triptych.data.conversions import PROBLEMS, convert
from triptych.data.sources import is_stream
from triptych.errors import InputError

SIDES = ("source", "target")
# Roles of the columns that name each row's own languages, by the side
LANGUAGES = {"source": "source language", "target": "target language"}
PAIRS = "translation"  # role, and name, of a column of pairs: {"en": ..., "de": ...}

Tokenize = Callable[[dict[str, list], str | None, str | None], dict[str, list]]


def prepare(rows: Any, columns: dict[str, str], split: str, data_args: Any) -> tuple[Any, dict[str, str]]:
    """The rows with the columns `source` and, if there are any, `target`, `source language` and `target
    language`: all strings. Rows to predict may be without targets.

    The texts of a pair are those of the keys that stand for the row's languages, see `language_codes.find`.
    Where a pair lacks the key and holds no other text either, the side is null, as one in a column may be.

    Args:
        rows: as `load_splits` gives them.
        columns: by role: source and perhaps target, or translation; and perhaps the languages.
        data_args: source_lang, target_lang, overwrite_cache.

    Raises:
        InputError: pairs that are no dictionaries of texts, or have no key for a language of the flags. In at
            most ten rows, numbered as in their source: a pair of other languages, equal languages.
    """
    flags = {"source": data_args.source_lang, "target": data_args.target_lang}
    rows = rows.select_columns(list(columns.values()))
    of_rows = {side: columns[role] for side, role in LANGUAGES.items() if role in columns}
    if PAIRS not in columns:
        wanted = [side for side in SIDES if side in columns]
        renamed = {columns[side]: side for side in wanted if columns[side] != side}
        if not of_rows and not (renamed and is_stream(rows)):  # whose columns may not swap names
            return rows.rename_columns(renamed) if renamed else rows, {side: side for side in wanted}
        keys = {}
    else:
        keys = _keys(rows, columns[PAIRS], of_rows, flags, split)
        wanted = [side for side in SIDES if side in keys or side in of_rows]
    roles = {name: name for name in (*wanted, *(LANGUAGES[side] for side in of_rows))}
    import datasets

    make = partial(_of_chunk, columns=columns, keys=keys, flags=flags, wanted=wanted, split=split)
    features = datasets.Features(dict.fromkeys(roles, datasets.Value("string")))
    rows = convert(rows, make, features, f"Reading pairs of {split}", data_args.overwrite_cache)
    if split.startswith("test") and "target" in roles and all(text is None for text in rows["target"]):
        rows = rows.remove_columns(roles.pop("target"))
    return rows, roles


def column_of_pairs(available: list[str]) -> str | None:
    """The column of pairs by language, if one has its name and none that of a source."""
    lowered = {name.strip().lower(): name for name in reversed(available)}
    return None if {"source", "src", "source_text"} & lowered.keys() else lowered.get(PAIRS)


def problems_of_aligned(files: Mapping[str, str], split: str) -> list[str]:
    """What is wrong with the files of a split whose lines belong together, by the side; with the flag."""
    flags = {"source": f"--{split}_file", "target": f"--{split}_target_file"}
    found = []
    for side, name in files.items():
        wrong = readers.peek(name, format=readers.LINES)[1]
        wrong += [
            f"{path} is a table, which holds both sides of a pair; give {flags['source']} alone."
            for path in readers.find_files(name, readers.LINES)[0]
            if readers.file_format(path) not in (None, "txt")
        ]
        found += [f"{flags[side]}: {problem}" for problem in wrong]
    return found or [f"{flags['source']}: {problem}" for problem in readers.misaligned(files)]


def _keys(
    rows: Any, column: str, of_rows: dict[str, str], flags: dict[str, str | None], split: str
) -> dict[str, str]:
    """The keys of the pairs for the languages of the flags, by the side; of rows to predict perhaps only the
    source's."""
    kind = (rows.features or {}).get(column)
    of_kind = getattr(kind, "languages", None) or (list(kind) if isinstance(kind, dict) else None)
    first: Any = {}
    if of_kind is None:
        first = next((row[column] for row in rows if row[column] is not None), {})
    if not isinstance(first, dict):
        raise InputError(f"{split}: {_no_pair(column, first)}")
    there = of_kind or list(first)
    problems, keys, unknown = [], {}, []
    for side in SIDES:
        code = flags[side]
        if side in of_rows:
            continue
        if code is None:
            unknown.append(side)
            continue
        found = language_codes.find(code, there)
        if len(found) == 1:
            keys[side] = found[0]
        elif found or side == "source" or not split.startswith("test") or set(there) - set(keys.values()):
            several = f"several for {code}" if found else f"no {code}"
            problems.append(
                f"--{side}_lang {code}: the pairs in {column!r} have {several}; {_listed(there)}."
            )
    if unknown:
        problems.append(
            f"{split}: the column {column!r} holds pairs by language ({', '.join(there)}): say which is the "
            f"{' and which the '.join(unknown)} with {' and '.join(f'--{side}_lang' for side in unknown)}."
        )
    if len(keys) > 1 and keys["source"] == keys["target"]:
        problems.append(
            f"--source_lang {flags['source']} and --target_lang {flags['target']} are both "
            f"{keys['source']!r} in the pairs; {_listed(there)}."
        )
    if problems:
        raise InputError(problems)
    return keys


def _listed(names: list[str]) -> str:
    return f"there are: {', '.join(names) or 'none'}"


def _no_pair(column: str, value: Any) -> str:
    return (
        f"the column {column!r} holds {json.dumps(value, ensure_ascii=False, default=str)[:60]}, not texts "
        "by language; --source_column and --target_column name columns of texts."
    )


def _of_chunk(
    chunk: dict[str, list],
    numbers: list[int],
    columns: dict[str, str],
    keys: dict[str, str],
    flags: dict[str, str | None],
    wanted: list[str],
    split: str,
) -> dict[str, list]:
    """The new columns of a chunk, and what is wrong; see `prepare`."""
    of_rows = {side: chunk[columns[role]] for side, role in LANGUAGES.items() if role in columns}
    names = [*wanted, *(LANGUAGES[side] for side in of_rows)]
    made: dict[str, list] = {name: [] for name in (*names, PROBLEMS)}
    for place, number in enumerate(numbers):
        where = f"{split}, row {number + 1}"
        problems: list[str] = []
        codes = {side: values[place] for side, values in of_rows.items()}
        if wrong := [code for code in codes.values() if code is not None and not isinstance(code, str)]:
            raise InputError(
                f"{where}: a language's code was expected, not {json.dumps(wrong[0], default=str)}."
            )
        both = [codes.get(side, flags[side]) for side in SIDES]
        if None not in both and both[0] and both[0] == both[1]:
            problems.append(f"{where}: source and target are both in {both[0]!r}.")
        if PAIRS in columns:
            texts = _texts(chunk[columns[PAIRS]][place], columns[PAIRS], keys, codes, wanted, where, problems)
        else:
            texts = {side: chunk[columns[side]][place] for side in wanted}
        for side in wanted:
            made[side].append(texts.get(side))
        for side, code in codes.items():
            made[LANGUAGES[side]].append(code)
        made[PROBLEMS].append(problems)
    return made


def _texts(
    pair: Any,
    column: str,
    keys: dict[str, str],
    codes: dict[str, str | None],
    wanted: list[str],
    where: str,
    problems: list[str],
) -> dict[str, str]:
    """The texts of a pair by side, as far as it has them; what is wrong is added to `problems`."""
    if pair is None:
        return {}
    if not isinstance(pair, dict):
        raise InputError(f"{where}: {_no_pair(column, pair)}")
    given = {key: text for key, text in pair.items() if text is not None}
    if other := [key for key, text in given.items() if not isinstance(text, str)]:
        problems.append(
            f"{where}: {other[0]!r} holds {json.dumps(given[other[0]], default=str)[:60]}, not text."
        )
        return {}
    texts, used = {}, set(keys.values())
    for side in wanted:
        code = codes.get(side)
        found = [keys[side]] if side in keys else language_codes.find(code, given) if code else []
        used |= set(found)
        if len(found) == 1 and found[0] in given:
            texts[side] = given[found[0]]
        elif len(found) > 1:
            problems.append(f"{where}: several texts are for {code}: {', '.join(found)}.")
    lacking = [keys.get(side) or codes.get(side) for side in wanted if side not in texts]
    of_others = [key for key, text in given.items() if key not in used and text.strip()]
    is_without_target = where.startswith("test") and list(texts) == ["source"]
    if lacking and None not in lacking and of_others and not is_without_target and not problems:
        problems.append(f"{where}: no text in {' or '.join(map(str, lacking))}; {_listed(list(given))}.")
    return texts


def by_direction(
    tokenize: Tokenize, rows: dict[str, list], columns: dict[str, str], data_args: Any
) -> dict[str, list]:
    """What `tokenize(part, source_lang, target_lang)` makes of the rows of each direction, in the order of
    `rows`. As it makes a row of a row, without regard to the others, neighbours play no part.

    Args:
        rows: a chunk: lists by column.
        columns: by role, as `prepare` gives them.
        data_args: source_lang, target_lang: the languages of rows that have none of their own.

    Raises:
        InputError: what is wrong with the directions, each problem once.
    """
    places: dict[tuple[str | None, str | None], list[int]] = {}
    for place, direction in enumerate(directions(rows, columns, data_args)):
        places.setdefault(direction, []).append(place)
    made: dict[str, list] = {}
    problems: list[str] = []
    for direction, of_part in places.items():
        part = {name: [values[place] for place in of_part] for name, values in rows.items()}
        try:
            features = tokenize(part, *direction)
        except InputError as error:
            problems += error.problems
            continue
        for name, values in features.items():
            row_by_row = made.setdefault(name, [None] * sum(map(len, places.values())))
            for place, value in zip(of_part, values, strict=True):
                row_by_row[place] = value
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return made


def directions(rows: Any, columns: dict[str, str], data_args: Any) -> list[tuple[str | None, str | None]]:
    """Source and target language of each row: its own, or those of the flags."""
    count = len(rows[columns["source"]])
    flags = (data_args.source_lang, data_args.target_lang)
    sides = (
        rows[columns[role]][:] if role in columns else itertools.repeat(flag, count)
        for role, flag in zip(LANGUAGES.values(), flags, strict=True)
    )
    return list(zip(*sides, strict=True))
