"""Which column plays which role: as asked for, as known of the dataset, or as the columns' names say."""

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from triptych.errors import InputError

logger = logging.getLogger(__name__)

# The columns of well-known datasets, by the last part of their name.
KNOWN: dict[str, dict[str, str]] = {
    "aeslc": {"text": "email_body", "summary": "subject_line"},
    "amazon_polarity": {"text": "content", "label": "label"},
    "amazon_reviews_multi": {"text": "review_body", "summary": "review_title"},
    "beans": {"image": "image", "label": "labels"},
    "big_patent": {"text": "description", "summary": "abstract"},
    "billsum": {"text": "text", "summary": "summary"},
    "cifar10": {"image": "img", "label": "label"},
    "cifar100": {"image": "img", "label": "fine_label"},
    "cnn_dailymail": {"text": "article", "summary": "highlights"},
    "dbpedia_14": {"text": "content", "label": "label"},
    "dialogsum": {"text": "dialogue", "summary": "summary"},
    "gigaword": {"text": "document", "summary": "summary"},
    "mlsum": {"text": "text", "summary": "summary"},
    "multi_news": {"text": "document", "summary": "summary"},
    "orange_sum": {"text": "text", "summary": "summary"},
    "pn_summary": {"text": "article", "summary": "summary"},
    "psc": {"text": "extract_text", "summary": "summary_text"},
    "reddit_tifu": {"text": "documents", "summary": "tldr"},
    "samsum": {"text": "dialogue", "summary": "summary"},
    "scientific_papers": {"text": "article", "summary": "abstract"},
    "snli": {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    "thaisum": {"text": "body", "summary": "title"},
    "trec": {"text": "text", "label": "coarse_label"},
    "wiki_summary": {"text": "article", "summary": "highlights"},
    "xglue": {"text": "news_body", "summary": "news_title"},
    "xlsum": {"text": "text", "summary": "summary"},
    "xsum": {"text": "document", "summary": "summary"},
}

# Other names of a role's column in people's own files.
ALIASES: dict[str, tuple[str, ...]] = {
    "text": ("article", "body", "content", "dialogue", "document", "sentence", "sentence1", "source"),
    "summary": ("abstract", "headline", "highlights", "target", "title", "tldr"),
    "source": ("src", "source_text", "sentence", "text"),
    "target": ("tgt", "target_text", "reference", "translation"),
    "image": ("img", "picture", "photo", "file_name", "filename", "file", "image_path", "path"),
    "label": ("category", "class", "labels", "sentiment", "topic"),
}


# Columns of words and of their tags by task, of which a file may have several: the first that is there
TOKENS = ("tokens", "words", "token", "word", "form", "sentence", "text")
OTHER_TAGS = ("tags", "labels", "label", "entities", "spans")
TAGS: dict[str, tuple[str, ...]] = {
    "ner": ("ner_tags", "ner", *OTHER_TAGS),
    "pos": ("pos_tags", "upos", "pos", *OTHER_TAGS[:3]),
    "chunk": ("chunk_tags", "chunk", "chunks", *OTHER_TAGS[:3]),
}


# Columns of pairs of texts, in the order of the pair
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)


# Columns that number the rows, the first as pandas writes them; never taken for anything unless named
NUMBERS = ("", "unnamed: 0", "id", "idx", "index", "guid")


def joined(names: str | None, delimiter: str | None) -> list[str]:
    """The columns whose texts are joined to one: all, if there are more than two or a delimiter is given."""
    found = [name.strip() for name in (names or "").split(",") if name.strip()]
    return found if len(found) > (2 if delimiter is None else 1) else []


def text_roles(names: str | None, delimiter: str | None = None) -> dict[str, str | None]:
    """The roles text and text_pair as a flag names their columns: "premise,hypothesis", or one, or several
    that are joined; without a name either may be found."""
    if several := joined(names, delimiter):
        return {"text": name_of_joined(several)}
    first, comma, second = (names or "").partition(",")
    if not first.strip():
        return {"text": None, "text_pair": None}
    roles: dict[str, str | None] = {"text": first.strip()}
    return roles | ({"text_pair": second.strip()} if comma else {})


def name_of_joined(names: Iterable[str]) -> str:
    """The name of the column that `data.load` makes of several."""
    return " + ".join(names)


