"""The tasks, each described by `tests/tasks/<task>/manifest.toml`; and README's table of them.

    python3 tools/manifest.py      writes the table

A task is what has a folder there: no other list names it.
"""

import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path("tests/tasks")
# The forms that a task may have, with their headings in the table.
FORMS = {
    "pytorch-trainer": "PyTorch, Trainer",
    "pytorch-accelerate": "PyTorch, loop on Accelerate",
    "tensorflow": "TensorFlow",
    "flax": "JAX",
}
BEGIN, END = "<!-- tasks: made by `make fix-copies` -->\n", "<!-- end of tasks -->\n"


def tasks(root: Path) -> dict[str, dict[str, Any]]:
    """The manifests by task: by their `order` where they have one, then by name."""
    found = {
        path.parent.name: tomllib.loads(path.read_text()) for path in root.glob(f"{FOLDER}/*/manifest.toml")
    }
    return dict(sorted(found.items(), key=lambda item: (item[1].get("order", len(found)), item[0])))


def scripts(root: Path) -> dict[str, str]:
    """The form of every script, by the script's path."""
    return {path: form for task in tasks(root).values() for form, path in task["scripts"].items()}


def table(root: Path) -> str:
    """README's table: what each task is scored by, and the folders of its scripts."""
    lines = [["task", "metrics", *FORMS.values()], ["---"] * (2 + len(FORMS))]
    for task in tasks(root).values():
        folders = {form: Path(script).parent.as_posix() for form, script in task["scripts"].items()}
        ticks = [f"[✓]({folders[form]})" if form in folders else "" for form in FORMS]
        lines.append([task["title"], task["metrics"], *ticks])
    return as_table(lines)


def as_table(rows: list[list[str]]) -> str:
    """A table of Markdown; the second row is the line under the head."""
    lines = (f"| {' | '.join(cells)} |\n" for cells in rows)
    return "".join(line.replace(" --- ", "---").replace("--- ", "---") for line in lines)


def with_table(readme: str, root: Path) -> str:
    """README with the table between its two marks; see `between`."""
    return between(readme, BEGIN, END, table(root))


def between(readme: str, begin: str, end: str, content: str) -> str:
    """A README with the content between two marks, which are lines.

    Raises:
        ValueError: the marks are not there, once each.
    """
    if (readme.count(begin), readme.count(end)) != (1, 1):
        raise ValueError(f"README.md needs a line {begin.strip()} and a line {end.strip()}")
    before, _, rest = readme.partition(begin)
    return before + begin + content + end + rest.partition(end)[2]


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    readme = root / "README.md"
    readme.write_text(with_table(readme.read_text(), root))
