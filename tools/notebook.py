"""Makes a notebook of every script, to run section by section; none is kept in the repository.

    python3 tools/notebook.py OUT_DIR [SCRIPT ...]

OUT_DIR gets `<framework>/<task>/<script>.ipynb`. A cell is a definition, what stands between two, or a
section of `main()` below its banner; there is no code that the script does not have, but for the first cells,
which install what is missing and give the command line of the README. Jupyter is not needed to make them.
"""

import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import manifest
from fix_copies import BANNER

ROOT = Path(__file__).resolve().parents[1]
START = """model_args, data_args, args = parsed
run.begin(args)"""
END = """from triptych.output import lock

lock.release()  # the output folder is free for the next run"""
SETUP = """import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("triptych") is None:  # in an environment that has not been used for it yet
    above = [Path.cwd(), *Path.cwd().parents]
    here = next((folder / "{folder}" for folder in above if (folder / "{folder}").is_dir()), None)
    if here is None:
        raise SystemExit("Run this notebook in a folder of the repository.")
    command = [sys.executable, "-m", "pip", "install", "-r", "requirements.txt"]
    subprocess.run(command, cwd=here, check=True)"""


def notebook(script: str, command: list[str], folder: str) -> dict[str, Any]:
    """A notebook, of nbformat 4.5, that does what a script does.

    Args:
        script: its text.
        command: its name and flags, for `sys.argv`.
        folder: where it lies in the repository, with its requirements.
    """
    cells = []
    for number, (kind, text, tags) in enumerate(_cells(script, command, folder)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {"tags": tags} if tags else {}}
        cell["source"] = text.splitlines(keepends=True)
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _cells(script: str, command: list[str], folder: str) -> Iterator[tuple[str, str, list[str]]]:
    """Kind, text and tags of each cell."""
    tree = ast.parse(script)
    title, _, about = (ast.get_docstring(tree) or "").partition("\n")
    about = re.sub(r"(?m)^    .*(\n    .*)*", lambda lines: f"```bash\n{_dedented(lines[0])}\n```", about)
    name = f"{folder}/{command[0]}"
    yield (
        "markdown",
        f"# {title}\n{about}\n\nMade from `{name}` by `make notebooks`: change the script.",
        [],
    )
    yield "code", SETUP.format(folder=folder), ["setup"]
    words = "".join(f"    {json.dumps(word, ensure_ascii=False)},\n" for word in command)
    yield "code", f"sys.argv = [\n{words}]", ["parameters"]
    lines = script.splitlines()
    for first, last, node in _blocks(tree, lines):
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            yield "code", START, []
            yield from _sections(node, lines)
        elif "run.main(main" not in (text := "\n".join(lines[first:last]).strip()):
            yield "code", text, []
    yield "code", END, []


def _blocks(tree: ast.Module, lines: list[str]) -> Iterator[tuple[int, int, ast.stmt]]:
    """Of the lines below the docstring those of each definition, and of what stands between two, with the
    comments above."""
    first, *nodes = tree.body
    begin, last = first.end_lineno or 0, first
    for node in nodes:
        defines = isinstance(node, ast.FunctionDef | ast.ClassDef)
        # What follows a definition does not belong to it, nor does a definition to what is before.
        if begin != last.end_lineno and (defines or isinstance(last, ast.FunctionDef | ast.ClassDef)):
            yield begin, last.end_lineno or 0, last
            begin = last.end_lineno or 0
        last = node
    yield begin, len(lines), last


def _sections(main: ast.FunctionDef, lines: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """A heading and the code of each section of `main()`, whose names become those of the notebook."""
    texts = [node for node in ast.walk(main) if isinstance(node, ast.Constant | ast.JoinedStr)]
    within = {number for text in texts for number in range(text.lineno, text.end_lineno or 0)}
    heading, section = None, []
    start = main.body[0].lineno - 2
    for number, line in enumerate([*lines[start : main.end_lineno], None], start):
        banner = BANNER.fullmatch(line) if line is not None else None
        if line is None or banner:
            if heading:
                yield "markdown", f"## {heading}", []
                yield "code", "\n".join(section).strip(), []
            heading, section = banner and banner[1], []
        else:
            section.append(line if number in within else line.removeprefix("    "))


def _dedented(text: str) -> str:
    return re.sub(r"(?m)^    ", "", text)


def command_of(script: Path) -> list[str]:
    """Name and flags of the first command that the README beside a script has for it, or for the form with
    the Trainer, whose flags are the same."""
    names = (script.name, script.name.replace("_no_trainer", ""))
    readme = script.with_name("README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for name in names:
        for line in re.findall(rf"(?m)^python ({re.escape(name)} .*)$", readme):
            return [script.name, *shlex.split(line, comments=True)[1:]]
    raise ValueError(f"{script.with_name('README.md')} has no command for {script.name}")


def make(script: Path, out_dir: Path) -> Path:
    """Writes the notebook of a script of `examples/`."""
    folder = script.parent.relative_to(ROOT)
    made = notebook(script.read_text(encoding="utf-8"), command_of(script), folder.as_posix())
    path = out_dir / folder.relative_to("examples") / f"{script.stem}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    out_dir, *scripts = map(Path, sys.argv[1:])
    for script in scripts or [ROOT / name for name in manifest.scripts(ROOT)]:
        print(make(script.resolve(), out_dir))
