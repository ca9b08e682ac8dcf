"""SQuAD's own JSON: articles that hold paragraphs, which hold questions (Rajpurkar et al. 2016,
arXiv:1606.05250, and 2018, arXiv:1806.03822)."""

from collections.abc import Iterator
from typing import Any, TypeGuard

Rows = Iterator[tuple[str, dict[str, Any]]]


def unfolded(rows: Rows, problems: list[str]) -> Rows:
    """The questions of rows that are articles, `{"title", "paragraphs": [{"context", "qas": [...]}]}`, or
    paragraphs alone; every other row as it is.

    A question becomes a row with `title`, `id`, `question`, `context` and `answers`, as the hub's SQuAD has
    them: `{"text": [...], "answer_start": [...]}`, empty with `is_impossible`, null where it has none.

    Args:
        rows: with where each stands.
        problems: takes what is wrong with the form of an article.
    """
    for where, row in rows:
        held = row.get("paragraphs")
        if _is_list_of_objects(held) and any("qas" in one for one in held):
            paragraphs = [(f"{where}, paragraph {n}", one) for n, one in enumerate(held, 1)]
        elif "context" in row and _is_list_of_objects(row.get("qas")):
            paragraphs = [(where, row)]
        else:
            yield where, row
            continue
        for place, paragraph in paragraphs:
            yield from _questions(place, paragraph, str(row.get("title") or ""), problems)


def _questions(where: str, paragraph: dict[str, Any], title: str, problems: list[str]) -> Rows:
    context, questions = paragraph.get("context"), paragraph.get("qas")
    if not isinstance(context, str) or not _is_list_of_objects(questions):
        problems.append(f"{where}: a context (text) and qas (a list of questions) were expected.")
        return
    for number, asked in enumerate(questions, 1):
        place, question = f"{where}, question {number}", asked.get("question")
        answers = asked.get("answers")
        if not isinstance(question, str):
            problems.append(f"{place}: its question must be a text.")
            continue
        if answers is not None and not _is_list_of_objects(answers):
            problems.append(f"{place}: its answers must be a list of {{text, answer_start}}.")
            continue
        if asked.get("is_impossible") is True:
            answers = []
        columns = None
        if answers is not None:
            columns = {name: [one.get(name) for one in answers] for name in ("text", "answer_start")}
        row = {"title": title, "id": asked.get("id"), "question": question, "context": context}
        yield place, row | {"answers": columns}


def _is_list_of_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
