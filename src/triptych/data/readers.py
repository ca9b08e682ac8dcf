"""Rows from files: CSV, TSV, JSON, JSONL, Parquet, plain text and CoNLL, each also gzipped; aligned lines.

Written on the standard library (and on pyarrow for Parquet), because the builders of `datasets` guess types,
so that "007" becomes 7 and "NA" becomes null, and lose the line number of a row that is wrong. Nothing here
imports `datasets`, so that files can be checked before anything heavy is loaded.

Of a TSV the quotes are a CSV writer's if the rows fit the header better so than line by line. Where both fit
(no field holds a tab or a line break), they are if every field with a quote in it is wholly in quotes; else
they are part of the text, as in the files of GLUE.

Every reader yields `(where, row)`, `where` being for example "train.csv, line 12" and `row` a dictionary.
What is wrong it appends to the list `problems`, and goes on where it can, until there are MOST_PROBLEMS.
"""

import csv
import difflib
import glob
import gzip
import itertools
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import IO, Any

from triptych.data import conll, squad_json

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "txt")
EXTENSIONS = {name: name for name in (*FORMATS, "conll", "conllu")}
EXTENSIONS |= dict.fromkeys(("iob", "iob2", "bio"), "conll")
LINES = "lines"  # the format of aligned files: whatever their extension, and a line ends with "\n" alone
# Formats by which a file is one row if its extension says nothing else; by the second .txt, too
DOCUMENTS, WHOLE_TEXTS = "documents", "whole texts"
MOST_PROBLEMS = 10
LONGEST_FIELD = 1 << 28  # characters; a longer one is a quote that is never closed
MOST_PEEKED = 1 << 26  # bytes of a Parquet file that are looked at first
BLOCK = 1 << 20  # characters of a JSON array read at a time
ARRAY = re.compile(r"\s*\[")
SPLIT_TABLE = re.compile(r'\s*\{\s*"(?:columns|index|schema)"\s*:\s*[\[{]')
TABLE = re.compile(r'\s*\{\s*"[^"\\]*"\s*:\s*[\[{]')
WHOLLY_QUOTED = re.compile(r'"(?:[^"]|"")*"')
DATA_ARRAY = re.compile(r'\s*\{(?:\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-+.\w]+)\s*,)*\s*"data"\s*:\s*\[')
DATA_OF_OBJECTS = re.compile(DATA_ARRAY.pattern + r"\s*\{")
BETWEEN_ITEMS = re.compile(r"[\s,]*")

SPANS = ([int, int, str], [int, int, list])

Rows = Iterator[tuple[str, dict[str, Any]]]


def file_format(path: str, format: str | None = None) -> str | None:
    """One of FORMATS, conll or conllu, from the extension in any case and with or without `.gz`; None if it
    is another. A `format` that is given is that of every file, but DOCUMENTS and WHOLE_TEXTS only of those
    whose extension does not tell: "whole"."""
    own = EXTENSIONS.get(os.path.splitext(path.lower().removesuffix(".gz"))[1][1:])
    if format not in (DOCUMENTS, WHOLE_TEXTS):
        return format or own
    return "whole" if own in (None, "txt" if format == WHOLE_TEXTS else None) else own


def find_files(files: str, format: str | None = None) -> tuple[list[str], list[str]]:
    """The paths that a path, a comma-separated list or a glob (with `**`) stands for, sorted within a glob.

    Second comes what is wrong with them: nothing there, a folder, an unknown extension.
    """
    paths: list[str] = []
    problems = []
    for name in [files] if os.path.exists(files) else filter(None, map(str.strip, files.split(","))):
        name = os.path.expanduser(name)
        found = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        if not found:
            folder = os.path.dirname(name)
            neighbours = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
            alike = difflib.get_close_matches(os.path.basename(name), neighbours, n=1)
            meant = f"; did you mean {os.path.join(folder, alike[0])}?" if alike else "."
            problems.append(f"{name}: no such file{meant}")
        for path in found:
            if os.path.isdir(path):
                problems.append(f"{path} is a folder; name its files: '{os.path.join(path, '*.csv')}'.")
            elif not file_format(path, format):
                problems.append(
                    f"{path}: the extension must be one of {', '.join(EXTENSIONS)}, alone or with .gz."
                )
            else:
                paths.append(path)
    if not paths and not problems:
        problems.append(f"{files!r} names no file.")
    return list(dict.fromkeys(paths)), problems


