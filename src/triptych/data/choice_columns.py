"""Which columns hold questions, their contexts, their choices and the right one: as asked for, or by name."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence

from triptych.data import columns
from triptych.errors import InputError

logger = logging.getLogger(__name__)

# Usual names in small letters, the first that is there being taken. SWAG: sent1, sent2, ending0..3, label;
# RACE: article, question, options, answer; HellaSwag: ctx, endings, label; CommonsenseQA and ARC: question,
# choices, answerKey; OpenBookQA: question_stem, choices, answerKey; PIQA: goal, sol1, sol2, label;
# Social IQa: context, question, answerA..C, label; WinoGrande: sentence, option1, option2, answer.
NAMES: dict[str, tuple[str, ...]] = {
    "choices": ("choices", "options", "endings", "answers", "candidates", "alternatives"),
    "label": (
        *("label", "answer", "answerkey", "answer_key", "correct_answer", "correct", "gold", "target"),
        *("correct_answer_id", "answer_idx", "cop", "choice"),
    ),
    "context": ("context", "article", "passage", "paragraph", "ctx", "premise", "sent1", "story", "text"),
    "question": ("question", "question_stem", "stem", "query", "goal", "sent2", "sentence", "prompt"),
}
TEXTS = ("context", "question")
# What columns of single choices are called, with a number or a letter behind it; or a letter alone
STEMS = ("choice", "option", "ending", "answer", "sol", "solution", "alternative", "candidate", "op")
NUMBERED = re.compile(rf"({'|'.join(sorted(STEMS, key=len, reverse=True))})[ _-]?(\d+|[a-z])|()([a-z])")

# Columns by which well-known datasets are told, in small letters, and from which number their labels count
CONVENTIONS: dict[str, tuple[tuple[str, ...], int]] = {
    "SWAG": (("sent1", "ending0", "label"), 0),
    "HellaSwag": (("ctx", "endings", "label"), 0),
    "PIQA": (("goal", "sol1", "label"), 0),
    "COPA": (("premise", "choice1", "label"), 0),
    "Cosmos QA": (("context", "answer0", "label"), 0),
    "Social IQa": (("context", "answera", "label"), 1),
    "WinoGrande": (("sentence", "option1", "answer"), 1),
}
FLAGS = {
    "context": "--context_column",
    "question": "--question_column",
    "choices": "--choices_columns",
    "label": "--label_column_name",
}


def flag(role: str) -> str:
    """The flag that names the column of a role: one of FLAGS, or `choice 1` and so on."""
    return FLAGS["choices" if role.startswith("choice") else role]


def wanted(names: Mapping[str, str | None]) -> dict[str, str]:
    """Column by role, of those that flags name.

    Args:
        names: by the roles of FLAGS; of the choices one column of lists, or several: "a,b,c".
    """
    given = {role: name for role, name in names.items() if name is not None and role != "choices"}
    several = [name.strip() for name in (names["choices"] or "").split(",") if name.strip()]
    if len(several) == 1:
        return {**given, "choices": several[0]}
    return given | {f"choice {number}": name for number, name in enumerate(several, 1)}


def of_choices(by_role: Mapping[str, str]) -> list[str]:
    """The columns of the choices: one of lists, or several of a choice each, in order."""
    return [name for role, name in by_role.items() if role.startswith("choice")]


def find(
    available: Iterable[str],
    given: Mapping[str, str],
    needs_label: bool,
    tell: bool = True,
    before: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Column by role: context and question, of which one may be missing; choices, or `choice 1` and so on;
    and label.

    A column that was asked for wins; then come the one that has the role in another split, and the first
    usual name, see NAMES and STEMS; but where context or question is asked for, the other is not looked for.
    The log says what was taken by its name.

    Args:
        available: names of the columns there are.
        given: what `wanted` makes of the flags.
        needs_label: whether the label must be there.
        tell: whether the log says what was taken.
        before: column by role of another split.

    Raises:
        InputError: columns that form no question with choices, with the names that were looked for.
    """
    available = list(available)
    there_are = f"there are: {', '.join(available) or 'none'}"
    found, problems = dict(before or {}), []
    found = {role: name for role, name in found.items() if name in available and not _is_given(role, given)}
    try:
        found |= columns.resolve(
            available, dict(given), flags={role: flag(role) for role in given}, tell=False
        )
    except InputError as error:
        problems += error.problems
    free = {name.strip().lower(): name for name in reversed(available)}

    def usual(role: str) -> dict[str, str]:
        taken = {*found.values(), *given.values()}
        names = (free[name] for name in NAMES[role] if name in free and free[name] not in taken)
        first = next(names, None)
        return {} if first is None else {role: first}

    guessed: dict[str, str] = {}
    for role in NAMES:
        if role in found or _is_given(role, given) or (role == "choices" and of_choices(found)):
            continue
        if role in TEXTS and {*TEXTS} & given.keys():
            continue  # Whoever names the one does not want another.
        new = usual(role)
        if role == "choices":
            others = [name for name in available if name not in found.values()]
            new = _numbered(others, STEMS, problems) or new or _numbered(others, ("",), problems)
        guessed |= new
        found |= new
    if not of_choices(found) and not _is_given("choices", given) and not problems:
        stems = ", ".join(f"{stem}1 {stem}2" for stem in STEMS[:4])
        problems.append(
            f"Which columns are the choices? Looked for one of lists ({', '.join(NAMES['choices'])}) and for "
            f"several ({stems} …, A B …). Name them with {FLAGS['choices']}; {there_are}."
        )
    if not {*TEXTS} & (found.keys() | given.keys()):
        problems.append(
            f"Which column is the question? Looked for a question ({', '.join(NAMES['question'])}) and for a "
            f"context ({', '.join(NAMES['context'])}). Name one with {FLAGS['question']} or "
            f"{FLAGS['context']}; {there_are}."
        )
    if needs_label and "label" not in found and "label" not in given:
        problems.append(
            f"Which column is the label? Looked for {', '.join(NAMES['label'])}. Name it with "
            f"{FLAGS['label']}; {there_are}."
        )
    if problems:
        raise InputError(problems)
    if tell and not before:
        said = {role: name for role, name in guessed.items() if name.strip().lower() != role}
        if said:
            logger.warning(
                "Taking the column %s; the flags %s name others.",
                ", ".join(f"{name!r} for the {role}" for role, name in said.items()),
                ", ".join(dict.fromkeys(map(flag, said))),
            )
    return found


