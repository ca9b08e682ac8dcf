"""How tags of words mark entities: which may follow which, entities from tags, and tags from entities."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

OUTSIDE = "O"
NONE = "none"
# By scheme, what a tag's letter says of its word: it Begins, is Inside of, Ends, or is alone (Single) an
# entity. BMES and BMEWO are IOBES with other letters.
LETTERS = {
    "iob2": {"B": "B", "I": "I"},
    "iob1": {"B": "B", "I": "I"},
    "iobes": {"B": "B", "I": "I", "E": "E", "S": "S", "M": "I", "W": "S"},
    "bilou": {"B": "B", "I": "I", "L": "E", "U": "S"},
}
SCHEMES = (*LETTERS, NONE)

Entity = tuple[int, int, str]  # its first word, the word behind its last, its type


@lru_cache(maxsize=2**16)
def parse(tag: str, scheme: str) -> tuple[str, str] | None:
    """What a tag says: the part that its word plays (B, I, E, S or O) and the entity's type; None if it is no
    tag of the scheme. The type of a bare letter is "_". Without a scheme a tag is itself a type."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if scheme == NONE:
        return "I", tag
    letter, _, kind = tag.partition("-")
    part = LETTERS[scheme].get(letter)
    return None if part is None else (part, kind or "_")


@lru_cache(maxsize=2**16)
def may_follow(before: str | None, after: str | None, scheme: str) -> bool:
    """Whether a tag may stand behind another one; None is the edge of a sentence. The scheme has no rule for
    what is none of its tags.

    IOB1 (Ramshaw and Marcus 1995, arXiv:cmp-lg/9505040) begins an entity with I-, and with B- only behind
    another one of the same type; IOB2 always with B-. IOBES and BILOU also mark the last word of an entity,
    and one of a single word (Ratinov and Roth 2009, https://aclanthology.org/W09-1119).
    """
    parsed_before, parsed = parse(before or OUTSIDE, scheme), parse(after or OUTSIDE, scheme)
    if scheme == NONE or parsed_before is None or parsed is None:
        return True
    (part_before, kind_before), (part, kind) = parsed_before, parsed
    is_open = part_before in ("B", "I")
    goes_on = is_open and kind == kind_before
    if scheme == "iob1":
        return part != "B" or goes_on
    if scheme == "iob2":
        return part != "I" or goes_on
    return (goes_on and part in ("I", "E")) if is_open else part not in ("I", "E")


def steps(tags: Sequence[str]) -> Iterable[tuple[str | None, str | None]]:
    """Each tag of a sentence and the next one, with None at both edges."""
    return pairwise([None, *tags, None])


def first_fault(tags: Sequence[str], scheme: str) -> int | None:
    """The place of the first word whose tag may not follow the one before, or the number of words if the last
    one may not end a sentence; None if all may."""
    return next((n for n, step in enumerate(steps(tags)) if not may_follow(*step, scheme)), None)


def tell(
    counts: Counter[tuple[str | None, str | None]], names: Iterable[str], likely: str | None = None
) -> str:
    """The scheme against which the fewest words stand: a tag that is none of it, or one that may not follow
    the tag before. Tags among which none begins like B- have no scheme.

    Args:
        counts: how often each of `steps` was found in all sentences.
        names: further tags that there are, perhaps without a sentence.
        likely: the scheme to prefer if several fit as well.
    """
    tags = sorted({*names, *(after for _, after in counts if after is not None)} - {OUTSIDE})
    fit = {scheme: sum(parse(tag, scheme) is not None for tag in tags) for scheme in LETTERS}
    # A bare letter says something only among its like: S is also a part of speech.
    marked = any(parse(tag, scheme) for tag in tags if "-" in tag for scheme in LETTERS)
    if not tags or not (marked or max(fit.values()) == len(tags)):
        return NONE
    if not counts and not any(tag.startswith("B") for tag in tags):
        likely = likely or "iob1"

    def against(scheme: str) -> int:
        wrong = (
            count
            for (before, after), count in counts.items()
            if parse(after or OUTSIDE, scheme) is None or not may_follow(before, after, scheme)
        )
        return sum(wrong) + len(tags) - fit[scheme]

    return min(LETTERS, key=lambda scheme: (against(scheme), scheme != likely))


def extract(tags: Sequence[str], scheme: str) -> list[Entity]:
    """The entities of a sentence, in order.

    Sequences that the scheme does not allow are read as conlleval does (Tjong Kim Sang and Buchholz 2000,
    https://aclanthology.org/W00-0726): an entity begins with a word that cannot go on with the one before,
    and ends before a word that does not go on with it. Without a scheme words of the same tag that stand
    together are an entity. What is no tag of the scheme is outside.
    """
    entities: list[Entity] = []
    begun, before, kind_before = 0, OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        part, kind = parse(tag, scheme) or (OUTSIDE, "")
        goes_on = before in ("B", "I") and part in ("I", "E") and kind == kind_before
        if not goes_on:
            if before != OUTSIDE:
                entities.append((begun, place, kind_before))
            begun = place
        before, kind_before = part, kind
    return entities


def write(entities: Iterable[Entity], words: int, scheme: str, names: Collection[str]) -> list[str]:
    """The tags of a sentence with these entities.

    Args:
        scheme: not NONE.
        names: the tags that there are, which show how they are spelled (S or W, a type or none).
    """
    spelled = {parse(name, scheme): name for name in sorted(names)}
    letter = {part: letter for letter, part in reversed(LETTERS[scheme].items())}
    tags, end_before, kind_before = [OUTSIDE] * words, 0, None
    for start, end, kind in entities:
        parts = ["B", *["I"] * (end - start - 1)]
        if scheme == "iob1" and not (start == end_before and kind == kind_before):
            parts[0] = "I"
        if "E" in letter:
            parts[-1] = "E" if len(parts) > 1 else "S"
        tags[start:end] = [
            spelled.get((part, kind), f"{letter[part]}-{kind}".removesuffix("-_")) for part in parts
        ]
        end_before, kind_before = end, kind
    return tags


def mend(tags: Sequence[str], scheme: str, names: Collection[str]) -> list[str]:
    """The tags of a sentence, written anew from the entities that `extract` reads in them if the scheme does
    not allow them as they are; those that are no tags of the scheme prevent that.

    Args:
        names: see `write`.
    """
    if first_fault(tags, scheme) is None or any(parse(tag, scheme) is None for tag in tags):
        return list(tags)
    return write(extract(tags, scheme), len(tags), scheme, names)


def by_type(names: Iterable[str], scheme: str) -> list[str]:
    """Tags in the order of their numbers in a model: O, then those of each type together."""

    def place(name: str) -> tuple[str, int, str]:
        part, kind = parse(name, scheme) or (OUTSIDE, "")
        return (kind, "OBIES".index(part), name)

    return sorted(names, key=place)