def peek(files: str, rows: int = 10_000, format: str | None = None) -> tuple[list[str], list[str]]:
    """A quick look at files, without `datasets`: column names, and what is wrong in the files' first rows.

    Args:
        files: a path, a comma-separated list of them, or a glob.
        rows: how many are read and checked, shared among the files (but 100 of each at least).
        format: see `file_format`.

    Returns:
        The names of the columns in order, and the problems: missing, unreadable or empty files, malformed
        rows with their line numbers, a file without a column of the others (JSON rows may leave keys out).
        There are at most ten.
    """
    paths, problems = find_files(files, format)
    names: dict[str, list[str]] = {}
    for path in paths:
        if len(problems) >= MOST_PROBLEMS:
            break
        known, found = len(problems), dict[str, None]()
        checked = max(100, rows // len(paths))
        if file_format(path, format) == "parquet":
            found |= dict.fromkeys(_peek_parquet(path, checked, problems))
        else:
            for _, row in itertools.islice(read_rows(path, problems, format=format), checked):
                found |= dict.fromkeys(row)
        if not found and len(problems) == known:
            problems.append(f"{path} is empty: it holds no rows.")
        if found:
            names[path] = list(found)
    every = list(dict.fromkeys(itertools.chain(*names.values())))
    for path, own in names.items():
        lacking = [name for name in every if name not in own]
        if lacking and file_format(path, format) not in ("json", "jsonl"):
            problems.append(f"{path} has no column {', '.join(map(repr, lacking))}, but other files have it.")
    return every, problems[:MOST_PROBLEMS]


def misaligned(files: Mapping[str, str]) -> list[str]:
    """What is wrong with files whose lines belong together: not as many files, or not as many lines.

    Args:
        files: a path, list or glob by what the lines are, as in `{"source": "a.en", "target": "a.de"}`.
    """
    found = {name: find_files(value, LINES)[0] for name, value in files.items()}
    if len(set(map(len, found.values()))) > 1:
        counts = ", ".join(f"{len(paths)} of the {name}s" for name, paths in found.items())
        return [f"As many files are needed of each side, not {counts}."]
    problems = []
    for paths in zip(*found.values(), strict=True):
        lines = {path: _count_lines(path) for path in paths}
        if None not in lines.values() and len(set(lines.values())) > 1:
            told = ", ".join(f"{path} has {count:,} lines" for path, count in lines.items())
            problems.append(f"{told}: line by line they must belong together.")
    return problems[:MOST_PROBLEMS]


def _count_lines(path: str) -> int | None:
    """The lines of a file; None where it cannot be read, which `peek` tells."""
    opener: Any = gzip.open if path.lower().endswith(".gz") else open
    count, last = 0, b"\n"
    try:
        with opener(path, "rb") as file:
            while block := file.read(BLOCK):
                count, last = count + block.count(b"\n"), block[-1:]
    except (OSError, EOFError, zlib.error):
        return None
    return count + (last != b"\n")


def read_rows(
    path: str, problems: list[str], columns: Iterable[str] | None = None, format: str | None = None
) -> Rows:
    """The rows of one file, with all columns or only `columns` (null where a row has none of that name)."""
    where = "none"
    keep = None if columns is None else list(columns)
    try:
        for where, row in _rows(path, problems, keep, file_format(path, format)):
            yield where, row if keep is None else {name: _storable(row.get(name)) for name in keep}
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problems.append(f"{path} is damaged, cut off or not gzip ({error}); the last row read: {where}.")
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror or error}.")


