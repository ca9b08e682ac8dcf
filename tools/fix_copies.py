"""Copies what must be the same text in several scripts, and makes their headers and README's table of tasks.

    python3 tools/fix_copies.py

Across the forms of a task, from its PyTorch Trainer script: the task's arguments and the functions that are
plain Python or numpy. Across the tasks of a form, from the first task's script: the loop, that is whole
sections of `main()` and the functions of a step. A task whose loop must differ says so in its manifest, with
the reason:

    [own]
    "flax.train_step" = "the loss is over all pairs of a step: embeddings first, gradients after"

Where only a variable has another name, the manifest says which, and the rest stays the same:

    [called]
    tokenizer = "processor"
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import manifest

SOURCE = "pytorch-trainer"
ACROSS_FORMS = ("preprocess", "collate", "count_targets", "score", "write_answers")
SECTIONS = ("Train", "Evaluate", "Predict", "Share")
STEPS = ("train_step", "evaluate", "add_gradients", "update", "evaluation_step")
BANNER = re.compile(r"    # -+ (\w+)( \(the same in every task\))?")


class Copy(NamedTuple):
    """Parts of a script that have to be those of another one; `own` are exceptions with their reasons, and
    `called` the names of variables by those that they have in the other script."""

    source: Path
    script: Path
    across: str  # forms or tasks
    own: dict[str, str]
    called: dict[str, str]


def copies(root: Path) -> Iterator[Copy]:
    """Every pair of scripts, in an order in which what is copied first is not changed by what follows."""
    tasks = manifest.tasks(root)
    reference = next(iter(tasks.values()))["scripts"]
    for task in tasks.values():
        for form, path in task["scripts"].items():
            own = {
                name.partition(".")[2]: reason
                for name, reason in task.get("own", {}).items()
                if name.partition(".")[0] == form
            }
            if form != SOURCE and SOURCE in task["scripts"]:
                yield Copy(root / task["scripts"][SOURCE], root / path, "forms", {}, {})
            if path != reference[form]:
                yield Copy(root / reference[form], root / path, "tasks", own, task.get("called", {}))


def parts(script: str, across: str) -> dict[str, tuple[int, int]]:
    """First and last line, as a slice, of each part of a script that is the same across forms or tasks."""
    tree = ast.parse(script)
    if across == "forms":
        return {
            node.name: _lines(node)
            for node in tree.body
            if (isinstance(node, ast.FunctionDef) and node.name in ACROSS_FORMS)
            or (isinstance(node, ast.ClassDef) and node.name.endswith("Arguments"))
        }
    found = {
        node.name: _lines(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in STEPS
    }
    lines = script.split("\n")
    main = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    banners = [(number, match[1]) for number, line in enumerate(lines) if (match := BANNER.fullmatch(line))]
    ends = [number for number, _ in banners[1:]] + [main.end_lineno]
    sections = {name: (start, end) for (start, name), end in zip(banners, ends, strict=True)}
    return found | {name: lines_ for name, lines_ in sections.items() if name in SECTIONS}


def _lines(node: ast.FunctionDef | ast.ClassDef) -> tuple[int, int]:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1, node.end_lineno or 0


def with_copies(
    source: str, script: str, across: str, own: dict[str, str], called: dict[str, str] | None = None
) -> str:
    """A script with its parts replaced by those of another, but for its `own`, with variables `called` as
    they are in it.

    Raises:
        ValueError: the two do not define the same parts, or a part is said to be different and is not.
    """
    wanted, found = parts(source, across), parts(script, across)
    missing, more = wanted.keys() - found.keys() - own.keys(), found.keys() - wanted.keys() - own.keys()
    if missing or more:
        raise ValueError(f"lacks {sorted(missing)}, and has beside them {sorted(more)}")
    source_lines, lines = source.split("\n"), script.split("\n")
    for name, (first, last) in sorted(found.items(), key=lambda item: item[1], reverse=True):
        copy = source_lines[slice(*wanted[name])] if name in wanted else None
        for theirs, ours in (called or {}).items() if copy else ():
            # Not where it names an argument
            copy = [re.sub(rf"\b{theirs}\b(?! *=[^=])", ours, line) for line in copy]
        if name not in own:
            lines[first:last] = copy or []
        elif copy == lines[first:last]:
            raise ValueError(f"is said to have its own {name}, which it has not: {own[name]}")
    return "\n".join(lines)


HEADER = re.compile(r"\A# /// script\n(?:#.*\n)*?# ///\n")


def with_header(script: str, requirements: str) -> str:
    """A script under the header of PEP 723 by which `uv run` installs what requirements.txt lists: the
    package of this repository first, as a path with extras, then other packages."""
    lines = [line.strip() for line in requirements.splitlines() if line.strip() and not line.startswith("#")]
    path, _, extras = lines[0].partition("[")
    wanted = [f'"triptych[{extras}"', *(f'"{line}"' for line in lines[1:])]
    header = [
        "# /// script",
        '# requires-python = ">=3.11"',
        f"# dependencies = [{', '.join(wanted)}]",
        "# [tool.uv.sources]",
        f'# triptych = {{ path = "{path}" }}',
        "# ///",
    ]
    return "\n".join(header) + "\n" + HEADER.sub("", script)


def headed(root: Path) -> Iterator[tuple[Path, str]]:
    """Every script of a task, under other names as well, with what its text should be."""
    for path in sorted(root.glob("examples/*/*/run_*.py")):
        requirements = path.with_name("requirements.txt")
        if requirements.is_file():
            yield path, with_header(path.read_text(), requirements.read_text())


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    for source, script, across, own, called in copies(root):
        before = script.read_text()
        try:
            after = with_copies(source.read_text(), before, across, own, called)
        except ValueError as error:
            sys.exit(f"{script.relative_to(root)} {error}.")
        if after != before:
            script.write_text(after)
            print(f"changed {script.relative_to(root)}")
    for script, text in headed(root):
        if script.read_text() != text:
            script.write_text(text)
            print(f"changed the header of {script.relative_to(root)}")
    readme = root / "README.md"
    readme.write_text(manifest.with_table(readme.read_text(), root))
