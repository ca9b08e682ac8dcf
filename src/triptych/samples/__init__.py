"""Small datasets that need no network: real text, made bulletins and a tokenizer for them, real pictures."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triptych.errors import InputError
from triptych.samples import library
from triptych.samples.bulletins import USUAL, bulletins
from triptych.samples.digits import digits
from triptych.samples.docstrings import docstrings
from triptych.samples.messages import CATALOGS, messages
from triptych.samples.senses import DICTIONARY, senses
from triptych.samples.sources import sources
from triptych.samples.tokenizer import train_tokenizer

DATASETS = ("docstrings", "sources", "library", "messages", "senses", "bulletins")
PICTURES = "digits"  # written as folders of pictures, not as rows
__all__ = [
    "bulletins",
    "digits",
    "docstrings",
    "messages",
    "senses",
    "sources",
    "splits",
    "train_tokenizer",
    "write",
]


def splits(rows: list[dict[str, Any]], seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Rows with different texts as "train", "validation" and "test", a tenth for each of the last two.

    The text of a row without the column "text" is the first of its translation. Two texts are the same if
    their letters and digits are; of rows with the same text the first stays. The order is that of a hash of
    seed and text: shuffled, and the same for any order of `rows` on any machine.

    Raises:
        InputError: fewer than three different texts.
    """
    ordered = _shuffled(rows, seed)
    if len(ordered) < 3:
        raise InputError(f"{len(ordered)} different texts cannot fill three splits; there must be 3 or more.")
    held_out = max(1, len(ordered) // 10)
    return {
        "train": ordered[: -2 * held_out],
        "validation": ordered[-2 * held_out : -held_out],
        "test": ordered[-held_out:],
    }


def _shuffled(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    by_hash: dict[str, dict[str, Any]] = {}
    for row in rows:
        text = row["text"] if "text" in row else next(iter(row["translation"].values()))
        letters = re.sub(r"\W+", "", text.lower())
        by_hash.setdefault(hashlib.sha256(f"{seed} {letters}".encode()).hexdigest(), row)
    return [by_hash[key] for key in sorted(by_hash)]


def write(
    name: str,
    out_dir: str | Path,
    rows: int | None = None,
    seed: int = 0,
    columns: Sequence[str] = USUAL,
    languages: tuple[str, str] = ("en", "de"),
    catalogs: str | Path = CATALOGS,
    definitions: str = "same",
    dictionary: str | Path = DICTIONARY,
) -> dict[str, int]:
    """Writes train.jsonl, validation.jsonl and test.jsonl, and touches nothing else in the folder; or of
    PICTURES the folders train, validation and test.

    Args:
        name: one of DATASETS, or PICTURES.
        out_dir: created where it is missing.
        rows: of all splits together, at most; None is all that there are, or 16,000 bulletins.
        seed: of the shuffling, and of what the bulletins say.
        columns: of bulletins; see there.
        languages, catalogs: of messages; see there.
        definitions, dictionary: of senses, the kind and the folder; see there.

    Returns:
        The number of rows of each split.

    Raises:
        InputError: another name, too few rows, or a folder that cannot be written to.
    """
    if name not in (*DATASETS, PICTURES):
        raise InputError(f"{name!r} is no dataset; there are: {', '.join((*DATASETS, PICTURES))}.")
    if rows is not None and rows < 3:
        raise InputError(f"{rows} rows cannot fill three splits; ask for 3 or more.")
    if name == PICTURES:
        return digits(out_dir, rows, seed)
    if name == "docstrings":
        found, columns = _shuffled(docstrings(), seed)[:rows], ("text", "summary", "package")
    elif name == "sources":
        found, columns = _shuffled(sources(), seed)[:rows], ("tokens", "ner_tags", "package")
    elif name == "library":
        found, columns = _shuffled(library.files(), seed)[:rows], ("text", "package")
    elif name == "messages":
        found, columns = _shuffled(messages(languages, catalogs), seed)[:rows], ("translation", "package")
    elif name == "senses":
        found = _shuffled(senses(definitions, dictionary, seed), seed)[:rows]
        columns = ("context", "question", "choices", "label", "word")
    else:
        # By their texts they are shuffled.
        found = bulletins(16_000 if rows is None else rows, seed, ("text", *columns))
    parts = splits(found, seed)
    try:
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        for split, part in parts.items():
            chosen = ({column: row[column] for column in columns} for row in part)
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
            Path(out_dir, f"{split}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(
            f"{error.filename}: {error.strerror}; name a folder that can be written to."
        ) from error
    return {split: len(part) for split, part in parts.items()}