def resolve(
    available: Iterable[str],
    wanted: dict[str, str | None],
    dataset_name: str | None = None,
    flags: Mapping[str, str] | None = None,
    tell: bool = True,
    before: Mapping[str, str] | None = None,
    not_guessed: Iterable[str] = (),
    in_order: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, str]:
    """The column for each role.

    A column that was asked for wins; then come the one that has the role in another split, the first of
    `in_order`, the known columns of the dataset, a column with the role's own name (in any case), a pair of
    `PAIRS` where pairs are wanted, and the only column with one of the role's other names. Where there are as
    many columns as roles (beside those of `NUMBERS`), those left over go to the roles left over, in order.
    The log says what was taken by anything but its own name.

    Args:
        available: names of the columns there are.
        wanted: column by role as asked for, or None: `{"text": None, "summary": "headline"}`. A `text_pair`
            of None may be missing.
        dataset_name: a name on the hub or a path.
        flags: by role, the flag that names its column; by default that of the role `text` is `--text_column`.
        tell: whether the log says what was taken.
        before: column by role of another split.
        not_guessed: roles that no column left over is taken for.
        in_order: names by role, in small letters, for files that have several such columns.

    Raises:
        InputError: for every role whose column is missing, cannot be told, or is another role's as well.
    """
    available = list(available)
    known = KNOWN.get((dataset_name or "").rstrip("/").rsplit("/", 1)[-1].lower(), {})
    there_are = f"there are: {', '.join(available) or 'none'}"
    flags = {role: f"--{role}_column" for role in wanted} | dict(flags or {})
    columns = {role: name for role, name in wanted.items() if name is not None}
    problems = []
    for role, name in columns.items():
        if name not in available:
            close = _alike(name, available)
            meant = f"did you mean {close!r}? " if close else ""
            problems.append(f"{flags[role]} {name!r}: no such column; {meant}{there_are}.")
    open_roles = [role for role in wanted if role not in columns]
    if before:
        columns |= {role: before[role] for role in open_roles if before.get(role) in available}
    if "text" in open_roles:
        columns |= _pair(available, wanted, known, columns)
    candidates = {
        role: _candidates(role, available, known, wanted.values(), (in_order or {}).get(role, ()))
        for role in open_roles
        if role not in columns
    }
    columns |= {role: found[0] for role, found in candidates.items() if len(found) == 1}
    missing = [role for role in wanted if role not in columns and not role.endswith("_pair")]
    left_over = [c for c in available if c not in columns.values() and c.strip().lower() not in NUMBERS]
    may_guess = not problems and not before and not set(missing) & set(not_guessed)
    if may_guess and len(missing) == len(left_over):
        columns |= dict(zip(missing, left_over, strict=True))
        missing = []
    for role in missing:
        several = f" ({' or '.join(candidates[role])}?)" if candidates[role] else ""
        problems.append(f"Which column is the {role}{several}? Name it with {flags[role]}; {there_are}.")
    columns = {role: columns[role] for role in wanted if role in columns}
    for role, name in columns.items():
        others = [other for other in columns if columns[other] == name]
        if others[0] != role:
            problems.append(f"{flags[role]} and {flags[others[0]]} are both {name!r}: they must differ.")
    if problems:
        raise InputError(problems)
    taken = [role for role in open_roles if role in columns and columns[role] not in (role, known.get(role))]
    if tell and taken and not before:
        said = [f"{columns[role]!r} for the {role.replace('_', ' ')} ({flags[role]})" for role in taken]
        logger.warning("Taking the column %s; the flag names another.", ", ".join(said))
    return columns


def _candidates(
    role: str, available: list[str], known: Mapping[str, str], asked: Iterable[Any], in_order: Iterable[str]
) -> list[str]:
    """The columns that may have a role by what is known of the dataset, or by their names."""
    lowered = {column.strip().lower(): column for column in reversed(available) if column not in asked}
    if first := next((lowered[name] for name in in_order if name in lowered), None):
        return [first]
    if known.get(role) in available:
        return [known[role]]
    own_name = [column for column in available if column.strip().lower() == role]
    found = own_name or [column for column in available if column.strip().lower() in ALIASES.get(role, ())]
    return [column for column in found if column not in asked]


def _pair(
    available: list[str], wanted: Mapping[str, str | None], known: Mapping[str, str], found: Mapping[str, str]
) -> dict[str, str]:
    """The columns of a pair of texts, if pairs are wanted and nothing else is the text."""
    lowered = {column.strip().lower(): column for column in reversed(available)}
    if "text_pair" not in wanted or {"text", "text_pair"} & found.keys() or "text" in lowered:
        return {}
    if known.get("text") in available:
        return {}
    pairs = [pair for pair in PAIRS if set(pair) <= lowered.keys()]
    return (
        dict(zip(("text", "text_pair"), (lowered[name] for name in pairs[0]), strict=True)) if pairs else {}
    )


def _alike(name: str, available: list[str]) -> str | None:
    lowered = {column.lower(): column for column in reversed(available)}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    return lowered[close[0]] if close else None