def _storable(value: Any) -> Any:
    """A value as Arrow can hold it: spans `[start, end, label]`, as doccano writes them, become objects."""
    is_list = isinstance(value, list) and value and all(isinstance(span, list) for span in value)
    if is_list and all([type(part) for part in span] in SPANS for span in value):
        return [dict(zip(("start", "end", "label"), span, strict=True)) for span in value]
    return value


def _rows(path: str, problems: list[str], columns: list[str] | None, format: str | None) -> Rows:
    match format:
        case "parquet":
            return _read_parquet(path, problems, columns)
        case "json" | "jsonl" as kind:
            if problem := _table_problem(path):
                problems.append(problem)
                return iter(())
            rows = _read_json(path, problems) if kind == "json" else _read_jsonl(path, problems)
            return squad_json.unfolded(rows, problems)
        case "conll" | "conllu":
            return conll.read(_lines(path, problems), path, problems, format == "conllu")
        case "txt" | "lines" as kind:
            # A carriage return inside a line is text: it must not shift the lines behind it.
            lines = _lines(path, problems, "\n" if kind == LINES else "")
            return ((f"{path}, line {number}", {"text": line.rstrip("\r\n")}) for number, line in lines)
        case "whole":
            return _read_whole(path, problems)
        case _:
            return _read_csv(path, problems)


def _open_text(path: str, newline: str = "") -> IO[str]:
    # Bytes that are not UTF-8 come as lone surrogates, which no valid text holds: so each can be located.
    opener: Any = gzip.open if path.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _not_utf8(text: str, path: str, line: int) -> str | None:
    """The problem with the first byte of `text` that is not UTF-8, `text` beginning on line `line`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        number, byte = line + text.count("\n", 0, error.start), ord(text[error.start]) - 0xDC00
        guess = "UTF-16" if number == 1 and text[:2] in ("\udcff\udcfe", "\udcfe\udcff") else "LATIN1"
        convert = f"convert it, for example with: iconv -f {guess} -t UTF-8"
        return f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8; {convert}."
    return None


def _lines(path: str, problems: list[str], newline: str = "") -> Iterator[tuple[int, str]]:
    """Lines with their numbers and endings, until there are too many problems."""
    with _open_text(path, newline) as file:
        for number, line in enumerate(file, 1):
            if problem := _not_utf8(line, path, number):
                problems.append(problem)
                line = line.encode(errors="replace").decode()
            if len(problems) >= MOST_PROBLEMS or (problem and "UTF-16" in problem):
                return
            yield number, line


def _read_whole(path: str, problems: list[str]) -> Rows:
    """A file as one row."""
    with _open_text(path) as file:
        text = file.read()
    if problem := _not_utf8(text, path, 1):
        problems.append(problem)
    else:
        yield path, {"text": text}


def _names_problem(names: list[str], path: str) -> str | None:
    # Columns without a name, as spreadsheets leave them at the end, are none that anybody asks for.
    if twice := sorted({name for name in names if names.count(name) > 1 and name.strip()}):
        return f"{path}: the column name {', '.join(map(repr, twice))} is there more than once."
    if any("\0" in name for name in names):
        return f"{path}: the column names {names} hold null characters; is it UTF-16 and not UTF-8?"
    return None


def _read_csv(path: str, problems: list[str]) -> Rows:
    delimiter = "," if file_format(path) == "csv" else "\t"
    quoted = delimiter == "," or _is_quoted(path, os.stat(path).st_size, os.stat(path).st_mtime_ns)
    names: list[str] = []
    for where, fields in _quoted_rows(path, problems, delimiter) if quoted else _plain_rows(path, problems):
        if len(problems) >= MOST_PROBLEMS:
            return
        if not names:
            names = fields
            other = [sign for sign in ",;\t|" if sign != delimiter and sign in names[0]]
            if len(names) == 1 and other:
                problems.append(f"{where}: one column, {names[0]!r}; does {other[0]!r} separate the fields?")
                return
            if problem := _names_problem(names, path):
                problems.append(problem)
                return
        elif len(fields) != len(names):
            problems.append(
                f"{where}: number of fields {len(fields)}, in the header {len(names)}"
                f"{'; quote a field that holds the separator' if len(fields) > len(names) else ''}."
            )
        else:
            yield where, dict(zip(names, fields, strict=True))


def _quoted_rows(path: str, problems: list[str], delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The fields of each row, quoted where they hold a delimiter, a line break or a quote."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader((line for _, line in _lines(path, problems)), delimiter=delimiter, strict=True)
    while len(problems) < MOST_PROBLEMS:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "expected after" in str(error):
                problems.append(f"{where}: a quote inside a quoted field; inside a field write it twice.")
                continue
            problems.append(f"{where}: a quote is opened in this row and never closed ({error}).")
            return
        if fields:
            yield where, fields


def _plain_rows(path: str, problems: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The fields of each line of a TSV, as they stand there."""
    for number, line in _lines(path, problems, newline="\n"):
        if text := line.rstrip("\r\n"):
            yield f"{path}, line {number}", text.split("\t")


