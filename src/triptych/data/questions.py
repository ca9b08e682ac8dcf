"""Questions with the texts that hold their answers, and where in these: from all forms of rows to one."""

import re
from functools import partial
from typing import Any, TypeGuard

from triptych.data.conversions import PROBLEMS, convert
from triptych.data.sources import is_stream
from triptych.errors import InputError, quoted, some

ANSWERS, START, ID = "answers", "answer_start", "id"  # roles
# Usual names of columns, in small letters; the first that a file has
NAMES = {
    "question": ("question", "query"),
    "context": ("context", "passage", "paragraph", "article", "document", "text"),
    ANSWERS: ("answers", "answer", "answer_text"),
}
LONGEST_CONTEXT = 1 << 24  # characters: places beyond are no numbers of float32, in which models answer
NO_ANSWER = -1  # the character where no answer begins, of the token that stands for it

Found = tuple[str, int]  # an answer as it stands in its context, and where


def prepare(rows: Any, columns: dict[str, str], split: str, data_args: Any) -> tuple[Any, dict[str, str]]:
    """The rows with the columns `id`, `question`, `context`, all strings, and, if they have any, `answers`,
    `{"text": [...], "start": [...]}`: what stands in the context, and from which character (code point).

    Without an id a row has its number, from 1. An answer without a start is found where it occurs once.
    White space counts as one blank where an answer is looked for, and none at its ends belongs to it. No
    answers mean that the context has none, with `--version_2_with_negative`; null means that they are not
    known, which only rows to predict may say. Of these the column goes if none has an answer.

    Args:
        rows: as `load_splits` gives them.
        columns: by role: question and context, and perhaps answers, answer_start and id.
        data_args: version_2_with_negative, overwrite_cache.

    Raises:
        InputError: columns of other values; ids that are there twice; rows without an answer that are to have
            one. In at most ten rows, numbered as in their source: an answer that is not where it is said to
            be, or occurs not once.
    """
    import datasets

    rows = rows.select_columns(list(dict.fromkeys(columns.values())))
    text = datasets.Value("string")
    features: dict[str, Any] = dict.fromkeys((ID, "question", "context"), text)
    if ANSWERS in columns:
        features[ANSWERS] = {"text": datasets.List(text), "start": datasets.List(datasets.Value("int64"))}
    may_lack = data_args.version_2_with_negative or split.startswith("test")
    strict = is_stream(rows) and not may_lack
    make = partial(_of_chunk, columns=columns, split=split, strict=strict)
    problems = _twice(rows, columns, split) + ([] if may_lack else _lacking(rows, columns, split))
    try:
        made = convert(
            rows,
            make,
            datasets.Features(features),
            f"Reading questions of {split}",
            data_args.overwrite_cache,
        )
    except InputError as error:
        raise InputError([*error.problems, *problems]) from None
    if problems:
        raise InputError(problems)
    roles = {name: name for name in features}
    if is_stream(made):
        return made, roles
    if split.startswith("test") and ANSWERS in roles and not any(map(holds, made[ANSWERS])):
        made = made.remove_columns(roles.pop(ANSWERS))
    return made, roles


def more_columns(available: list[str], found: dict[str, str], removed: str | None) -> dict[str, str]:
    """The columns of ids and of places of answers, by role, where there are any that have no other role."""
    taken = {*found.values(), *(name.strip() for name in (removed or "").split(","))}
    lowered = {name.strip().lower(): name for name in reversed(available) if name not in taken}
    wanted = (ID, START) if ANSWERS in found else (ID,)
    return {role: lowered[role] for role in wanted if role in lowered}


def holds(answers: Any) -> TypeGuard[dict[str, list]]:
    """Whether answers, as `prepare` makes them, are known and more than none."""
    return answers is not None and bool(answers["text"])


def _lacking(rows: Any, columns: dict[str, str], split: str) -> list[str]:
    """Which rows have a question and a context, but no answer."""
    if ANSWERS not in columns or is_stream(rows):
        return []

    def lacks(question: Any, context: Any, answers: Any, start: Any = None) -> bool:
        if not (isinstance(question, str) and isinstance(context, str) and _is_whole(question, context)):
            return False
        try:
            return not _listed(answers, start, split)
        except InputError:  # told with the other rows
            return False

    given = [rows[columns[role]] for role in ("question", "context", ANSWERS, START) if role in columns]
    lacking = [number for number, row in enumerate(zip(*given, strict=True), 1) if lacks(*row)]
    if not lacking:
        return []
    return [
        f"{split}: {len(lacking)} of {len(rows)} rows have no answer: row {some(lacking)}. Give "
        "--version_2_with_negative if their contexts hold none, else leave them out."
    ]


def _is_whole(question: str | None, context: str | None) -> bool:
    """Whether a row is one that is not left out."""
    return bool((question or "").strip() and (context or "").strip())


