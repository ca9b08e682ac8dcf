"""The words of a text, for tags to stand on, and where they are in it."""

import re
import unicodedata
from collections.abc import Sequence

# Thai, Lao, Tibetan, Burmese, Khmer, kana with bopomofo, Han: written without spaces between words
UNSEGMENTED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3005-\u3007"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
LETTER = re.compile(rf"[^\W{UNSEGMENTED}]")
PIECE = re.compile(rf"[{UNSEGMENTED}]|[^\W{UNSEGMENTED}]+|\S")
JOINERS = "\u200c\u200d\u00ad"  # zero-width (non-)joiner, soft hyphen


def split(text: str) -> list[tuple[int, int]]:
    """Start and end of each word, in characters and in order; all between them is white space.

    Letters, digits and underscores in a row are a word, with combining marks and joiners between and behind
    them. Every other character is a word by itself: apostrophes and hyphens too, so that the name in
    "Paris's" is a word. So is every character, with its marks, of a script that has no spaces between words:
    there a name may end anywhere.
    """
    found: list[tuple[int, int]] = []
    is_behind_mark = False
    for piece in PIECE.finditer(text):
        start, end = piece.span()
        is_mark = belongs_before(text[start])
        if found and found[-1][1] == start and (is_mark or (is_behind_mark and LETTER.match(text, start))):
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
        is_behind_mark = is_mark and LETTER.match(text, found[-1][0]) is not None
    return found


def offsets(tokens: Sequence[str], text: str | None = None) -> list[tuple[int, int]]:
    """Start and end of each token, in characters: of the words of `text` where the row was one, else in the
    tokens with a blank between each and the next."""
    if text is not None:
        return split(text)
    found, start = [], 0
    for token in tokens:
        found.append((start, start + len(token)))
        start += len(token) + 1
    return found


def belongs_before(character: str) -> bool:
    """Whether it is a part of the letter before it: a mark, or a joiner."""
    return character in JOINERS or unicodedata.category(character)[0] == "M"
