"""Real questions with four choices, without a network: which sense of a word a sentence uses, from WordNet.

WordNet 3.0 (Miller 1995, "WordNet: a lexical database for English") lies on a machine where Debian's package
`wordnet-base` is installed; its files: https://wordnet.princeton.edu/documentation/wndb5wn
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych.errors import InputError

DICTIONARY = "/usr/share/wordnet"
PARTS = ("noun", "verb", "adj", "adv")  # of speech, by their files
KINDS = ("same", "other")
CHOICES = 4
LETTERS = "ABCD"
EXAMPLE = re.compile(r'"([^"]+)"')
MARKER = re.compile(r"\((?:a|p|ip)\)$")  # of adjectives: where they stand


@dataclass
class Sense:
    """A meaning: its words, the same in small letters with blanks, its definition, and sentences."""

    words: list[str]
    definition: str
    examples: list[str] = field(default_factory=list)


def senses(kind: str = "same", folder: str | Path = DICTIONARY, seed: int = 0) -> list[dict[str, Any]]:
    """For each sense of WordNet with a sentence that holds its word: which of four definitions is meant.

    The wrong ones are of three more senses of the same word, which is hard; or, for words that have fewer
    than four senses, of other words, which is easier. A word has one part of speech. Each sense is asked for
    once: of two questions one would give away the other's answer.

    Args:
        kind: one of KINDS: whose the wrong definitions are, the same word's or other words'.
        folder: the files data.noun, index.noun and so on.
        seed: of the choices and their order.

    Returns:
        Rows with the columns "context", the sentence; "question", which names the word; "choices"; "label",
        the letter of the right one; "word"; and "text", sentence and word, by which no two are the same.

    Raises:
        InputError: the folder does not hold WordNet's files.
    """
    rows = []
    for part in PARTS:
        of_word: dict[str, list[Sense]] = {}
        every = _read(Path(folder) / f"data.{part}")
        for sense in every:
            for word in sense.words:
                of_word.setdefault(word, []).append(sense)
        for sense in every:
            pairs = ((one, word) for one in sense.examples for word in sense.words if _holds(one, word))
            sentence, word = next(pairs, ("", ""))
            if not word or (len(of_word[word]) >= CHOICES) != (kind == "same"):
                continue
            rng = random.Random(f"{seed} {sentence} {word}")  # the same whatever other rows there are
            some = of_word[word] if kind == "same" else rng.sample(every, min(len(every), 4 * CHOICES))
            own = {sense.definition} if kind == "same" else {one.definition for one in of_word[word]}
            wrong = list(dict.fromkeys(one.definition for one in some if one.definition not in own))
            if len(wrong) < CHOICES - 1:
                continue
            choices = [sense.definition, *rng.sample(wrong, CHOICES - 1)]
            rng.shuffle(choices)
            row = {"context": sentence, "question": f'Which sense of "{word}"?', "choices": choices}
            row |= {"label": LETTERS[choices.index(sense.definition)], "word": word}
            rows.append({**row, "text": f"{sentence} {word}"})
    return rows


def _read(path: Path) -> list[Sense]:
    """The senses of a part of speech."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}. WordNet is needed: on Debian `apt install wordnet-base`, elsewhere "
            "its files data.noun and so on in a folder that --dictionary names."
        ) from error
    found = list(_parsed(line for line in lines if line[:1].isdigit()))
    if not found:
        raise InputError(f"{path} holds no senses; it is not a file of WordNet.")
    return found


def _parsed(lines: Iterator[str]) -> Iterator[Sense]:
    for line in lines:
        head, _, gloss = line.partition(" | ")
        fields = head.split(" ")
        count = int(fields[3], 16)
        words = [MARKER.sub("", word).replace("_", " ").lower() for word in fields[4 : 4 + 2 * count : 2]]
        definition = gloss.partition('"')[0].strip().rstrip(";").strip()
        if definition:
            yield Sense(list(dict.fromkeys(words)), definition, EXAMPLE.findall(gloss))


def _holds(sentence: str, word: str) -> bool:
    """Whether the word stands there as it is in dictionaries: what else it may look like is not known."""
    lowered = sentence.lower()
    return word in lowered and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", lowered) is not None