def _twice(rows: Any, columns: dict[str, str], split: str) -> list[str]:
    """Which ids are there more than once."""
    if ID not in columns or is_stream(rows):
        return []
    numbers: dict[str, list[int]] = {}
    for number, value in enumerate(rows[columns[ID]], 1):
        if value not in (None, ""):
            numbers.setdefault(str(value), []).append(number)
    shown = [f"{name!r} (rows {some(found)})" for name, found in numbers.items() if len(found) > 1]
    if not shown:
        return []
    return [
        f"{split}: ids that are there more than once: {some(shown)}. Answers are written by their ids: "
        f"give each row its own, or leave the column out with --remove_columns {columns[ID]}."
    ]


def _of_chunk(
    chunk: dict[str, list], numbers: list[int], columns: dict[str, str], split: str, strict: bool
) -> dict[str, list]:
    """The new columns, and what is wrong."""
    made: dict[str, list] = {name: [] for name in (ID, "question", "context", ANSWERS, PROBLEMS)}
    for place, number in enumerate(numbers):
        row = {role: chunk[name][place] for role, name in columns.items()}
        where = f"{split}, row {number + 1}"
        for role in ("question", "context"):
            if not isinstance(row[role], str | None):
                wanted = f"{where}: a text was expected for the {role}, not {quoted(row[role])}"
                raise InputError(f"{wanted}; --{role}_column names another column.")
            made[role].append(row[role])
        name = row.get(ID)
        made[ID].append(str(number + 1) if name in (None, "") else str(name))
        context, is_whole, problems = row["context"] or "", _is_whole(row["question"], row["context"]), []
        if len(context) >= LONGEST_CONTEXT:
            problems.append(f"a context of {len(context):,} characters is longer than {LONGEST_CONTEXT:,}.")
        listed = _listed(row.get(ANSWERS), row.get(START), where)
        if listed is None and not split.startswith("test"):
            listed = []
        found: list[Found] = []
        for text, start in (listed or ()) if is_whole else ():
            answer, problem = find(text, start, context)
            found += [answer] if answer else []
            problems += [problem] if problem else []
        if strict and is_whole and not listed:
            problems.append("no answer; --version_2_with_negative takes it for a question that has none.")
        texts, starts = [text for text, _ in found], [start for _, start in found]
        made[ANSWERS].append(None if listed is None else {"text": texts, "start": starts})
        made[PROBLEMS].append([f"{where}: {problem}" for problem in problems])
    if ANSWERS not in columns:
        del made[ANSWERS]
    return made


def _listed(value: Any, start: Any, where: str) -> list[tuple[str, Any]] | None:
    """Texts and starts of the answers of a row, however they are written; None where they are not known.

    Raises:
        InputError: for a value of another kind, as then those of other rows are likely to be.
    """
    if value is None:
        return None
    if isinstance(value, dict):
        value, start = value.get("text"), value.get("answer_start", value.get("start"))
    elif isinstance(value, list) and all(isinstance(one, dict) for one in value):
        start = [one.get("answer_start", one.get("start")) for one in value]
        value = [one.get("text") for one in value]
    texts = value if isinstance(value, list) else [] if value is None else [value]
    starts = start if isinstance(start, list) else [start] * len(texts)
    if not all(isinstance(text, str) for text in texts) or (starts and len(starts) != len(texts)):
        raise InputError(
            f"{where}: answers were expected as a text, or as texts with as many starts, not {quoted(value)} "
            f"with {quoted(start)}; --answer_column names another column."
        )
    return [
        (text, one) for text, one in zip(texts, starts or [None] * len(texts), strict=True) if text.strip()
    ]


def find(text: str, start: Any, context: str) -> tuple[Found | None, str | None]:
    """An answer as it stands in its context, with its first character's place; or what is wrong with it.

    Args:
        start: where it is said to be, as a number or its digits; nothing (None, or an empty text) for
            anywhere, if it occurs once.
    """
    whole = text.strip()
    if isinstance(start, int) and start >= 0:
        begins = start + len(text) - len(text.lstrip())
        if context.startswith(whole, begins):
            return (whole, begins), None
    pattern = r"\s+".join(map(re.escape, whole.split()))
    places = [match.start() for match in re.finditer(f"(?={pattern})", context)]
    if start is None or start == "":
        if len(places) == 1:
            return _at(pattern, places[0], context), None
        if not places:
            return None, f"the answer {quoted(text)} does not occur in its context, {quoted(context)}."
        return None, (
            f"the answer {quoted(text)} occurs at {len(places)} places ({some(places)}): give its "
            f"{START}, which counts characters."
        )
    try:
        said = int(start)
    except (TypeError, ValueError):
        return None, f"{START} {quoted(start)} is no number of characters."
    begins = said if said >= 0 else len(context)
    while begins < len(context) and context[begins].isspace():
        begins += 1
    if begins in places:
        return _at(pattern, begins, context), None
    stands = quoted(context[said : said + len(text)]) if 0 <= said < len(context) else "nothing"
    other = f"It occurs at {some(places)}" if places else "It occurs nowhere in the context"
    return None, (
        f"the answer {quoted(text)} is not at {START} {said}, where {stands} stands. {other}; {START} counts "
        "characters (code points) from 0."
    )


def _at(pattern: str, place: int, context: str) -> Found:
    match = re.compile(pattern).match(context, place)
    assert match is not None
    return match[0], place
