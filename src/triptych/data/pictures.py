"""Rows of pictures: what folders hold, whether each picture can be read, which are held out.

A picture stands in a column of paths, relative to the file or folder that names them, or of the bytes of its
file: alone or as `datasets` keeps them, `{"bytes": ..., "path": ...}`. It is decoded when a batch needs it.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from triptych.errors import InputError, some

logger = logging.getLogger(__name__)

PICTURE = "picture"  # the column of features
FOLDER = "folder that paths are relative to"  # a column of raw rows and of features
SIZE = "bytes of the picture's file"  # a column of raw rows, by which a changed file is another row
EXTENSIONS = {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"}
EXTENSIONS |= {".ppm", ".tga", ".tif", ".tiff", ".webp"}

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.tsv", "metadata.parquet")
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
AUGMENTATIONS = ("none", "crop", "trivial")  # what training pictures may get, see `images.augmentation`
READERS = 8  # threads that look at headers


def metadata_of(folder: str) -> str | None:
    """The file in a folder that says what its pictures are, if there is one."""
    return next((path for name in METADATA if os.path.isfile(path := os.path.join(folder, name))), None)


def is_folder_of_pictures(name: str) -> bool:
    """Whether that is a folder with pictures, itself or in folders inside it, and without files of rows."""
    root = Path(os.path.expanduser(name))
    if not root.is_dir():
        return False
    endings = {path.suffix.lower() for depth in ("*", "*/*", "*/*/*") for path in root.glob(depth)}
    return bool(endings & EXTENSIONS) and not endings & {".parquet", ".arrow", ".jsonl", ".json", ".csv"}


def folder_problems(folder: str, split: str) -> list[str]:
    """What keeps a folder from being read as pictures."""
    path = Path(os.path.expanduser(folder))
    if path.is_file():
        return [f"{folder} is a file, not a folder: give --{split}_file."]
    if not path.is_dir():
        return [f"{folder}: there is no such folder."]
    inner = sorted(one.name for one in path.iterdir() if one.is_dir() and not _is_hidden(one.name))
    if inner and {name.lower() for name in inner} <= {name for names in SPLITS.values() for name in names}:
        own = [name for name in inner if name.lower() in SPLITS[split]]
        given = f"--{split}_dir {os.path.join(folder, (own or inner)[0])}"
        return [f"{folder} holds folders of splits ({some(inner)}), not of classes: give {given}."]
    if metadata_of(str(path)):
        return []
    names, labels = _found(path)
    if not names:
        return [f"{folder} holds no pictures ({' '.join(sorted(EXTENSIONS))})."]
    if split != "test" and None in labels:
        loose = [name for name, label in zip(names, labels, strict=True) if label is None]
        what = (
            f"classes are the folders inside it, and {len(loose)} picture(s) lie in none ({some(loose, 3)})"
        )
        mend = (
            "move them into one" if any(labels) else "make some, or a metadata.csv with file_name and label"
        )
        return [f"{folder}: {what}: {mend}."]
    return []


def from_folder(folder: str, split: str) -> Any:
    """The pictures in a folder as a `datasets.Dataset`: their paths within it in the column "image", and, if
    they lie in folders inside it, the name of that folder in "label".

    Folders further inside belong to the class. Of the classes comes one picture of each in turn, so that the
    first rows are of all of them. Symbolic links are followed; hidden files and what is no picture by its
    extension are left out, which the log says.

    Raises:
        InputError: see `folder_problems`.
    """
    import datasets

    if problems := folder_problems(folder, split):
        raise InputError(problems)
    path = Path(os.path.expanduser(folder)).absolute()
    names, labels = _found(path, tell=split)
    columns: dict[str, Any] = {"image": names}
    if any(labels):
        columns["label"] = labels
    columns[FOLDER] = [str(path)] * len(names)
    return datasets.Dataset.from_dict(columns, split=split)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _found(path: Path, tell: str | None = None) -> tuple[list[str], list[str | None]]:
    """Paths of pictures within a folder, and of each the folder inside it that it is in."""
    by_class: dict[str | None, list[str]] = {}
    others: list[str] = []
    classes: list[str] = []
    for entry in sorted(path.iterdir()):
        if _is_hidden(entry.name):
            continue
        if not entry.is_dir():
            (by_class.setdefault(None, []) if _is_picture(entry.name) else others).append(entry.name)
            continue
        classes.append(entry.name)
        for file in _files(entry, {os.path.realpath(path)}):
            name = file.relative_to(path).as_posix()
            (by_class.setdefault(entry.name, []) if _is_picture(name) else others).append(name)
    if tell and others:
        logger.warning("%s: %d files that are no pictures left out: %s.", tell, len(others), some(others, 3))
    if tell and (empty := [name for name in classes if name not in by_class]):
        logger.warning("%s: no pictures in %s: no class of this run.", tell, some(empty))
    turns = zip_longest(*([(name, label) for name in names] for label, names in by_class.items()))
    pairs = [pair for turn in turns for pair in turn if pair is not None]
    return [name for name, _ in pairs], [label for _, label in pairs]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name.lower())[1] in EXTENSIONS


def _files(folder: Path, above: set[str]) -> Iterator[Path]:
    """The files below a folder, in order; a link that leads back to a folder above is not followed again."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in sorted(folder.iterdir()):
        if _is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _files(entry, above | {real})
        else:
            yield entry


