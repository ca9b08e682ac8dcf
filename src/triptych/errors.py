"""The two exceptions that end a run with a sentence instead of a traceback, and what they quote."""

import json
from collections.abc import Iterable
from typing import Any

MOST = 10  # labels, rows or names that a message lists


class InputError(Exception):
    """Arguments, files or data that cannot be used as given; a script answers with exit code 2.

    Args:
        problems: one sentence each: what was found, and what to do about it.
    """

    def __init__(self, problems: list[str] | str):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class RunError(Exception):
    """What ended a run that was well begun: a full disk, a loss that is not finite; exit code 1."""


def shown(text: str) -> str:
    """What was found in a file, fit for one line of a message."""
    text = text if len(text) <= 100 else f"{text[:100]}…"
    return text if text.isprintable() else repr(text)


def quoted(value: Any) -> str:
    """A value that was found in a row, as JSON of at most 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"


def some(items: Iterable[Any], most: int = MOST) -> str:
    """The first of them, and how many more there are."""
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
