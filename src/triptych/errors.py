"""The two exceptions that end a run with a sentence instead of a traceback."""


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