def values(rows: Any, column: str) -> Iterator[tuple[Any, str | None]]:
    """Each row's picture, bytes as a buffer that is not copied, with the folder that its path is relative to.

    Args:
        rows: a `datasets.Dataset` with the column.
    """
    import pyarrow.types

    names = [name for name in (column, FOLDER) if name in rows.column_names]
    for table in rows.select_columns(names).with_format("arrow").iter(100):
        folders = table[FOLDER].to_pylist() if FOLDER in names else [None] * len(table)
        pictures = table[column].combine_chunks()
        if pyarrow.types.is_struct(pictures.type):
            parts = zip(pictures.field("bytes"), _paths(pictures), folders, strict=True)
            yield from (({"bytes": one.as_buffer(), "path": path}, folder) for one, path, folder in parts)
        elif "binary" in str(pictures.type):
            yield from ((one.as_buffer(), folder) for one, folder in zip(pictures, folders, strict=True))
        else:
            yield from zip(pictures.to_pylist(), folders, strict=True)


def readable(rows: Any, column: str, split: str) -> Any:
    """The rows whose pictures can be decoded, as far as their headers and ends tell, with the column `SIZE`.
    Of training rows the others are left out, and the log says which.

    Args:
        rows: a `datasets.Dataset`.

    Raises:
        InputError: for a broken picture that is to be evaluated or predicted, for rows without any that is
            whole, and for a column that holds no pictures.
    """
    from triptych.images.decoding import name_of, problem

    kind = rows.features[column]
    is_path = getattr(kind, "dtype", None) in ("string", "large_string")
    holds_bytes = getattr(kind, "dtype", None) in ("binary", "large_binary") or hasattr(kind, "decode")
    if not (is_path or holds_bytes or (isinstance(kind, dict) and "bytes" in kind)):
        raise InputError(f"{split}: column {column!r} must hold paths of pictures or their bytes.")

    def look(both: tuple[Any, str | None]) -> tuple[str, str | None, int | None]:
        value, folder = both
        blank = not value or (isinstance(value, str) and not value.strip())
        why = None if blank else problem(value, folder)  # rows without any are left out later, as everywhere
        return name_of(value), why, _size(value, folder)

    with ThreadPoolExecutor(READERS) as threads:
        # In portions: all rows at once would have all their bytes wait in memory
        looked = [one for part in _portions(values(rows, column)) for one in threads.map(look, part)]
    broken = [(number, name, why) for number, (name, why, _) in enumerate(looked, 1) if why]
    told = [f"{name or f'the picture of row {number}'} ({why})" for number, name, why in broken]
    if told and (split != "train" or len(told) == len(looked)):
        what = "cannot be decoded; mend them or leave them out"
        raise InputError(f"{split}: {len(told)} of {len(looked)} pictures {what}: {some(told, 5)}.")
    if is_path:
        rows = rows.add_column(SIZE, [size for *_, size in looked])
    if told:
        shown = (len(told), len(looked), some(told, 5))
        logger.warning("%s: %d of %d pictures dropped, which cannot be decoded: %s.", split, *shown)
        lost = {number - 1 for number, *_ in broken}
        rows = rows.select([index for index in range(len(looked)) if index not in lost])
    return rows