@cache
def _is_quoted(path: str, size: int, changed: int) -> bool:
    """Whether the quotes of a TSV are a CSV writer's; see the head of this module. A file that stays as it is
    is read through for it only once."""
    ignored: list[str] = []
    columns, misfits, is_any, are_whole = 0, 0, False, True
    for _, fields in _plain_rows(path, ignored):
        columns = columns or len(fields)
        misfits += len(fields) != columns
        with_quotes = [field for field in fields if '"' in field]
        is_any |= bool(with_quotes)
        are_whole &= all(map(WHOLLY_QUOTED.fullmatch, with_quotes))
    if not is_any or (columns > 1 and not misfits):
        return is_any and are_whole
    problems: list[str] = []
    wrong = sum(len(fields) != columns for _, fields in _quoted_rows(path, problems, "\t"))
    if any("never closed" in problem for problem in problems):
        return False
    wrong += len(problems)
    return wrong < misfits or (wrong == misfits and (are_whole or columns == 1))


def _read_jsonl(path: str, problems: list[str]) -> Rows:
    for number, line in _lines(path, problems, newline="\n"):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.rstrip())
        except (ValueError, RecursionError) as error:
            character = f" at character {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            problems.append(f"{where}: not JSON: {_reason(error)}{character}.")
            continue
        if problem := _row_problem(row, line):
            problems.append(f"{where}: {problem}")
        else:
            yield where, row


def _reason(error: Exception) -> str:
    return getattr(error, "msg", str(error).partition(":")[0])


def _row_problem(row: Any, source: str) -> str | None:
    """What is wrong with a decoded JSON row, `source` being its JSON text."""
    if not isinstance(row, dict):
        return f"an object with the columns' names was expected, not {source.strip()[:40]}."
    if "\\ud" in source or "\\uD" in source:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return f"\\u{ord(error.object[error.start]):04x} is half of a surrogate pair, not a character."
    return None


def _table_problem(path: str) -> str | None:
    """That a file holds one object for all rows: by columns, by rows, split or with a schema, as pandas
    writes a table unless it is asked for rows."""
    try:
        with _open_text(path) as file:
            text = file.read(BLOCK)
    except (EOFError, zlib.error, OSError):
        return None  # told where the rows are read
    if not TABLE.match(text) or DATA_OF_OBJECTS.match(text):
        return None
    if not SPLIT_TABLE.match(text):
        try:
            first, end = json.JSONDecoder().raw_decode(text.lstrip())
            if text.lstrip()[end:].strip() or not all(isinstance(value, dict) for value in first.values()):
                return None  # a row whose first column holds an object
            if list(first) == ["translation"] and "0" not in first["translation"]:
                return None  # the only row, a pair by language
        except RecursionError:
            return None
        except ValueError:
            if len(text) < BLOCK:
                return None
    return (
        f"{path} holds one object for all rows, as pandas writes a table by default. Write an object a row: "
        "DataFrame.to_json(path, orient='records', lines=True)."
    )


