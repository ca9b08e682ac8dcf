"""Copies what must be the same in all forms of a task from its PyTorch Trainer script into the others.

    python3 tools/fix_copies.py

These are plain Python or numpy that a user edits: `preprocess`, `collate`, `predict`, `score`, and the task's
arguments.
"""

import ast
import sys
from pathlib import Path

import manifest

FUNCTIONS = ("preprocess", "collate", "predict", "score")
SOURCE = "pytorch-trainer"


def shared_parts(script: str) -> dict[str, tuple[int, int]]:
    """First and last line, as a slice, of each definition at the top of a script that its forms share."""
    return {
        node.name: (
            min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1,
            node.end_lineno,
        )
        for node in ast.parse(script).body
        if (isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS)
        or (isinstance(node, ast.ClassDef) and node.name.endswith("Arguments"))
    }


def with_copies(source: str, script: str) -> str:
    """A script with its shared parts replaced by those of another.

    Raises:
        ValueError: the two do not define the same parts.
    """
    wanted, found = shared_parts(source), shared_parts(script)
    if wanted.keys() != found.keys():
        raise ValueError(f"defines {sorted(found)}, but the Trainer script defines {sorted(wanted)}")
    source_lines, lines = source.split("\n"), script.split("\n")
    for name, (first, last) in sorted(found.items(), key=lambda item: item[1], reverse=True):
        lines[first:last] = source_lines[slice(*wanted[name])]
    return "\n".join(lines)


def pairs(root: Path) -> list[tuple[Path, Path]]:
    """Source and script of every other form of every task."""
    return [
        (root / task["scripts"][SOURCE], root / path)
        for task in manifest.tasks(root).values()
        for form, path in task["scripts"].items()
        if form != SOURCE
    ]


if __name__ == "__main__":
    for source, script in pairs(Path(__file__).resolve().parents[1]):
        before = script.read_text()
        try:
            after = with_copies(source.read_text(), before)
        except ValueError as error:
            sys.exit(f"{script}: {error}.")
        if after != before:
            script.write_text(after)
            print(f"changed {script}")