def _portions(items: Iterator[Any], size: int = 100) -> Iterator[list[Any]]:
    while part := list(islice(items, size)):
        yield part


def _size(value: Any, folder: str | None) -> int | None:
    if not value or not isinstance(value, str):
        return None
    try:
        return os.path.getsize(os.path.join(folder or "", os.path.expanduser(value)))
    except OSError:
        return None


def held_out(rows: Any, column: str, share: float, seed: int) -> dict[str, Any]:
    """Training rows and rows to evaluate, told apart by a hash of each picture's path or bytes and the seed:
    the same at every start, in every process and order, also when rows are added.

    Args:
        rows: a `datasets.Dataset`.
        share: of the rows to evaluate, above 0 and below 1.

    Raises:
        InputError: if one of both is left without rows.
    """
    chosen = [_draw(value, seed) < share for value, _ in values(rows, column)]
    if all(chosen) or not any(chosen):
        raise InputError(f"--train_val_split {share:g}: of {len(chosen)} rows that leaves one side none.")
    sides = {"train": False, "validation": True}
    return {
        split: rows.select([index for index, held in enumerate(chosen) if held == side])
        for split, side in sides.items()
    }


def _draw(value: Any, seed: int) -> float:
    """From 0 to below 1, by the picture."""
    if isinstance(value, dict):
        value = value["path"] if value["bytes"] is None else value["bytes"]
    digest = hashlib.sha256(f"{seed} ".encode())
    digest.update(value.encode() if isinstance(value, str) else value or b"")
    return int.from_bytes(digest.digest()[:8], "big") / 2**64


class Beside:
    """Features with the raw rows' pictures beside them, which are neither copied nor decoded before a batch
    asks for its rows.

    Args:
        raw: a `datasets.Dataset` with the column.
        features: what `preprocess` made of its other columns, as many rows; None if it made nothing.
    """

    def __init__(self, raw: Any, column: str, features: Any):
        self._raw = raw.select_columns([name for name in (column, FOLDER) if name in raw.column_names])
        self._column, self._features = column, features
        self.column_names = [PICTURE, *([FOLDER] if FOLDER in self._raw.column_names else [])]
        self.column_names += features.column_names if features is not None else []

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, rows: Any) -> dict[str, list]:
        found = self._raw[rows]
        found = {PICTURE: found.pop(self._column), **found}
        return found if self._features is None else found | self._features[rows]


def add_to(digest: Any, column: Any) -> None:
    """Adds the bytes of pictures to a digest, and of `{"bytes": ..., "path": ...}` the names where there are
    no bytes.

    Args:
        digest: of hashlib.
        column: a `pyarrow.ChunkedArray` of binary values, or of structs with some.
    """
    import pyarrow.types

    for chunk in column.chunks:
        if not pyarrow.types.is_struct(chunk.type):
            for value in chunk:
                digest.update(value.as_buffer() or b"")
            continue
        for value, path in zip(chunk.field("bytes"), _paths(chunk), strict=True):
            digest.update(value.as_buffer() or os.path.basename(path or "").encode())


def _paths(structs: Any) -> list[str | None]:
    """The paths beside pictures' bytes."""
    found = structs.type.get_field_index("path") >= 0
    return structs.field("path").to_pylist() if found else [None] * len(structs)
