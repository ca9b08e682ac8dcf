"""Sentences from files of columns: a token a line with its tags, and a blank line behind each sentence.

CoNLL-2003 and its kin have columns without names, CoNLL-U and the older CoNLL-X ten with names. Both forms:
https://aclanthology.org/W03-0419 and https://universaldependencies.org/format.html
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

# Of CoNLL-U: ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC
UNIVERSAL = ("id", "tokens", "lemma", "pos_tags", "xpos", "feats", "head", "deprel", "deps", "misc")
CONLL_2003 = ("pos_tags", "chunk_tags", "ner_tags")  # behind the token, of files with four columns
FIRST_NUMBER = re.compile(r"[01]([-.]\d+)?")  # of a sentence's words
NOT_A_WORD = re.compile(r"\d+[-.]\d+")  # a word that is written as one and analysed as several, or left out
BLANKS = re.compile("[ \t]+")  # no others: a token may hold a no-break space
START = "-DOCSTART-"

Lines = Iterable[tuple[int, str]]


def read(
    lines: Lines, path: str, problems: list[str], universal: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A row for each sentence, with lists of strings of one length.

    CoNLL-U gives `tokens`, `pos_tags` (UPOS) and its other columns by their names in small letters. Other
    files give `tokens`, the first column, further ones by number from "1", the last also as `tags`; if there
    are four also `pos_tags`, `chunk_tags` and `ner_tags`, as in CoNLL-2003. Tabs separate where a line has
    any, else blanks. A line that begins with "#" is a comment, unless it has as many columns as the others
    of a file that is not CoNLL-U. Lines of -DOCSTART- are left out.

    Args:
        lines: with their numbers.
        path, problems: see `readers`.
        universal: whether it is CoNLL-U for certain; else ten columns that begin with a first word's number
            say so.
    """
    lines = iter(lines)
    head = []
    for item in lines:
        head.append(item)
        if _is_token(item[1]) and not item[1].startswith("#"):
            break
    first = next((_fields(line) for _, line in reversed(head) if _is_token(line)), [])
    universal |= len(first) == len(UNIVERSAL) and bool(FIRST_NUMBER.fullmatch(first[0]))
    count = len(UNIVERSAL) if universal else len(first)
    names = _names(count, universal)
    begin, sentence = 0, list[list[str]]()
    for number, line in itertools.chain(head, lines, [(0, "")]):
        if not _is_token(line):
            if sentence:
                values = list(zip(*sentence, strict=True))
                yield f"{path}, line {begin}", {name: list(values[at]) for name, at in names.items()}
            sentence = []
            continue
        fields = _fields(line)
        if line.startswith("#") and (universal or len(fields) != count):
            continue
        if len(fields) != count:
            expected = "in CoNLL-U" if universal else "in the first line of a token"
            problems.append(f"{path}, line {number}: number of columns {len(fields)}, {expected} {count}.")
        elif not (universal and NOT_A_WORD.fullmatch(fields[0])):
            begin = begin if sentence else number
            sentence.append(fields)


def _is_token(line: str) -> bool:
    """Whether a line may hold a token, and ends no sentence."""
    return bool(line.strip()) and not line.startswith(START)


def _fields(line: str) -> list[str]:
    line = line.rstrip(" \t\r\n")
    return [field.strip(" ") for field in line.split("\t")] if "\t" in line else BLANKS.split(line.strip(" "))


def _names(count: int, universal: bool) -> dict[str, int]:
    """The places of the columns in a line, by name."""
    if universal:
        return {name: at for at, name in enumerate(UNIVERSAL)}
    names = {"tokens": 0} | {str(at): at for at in range(1, count)}
    if count == 1 + len(CONLL_2003):
        names |= {name: at for at, name in enumerate(CONLL_2003, 1)}
    return names | ({"tags": count - 1} if count > 1 else {})