def _is_given(role: str, given: Mapping[str, str]) -> bool:
    return role in given or (role.startswith("choice") and bool(of_choices(given)))


def _numbered(available: Iterable[str], stems: Sequence[str], problems: list[str]) -> dict[str, str]:
    """Columns of a choice each by role, of the first of the stems that has two or more; what is wrong with
    their numbers is added to `problems`."""
    by_stem: dict[tuple[str, bool], dict[int, str]] = {}
    for name in available:
        if match := NUMBERED.fullmatch(name.strip().lower()):
            stem, sign = (group for group in match.groups() if group is not None)
            number = int(sign) if sign.isdigit() else ord(sign) - ord("a")
            by_stem.setdefault((stem, sign.isdigit()), {})[number] = name
    several = [stem for stem, own in by_stem.items() if stem[0] in stems and len(own) > 1]
    if not several:
        return {}
    of_stem = by_stem[min(several, key=lambda stem: stems.index(stem[0]))]
    in_order = dict(sorted(of_stem.items()))
    first, last = min(in_order), max(in_order)
    if first > 1 or len(in_order) != last - first + 1:
        problems.append(
            f"The columns of choices, {', '.join(in_order.values())}, do not follow one another: name those "
            f"that are meant with {FLAGS['choices']}."
        )
    return {f"choice {number}": name for number, name in enumerate(in_order.values(), 1)}


def convention(by_role: Mapping[str, str]) -> tuple[str, int] | None:
    """The dataset that columns are those of, and the number by which its labels call the first choice."""
    names = {name.strip().lower() for name in by_role.values()}
    known = ((name, first) for name, (own, first) in CONVENTIONS.items() if names >= {*own})
    return next(known, None)
