"""Says which part of the tests concerns what has changed since a commit.

    python3 tools/changed.py COMMIT

Prints variables for `make test-examples`: `TASK=summarization` if nothing but folders of that task changed,
`FRAMEWORK=flax` if nothing but what one framework has for itself, `NOTHING=yes` if it was text alone. If it
prints nothing, everything is concerned. Changes that are not committed count as well.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import manifest

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = ("pytorch", "tensorflow", "flax")
# No suite but those of `make check` and of frozen projects looks at these.
TEXT = ("docs", "benchmarks", "legacy", "research_projects", "LICENSE")


def changed(root: Path, commit: str) -> list[str]:
    """The paths that differ between a commit and the folder."""
    commands = (
        ["git", "diff", "--name-only", "--no-renames", commit],
        ["git", "ls-files", "--others", "--exclude-standard"],
    )
    found = [
        subprocess.run(one, cwd=root, check=True, capture_output=True, text=True).stdout for one in commands
    ]
    return "".join(found).splitlines()


def owner(path: str) -> tuple[str, str]:
    """Whose a path is: ("TASK", its name), ("FRAMEWORK", its name), ("NOTHING", "") for text, or ("", "") for
    what all share."""
    match Path(path).parts:
        case ("tests", "tasks", task, _, *_) | ("examples", _, task, _, *_):
            return "TASK", task
        case ("src", "triptych", framework, _, *_) | ("tests", framework, _, *_) if framework in FRAMEWORKS:
            return "FRAMEWORK", framework
        case (first, *rest) if first in TEXT or (not rest and path.endswith(".md")):
            return "NOTHING", ""
    return "", ""


def concerned(paths: Iterable[str], tasks: Iterable[str]) -> dict[str, str]:
    """The variables of `make` for a change of those paths."""
    owners = set(map(owner, paths)) - {("NOTHING", "")}
    kinds, names = {kind for kind, _ in owners}, sorted(name for _, name in owners)
    if not owners:
        return {"NOTHING": "yes"}
    # A task that is no longer there concerns whatever mentions it.
    if len(kinds) > 1 or kinds == {""} or (kinds == {"TASK"} and not set(names) <= set(tasks)):
        return {}
    return {kinds.pop(): ",".join(names)}


if __name__ == "__main__":
    try:
        found = concerned(changed(ROOT, sys.argv[1]), manifest.tasks(ROOT))
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
    print(" ".join(f"{name}={value}" for name, value in found.items()))