def _read_json(path: str, problems: list[str]) -> Rows:
    """An array of objects, `{"data": [...]}` (behind plain values only), or one object a line."""
    with _open_text(path) as file:
        text = file.read(BLOCK)
        start = ARRAY.match(text) or DATA_ARRAY.match(text)
        if start and (problem := _not_utf8(text, path, 1)):
            problems.append(problem)
        elif start:
            yield from _read_array(file, text, start.end(), path, problems)
        if start:
            return
    known, seen = len(problems), False
    for item in _read_jsonl(path, problems):
        seen = True
        yield item
    if not seen and len(problems) > known:
        forms = 'neither an array of objects, nor {"data": [...]}, nor one object a line'
        problems[known:] = [f"{path} is {forms}; {problems[known]}"]


def _read_array(file: IO[str], text: str, position: int, path: str, problems: list[str]) -> Rows:
    """The items of a JSON array of any length, of which a block is in memory at a time.

    `text` is what has been read from `file`, and `position` the place behind the opening bracket in it.
    """
    decoder, head = json.JSONDecoder(), text[:position]
    line, row_number = 1 + head.count("\n"), 0
    while len(problems) < MOST_PROBLEMS:
        start = BETWEEN_ITEMS.match(text, position).end()  # type: ignore[union-attr]
        line, position = line + text.count("\n", position, start), start
        if text.startswith("]", position):
            break
        where = f"{path}, row {row_number + 1} (line {line})"
        try:
            row, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            # An item that the block's end cuts off fails at the end, or at the beginning of a string.
            cut = isinstance(error, json.JSONDecodeError) and (
                error.pos > len(text) - 16 or error.msg.startswith("Unterminated string")
            )
            waiting = len(text) - position
            more = file.read(max(BLOCK, waiting)) if cut and waiting < LONGEST_FIELD else ""
            if problem := _not_utf8(more, path, line + text.count("\n", position)):
                problems.append(problem)
                return
            if not more:
                reason = _reason(error) if waiting else "the file ends without the closing bracket"
                problems.append(f"{where}: not JSON: {reason}.")
                return
            text, position = text[position:] + more, 0
            continue
        if problem := _row_problem(row, text[position:end]):
            problems.append(f"{where}: {problem}")
        else:
            yield where, row
        line, position, row_number = line + text.count("\n", position, end), end, row_number + 1
    else:
        return
    try:
        json.loads(head + text[position:] + file.read())
    except (ValueError, RecursionError) as error:
        problems.append(f"{path}, line {line}: not JSON behind the last row: {_reason(error)}.")


@contextmanager
def opened_parquet(path: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`, also of a gzipped file."""
    import pyarrow.parquet

    packed = path.lower().endswith(".gz")
    with tempfile.TemporaryFile() if packed else open(path, "rb") as source:
        if packed:
            with gzip.open(path) as archive:
                shutil.copyfileobj(archive, source)
        yield pyarrow.parquet.ParquetFile(source)


def _read_parquet(path: str, problems: list[str], columns: list[str] | None) -> Rows:
    import pyarrow

    number = 0
    try:
        with opened_parquet(path) as file:
            if problem := _names_problem(file.schema_arrow.names, path):
                problems.append(problem)
                return
            for batch in file.iter_batches(1000, columns=columns):
                batch.validate(full=True)
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, ValueError, MemoryError, OSError) as error:
        problems.append(f"{path} is damaged, cut off or not Parquet ({error}); the last row read: {number}.")


def _peek_parquet(path: str, rows: int, problems: list[str]) -> list[str]:
    """The names of a Parquet file's columns; its first rows are read, but not made Python objects."""
    import pyarrow

    number = 0
    try:
        with opened_parquet(path) as file:
            names = file.schema_arrow.names
            if problem := _names_problem(names, path):
                problems.append(problem)
                return []
            size = 0
            for batch in file.iter_batches(100):
                batch.validate(full=True)
                number, size = number + len(batch), size + batch.nbytes
                if number >= rows or size > MOST_PEEKED:
                    break
            return names if number else []
    except (pyarrow.ArrowException, ValueError, MemoryError, OSError, EOFError, zlib.error) as error:
        problems.append(f"{path} is damaged, cut off or not Parquet ({error}); the last row read: {number}.")
        return []
