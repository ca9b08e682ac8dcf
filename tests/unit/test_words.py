import random
import sys
import unicodedata

import pytest

from triptych.data import words


def texts(text: str) -> list[str]:
    return [text[start:end] for start, end in words.split(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada Walsh won.", ["Ada", "Walsh", "won", "."]),
        ("Paris's don\u2019t", ["Paris", "'", "s", "don", "\u2019", "t"]),
        ("$3,450.75 to E.ON\u00a0AG", ["$", "3", ",", "450", ".", "75", "to", "E", ".", "ON", "AG"]),
        ("40-year-old a_b", ["40", "-", "year", "-", "old", "a_b"]),
        (" \n\t\u3000", []),
        # Combining marks and joiners are in words, and stand alone only in front.
        ("Zu\u0308rich.", ["Zu\u0308rich", "."]),
        ("नमस्ते क्\u200dष", ["नमस्ते", "क्\u200dष"]),
        ("می\u200cمینویسیم", ["می\u200cمینویسیم"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("\u0301a", ["\u0301", "a"]),
        ("❤️ 👩\u200d💻a", ["❤️", "👩\u200d", "💻", "a"]),
        # Scripts without spaces: a character each, with its marks, beside words of others
        ("東京タワーはiPhone", ["東", "京", "タ", "ワ", "ー", "は", "iPhone"]),
        ("ภาษาน้ำ", ["ภ", "า", "ษ", "า", "น้", "ำ"]),
        ("ខ្មែរ ພາສາ", ["ខ្", "មែ", "រ", "ພ", "າ", "ສ", "າ"]),
        ("한국어는 좋다", ["한국어는", "좋다"]),
    ],
)
def test_words_of_scripts(text, expected):
    assert texts(text) == expected


def test_every_character_but_white_space_is_in_one_word():
    generator = random.Random(5)
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    for size in (1, 3, 50) * 300:
        text = "".join(generator.choices(characters, k=size) + generator.choices(" aé'\u0301字", k=size))
        covered: list[int] = []
        for start, end in words.split(text):
            assert start < end
            covered += range(start, end)
        assert covered == [place for place, character in enumerate(text) if not character.isspace()]


def test_marks_never_begin_a_word_behind_another_character():
    marks = [chr(c) for c in range(0x10000) if unicodedata.category(chr(c)).startswith("M")]
    assert len(marks) > 1000
    assert all(words.split(f"a{mark}b") == [(0, 3)] for mark in marks if not "\u0e00" <= mark <= "\u1fff")


def test_offsets_are_those_of_the_words_or_of_the_tokens_with_blanks_between():
    assert words.offsets(["Ada", "won"], "Ada  won") == [(0, 3), (5, 8)]
    tokens = ["New York", "", " ", "is", "\u00a0"]
    text = " ".join(tokens)
    assert [text[start:end] for start, end in words.offsets(tokens)] == tokens
    assert words.offsets(tokens)[-1] == (len(text) - 1, len(text))
    assert words.offsets([]) == []
