"""Real pairs of languages without a network: the translated messages of the programs on this machine.

They lie in the catalogs of gettext, files with the ending .mo; their format:
https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html
"""

import gettext
import re
import struct
from pathlib import Path
from typing import Any

from triptych.errors import InputError

CATALOGS = "/usr/share/locale"
ORIGINAL = "en"  # the language of the messages in the programs
MOST_WORDS = 60
MAGIC = 0x950412DE
NO_MESSAGES = {"", "translator-credits", "translator_credits", "your names", "your emails"}
# The letter to press for a menu's entry: _File, &File, E_xit; in scripts without such letters behind it: (_F)
ASIDE = re.compile(r"\s?\([_&]\w\)")
MARK = re.compile(r"(?<![_&])[_&](?=[^\W_])(?!\w+;)")  # no entity of HTML
PLACEHOLDER = re.compile(r"%[-+ #0-9.*$]*[hlqjzt]*[a-zA-Z]")
BEFORE_WORD = re.compile(rf"(?<!\w){MARK.pattern}")


def messages(languages: tuple[str, str], folder: str | Path = CATALOGS) -> list[dict[str, Any]]:
    """Pairs of messages in two languages, each pair once, in the order of packages and messages.

    Placeholders and markup stay as they are. Of a message with a singular and a plural there are two pairs.
    White space becomes one blank, and marks of the letters to press go, on both sides. What is the same in
    both languages, has no letter, or has over 60 words is left out.

    Args:
        languages: two codes as the folders of `folder` are called, or en, which every catalog is from.
        folder: the catalogs, `<language>/LC_MESSAGES/<package>.mo`.

    Returns:
        Rows with the columns "translation", a text by language, and "package".

    Raises:
        InputError: equal languages, or none that have catalogs of the same packages.
    """
    first, second = languages
    if first == second:
        raise InputError(f"--languages {first},{second}: they must differ.")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    wanted = [language for language in languages if language != ORIGINAL]
    of_language = {language: _catalogs(Path(folder) / language) for language in wanted}
    for language, packages in of_language.items():
        if not packages:
            raise InputError(
                f"{Path(folder) / language}/LC_MESSAGES holds no catalogs (*.mo). Another language, or the "
                "folder that --catalogs names, may; small images of systems leave them all out."
            )
    for package in sorted(set.intersection(*map(set, of_language.values()))):
        opened = {language: _open(packages[package]) for language, packages in of_language.items()}
        keys = [ids for ids, _ in opened.values()]
        for key in sorted(set(keys[0]).intersection(*keys[1:])):
            sides = [_forms(key, opened[code][1] if code in opened else None) for code in languages]
            for texts in zip(*sides, strict=True):
                pair = _clean(*texts)
                if pair is not None:
                    row = {"translation": dict(zip(languages, pair, strict=True)), "package": package}
                    found.setdefault(pair, row)
    return list(found.values())


def _catalogs(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in (folder / "LC_MESSAGES").glob("*.mo")}


def _open(path: Path) -> tuple[list[str], gettext.NullTranslations]:
    """The keys of a catalog's messages, and the catalog; none of a file that cannot be read."""
    content = path.read_bytes()
    try:
        order = "<" if content[:4] == struct.pack("<I", MAGIC) else ">"
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)
        _, count, table = struct.unpack_from(f"{order}3I", content, 4)
        places = [struct.unpack_from(f"{order}2I", content, table + 8 * number) for number in range(count)]
        charset = catalog.charset() or "ascii"
        return [content[start : start + length].decode(charset) for length, start in places], catalog
    except (OSError, ValueError, LookupError, struct.error):
        return [], gettext.NullTranslations()


def _forms(key: str, catalog: gettext.NullTranslations | None) -> tuple[str, ...]:
    """A message in the catalog's language, or without one as the program has it: one text, or two where it
    has a plural."""
    context, separator, ids = key.rpartition("\x04")
    singular, is_plural, plural = ids.partition("\0")
    if catalog is None:
        return (singular, plural) if is_plural else (singular,)
    if not is_plural:
        return (catalog.pgettext(context, singular) if separator else catalog.gettext(singular),)
    if separator:
        return tuple(catalog.npgettext(context, singular, plural, count) for count in (1, 5))
    return tuple(catalog.ngettext(singular, plural, count) for count in (1, 5))


def _clean(*texts: str) -> tuple[str, str] | None:
    """The two texts as a translator would see them; None if they are none worth learning from."""
    if texts[0].lower() in NO_MESSAGES:
        return None
    plain = [" ".join(text.split()) for text in _without_marks(*texts)]
    words = [len(text.split()) for text in plain]
    is_text = all(any(letter.isalpha() for letter in PLACEHOLDER.sub("", text)) for text in plain)
    if not is_text or max(words) > MOST_WORDS or plain[0] == plain[1]:
        return None
    return plain[0], plain[1]


def _without_marks(*texts: str) -> list[str]:
    """The texts without the mark of a letter to press, if each has one. One of them at least must stand
    before a word or aside: those inside of words alone may be of names, as in `record_size`."""
    counts = [len(ASIDE.findall(text)) + len(MARK.findall(ASIDE.sub("", text))) for text in texts]
    if counts != [1, 1] or not any(ASIDE.search(text) or BEFORE_WORD.search(text) for text in texts):
        return list(texts)
    return [MARK.sub("", ASIDE.sub("", text)) for text in texts]
