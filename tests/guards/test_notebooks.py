"""Every script can be made a notebook: the same statements in cells, in a form that Jupyter opens."""

import ast
import json
import re
import symtable
from pathlib import Path

import manifest
import notebook
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = list(manifest.scripts(ROOT))
BANNERS = ("Arguments", "Data", "Model", "Inputs", "Batches", "Train", "Evaluate", "Predict", "Share")


def of_main(script: str) -> ast.FunctionDef:
    return next(n for n in ast.parse(script).body if isinstance(n, ast.FunctionDef) and n.name == "main")


def scope_problems(script: str) -> list[str]:
    """What `main()` may do and the top of a notebook may not."""
    pending: list[ast.AST] = list(of_main(script).body)
    problems = []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom | ast.Await):
            problems.append(f"line {node.lineno}: main() has a {type(node).__name__.lower()} of its own")
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            pending += ast.iter_child_nodes(node)
    module = symtable.symtable(script, "script", "exec")
    above = {
        symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }
    (main,) = (table for table in module.get_children() if table.get_name() == "main")
    problems += [
        f"main() hides the name {name} of the module" for name in sorted({*main.get_locals()} & above)
    ]
    return problems


def cells_of(made: dict, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == kind]


def statements(script: str) -> list[ast.stmt]:
    """Those of a script, with main's in its place, as they are at the top of a module."""
    _, *body = ast.parse(script).body
    body = [node for node in body if "run.main(main" not in ast.unparse(node)]
    place = next(
        n for n, node in enumerate(body) if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    body[place : place + 1] = body[place].body
    return body


def dumped(nodes: list[ast.stmt]) -> list[str]:
    return [ast.dump(node).replace("Nonlocal(", "Global(") for node in nodes]


def test_every_script_becomes_the_same_statements_in_cells(compared):
    scripts = cells = 0
    for name in SCRIPTS:
        script = (ROOT / name).read_text()
        made = notebook.notebook(script, ["x.py", "--flag"], "examples/x/y")
        setup, words, *code, end = cells_of(made, "code")
        code.remove(notebook.START)
        found = [statement for cell in code for statement in ast.parse(cell).body]
        assert dumped(found) == dumped(statements(script)), name
        for cell in (setup, words, notebook.START, end, *code):
            compile(cell, name, "exec")
        headings = [text.removeprefix("## ") for text in cells_of(made, "markdown")[1:]]
        assert [heading for heading in headings if heading != "Steps"] == list(BANNERS), name
        # The Trainer has no functions for a step; the others are at most a section of a screen.
        assert len(code) > 15
        scripts, cells = scripts + 1, cells + len(code)
    compared(cells, 15 * len(SCRIPTS))
    assert scripts == sum(len(task["scripts"]) for task in manifest.tasks(ROOT).values())


def test_notebooks_are_valid_and_give_the_readmes_command(tmp_path, compared):
    for name in SCRIPTS:
        path = notebook.make(ROOT / name, tmp_path)
        assert path == tmp_path / Path(name).relative_to("examples").with_suffix(".ipynb")
        made = json.loads(path.read_text())
        assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
        assert set(made) == {"nbformat", "nbformat_minor", "metadata", "cells"}
        ids = [cell["id"] for cell in made["cells"]]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell_id) for cell_id in ids)
        for cell in made["cells"]:
            keys = {"id", "cell_type", "metadata", "source"}
            assert set(cell) == keys | (
                {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
            )
            assert all(isinstance(line, str) and line for line in cell["source"])
            assert all(line.endswith("\n") for line in cell["source"][:-1])
        tags = {
            tag: "".join(cell["source"]) for cell in made["cells"] for tag in cell["metadata"].get("tags", ())
        }
        assert set(tags) == {"setup", "parameters"}
        assert str(Path(name).parent) in tags["setup"]
        (argv,) = ast.parse(tags["parameters"]).body
        command = ast.literal_eval(argv.value)
        assert command[0] == Path(name).name
        assert {"--do_train", "--output_dir"} <= set(command)
    compared(len(SCRIPTS), len(manifest.tasks(ROOT)))


def test_scripts_do_nothing_that_a_notebook_cannot(compared):
    problems = {name: scope_problems((ROOT / name).read_text()) for name in SCRIPTS}
    assert {name: found for name, found in problems.items() if found} == {}
    compared(len(problems), len(manifest.tasks(ROOT)))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("return", "has a return of its own"),
        ("yield 1", "has a yield of its own"),
        ("data = 1", "hides the name data"),
        ("for np in ():\n        pass", "hides the name np"),
        ("def score():\n        return 1", "hides the name score"),
        ("if args:\n        return", "has a return of its own"),
    ],
)
def test_the_guard_turns_red(line, problem):
    script = (ROOT / SCRIPTS[0]).read_text()
    changed = script.replace("    raw, columns = ", f"    {line}\n    raw, columns = ")
    assert changed != script
    assert len(found := scope_problems(changed)) == 1
    assert problem in found[0]


def test_texts_of_several_lines_stay_as_they_are():
    """In `main()` they would lose what a cell takes from the beginning of each line."""
    script = (ROOT / SCRIPTS[0]).read_text()
    script = script.replace("    raw, columns = ", '    text = """a\n    b"""\n    raw, columns = ')
    made = notebook.notebook(script, ["x.py"], "x")
    assert any('text = """a\n    b"""\nraw, columns = ' in cell for cell in cells_of(made, "code"))
