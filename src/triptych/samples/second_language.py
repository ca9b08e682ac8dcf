"""A made language to translate English sentences into, which a small model can learn without any dictionary.

Every word has one of its own, made of a hash; "the" is an ending of the word behind it, "a" and "an" of their
word another; and the words of a sentence stand in reverse, a name's in their order. Names and figures stay as
they are, so that a translator has to copy them.
"""

import hashlib
import re
from collections.abc import Container
from functools import cache

ARTICLES = {"the": "um", "a": "ik", "an": "ik"}
CONSONANTS, VOWELS, CODAS = "bdfgklmnprstvz", "aeiou", ("", "n", "r", "s", "l")
PIECE = re.compile(r"\$?\d[\d,]*(?:-\d+)?(?<!,)|[\w'-]+|[.,:]")


def translate(text: str, names: Container[str]) -> str:
    """English sentences in the made language.

    Args:
        text: of words, figures, full stops, commas and colons.
        names: words that stay as they are, as do all with a figure in them.
    """
    said: list[list[str]] = []
    clause: list[list[str]] = []  # words, those of a name together
    ending, is_behind_name = "", False
    for piece in PIECE.findall(text):
        is_kept = piece in names or any(letter.isdigit() for letter in piece)
        if piece in (".", ",", ":"):
            said.append([" ".join(word for unit in reversed(clause) for word in unit), piece])
            clause, is_behind_name = [], False
        elif piece.lower() in ARTICLES and not is_kept:
            ending, is_behind_name = ARTICLES[piece.lower()], False
        else:
            word = piece if is_kept else word_for(piece.lower()) + ending
            if ending and is_kept:
                clause.append([ending])  # a name has no ending
            if is_kept and is_behind_name:
                clause[-1].append(word)
            else:
                clause.append([word])
            ending, is_behind_name = "", is_kept
    text = " ".join(words + mark for words, mark in said)
    return re.sub(r"(?:^|(?<=\. ))\w", lambda first: first[0].upper(), text)


@cache
def word_for(word: str) -> str:
    """The word of two syllables for an English one in small letters."""
    number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    made = ""
    for sounds in (CONSONANTS, VOWELS, CODAS) * 2:
        number, place = divmod(number, len(sounds))
        made += sounds[place]
    return made
