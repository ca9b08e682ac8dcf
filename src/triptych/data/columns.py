"""Which column plays which role: as asked for, as known of the dataset, or as the columns' names say."""

import difflib
import logging
from collections.abc import Iterable, Mapping

from triptych.errors import InputError

logger = logging.getLogger(__name__)

# The columns of well-known datasets, by the last part of their name.
KNOWN: dict[str, dict[str, str]] = {
    "aeslc": {"text": "email_body", "summary": "subject_line"},
    "amazon_polarity": {"text": "content", "label": "label"},
    "amazon_reviews_multi": {"text": "review_body", "summary": "review_title"},
    "big_patent": {"text": "description", "summary": "abstract"},
    "billsum": {"text": "text", "summary": "summary"},
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
    "text": ("article", "body", "content", "dialogue", "document", "sentence", "source"),
    "summary": ("abstract", "headline", "highlights", "target", "title", "tldr"),
    "label": ("category", "class", "labels", "sentiment", "topic"),
}


def text_roles(names: str | None) -> dict[str, str | None]:
    """The roles text and text_pair as a flag names their columns: "premise,hypothesis", or one."""
    first, comma, second = (names or "").partition(",")
    return {"text": first.strip() or None} | ({"text_pair": second.strip()} if comma else {})


def resolve(
    available: Iterable[str],
    wanted: dict[str, str | None],
    dataset_name: str | None = None,
    flags: Mapping[str, str] | None = None,
    tell: bool = True,
) -> dict[str, str]:
    """The column for each role.

    A column that was asked for wins; then come the known columns of the dataset, a column with the role's
    own name (in any case), and the only column with one of its other names, which the log says. Nothing else
    is guessed.

    Args:
        available: names of the columns there are.
        wanted: column by role as asked for, or None: `{"text": None, "summary": "headline"}`.
        dataset_name: a name on the hub or a path.
        flags: by role, the flag that names its column; by default that of the role `text` is `--text_column`.
        tell: whether the log says which column was taken by another of its role's names.

    Raises:
        InputError: for every role whose column is missing, cannot be told, or is another role's as well.
    """
    available = list(available)
    known = KNOWN.get((dataset_name or "").rstrip("/").rsplit("/", 1)[-1].lower(), {})
    there_are = f"there are: {', '.join(available) or 'none'}"
    flags = {role: f"--{role}_column" for role in wanted} | dict(flags or {})
    columns: dict[str, str] = {}
    problems = []
    for role, name in wanted.items():
        if name is not None:
            if name not in available:
                close = _alike(name, available)
                meant = f"did you mean {close!r}? " if close else ""
                problems.append(f"{flags[role]} {name!r}: no such column; {meant}{there_are}.")
        elif known.get(role) in available:
            name = known[role]
        else:
            own_name = [column for column in available if column.strip().lower() == role]
            candidates = own_name or [c for c in available if c.strip().lower() in ALIASES.get(role, ())]
            candidates = [column for column in candidates if column not in wanted.values()]
            if len(candidates) == 1:
                name = candidates[0]
                if tell and name != role:
                    logger.warning(
                        "Taking the column %r for the %s; %s names another.", name, role, flags[role]
                    )
            else:
                several = f" ({' or '.join(candidates)}?)" if candidates else ""
                problems.append(
                    f"Which column is the {role}{several}? Name it with {flags[role]}; {there_are}."
                )
        if name is not None:
            columns[role] = name
    for role, name in columns.items():
        others = [other for other in columns if columns[other] == name]
        if others[0] != role:
            problems.append(f"{flags[role]} and {flags[others[0]]} are both {name!r}: they must differ.")
    if problems:
        raise InputError(problems)
    return columns


def _alike(name: str, available: list[str]) -> str | None:
    lowered = {column.lower(): column for column in reversed(available)}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    return lowered[close[0]] if close else None
