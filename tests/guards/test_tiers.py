"""What CI leaves out is left for `make test-all`, and nothing is left out of both."""

import ast
import subprocess
import sys

import pytest
from harness import ROOT, all_forms, all_tasks

SUITES = ("tests/scripts", "tests/parity", "tests/reliability")


@pytest.fixture(scope="module")
def collected():
    """The tests that are run, by options."""

    def run(*options: str) -> set[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *options, *SUITES]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return {line for line in done.stdout.splitlines() if "::" in line}

    return {"ci": run(), "all": run("--all"), "later": run(f"--task={list(all_tasks())[-1]}")}


def function(test: str) -> str:
    return test.partition("[")[0]


def test_all_tests_are_those_of_ci_and_more(collected, compared):
    assert collected["ci"] < collected["all"]
    written = {
        f"{path.relative_to(ROOT)}::{node.name}"
        for suite in SUITES
        for path in (ROOT / suite).glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert written - set(map(function, collected["all"])) == set()
    compared(len(written), at_least=90)


def test_what_ci_samples_is_run_for_every_form_by_all(collected):
    """Neither by a task nor by a form is anything left out but what is the first task's alone."""
    of_forms = {}
    for test in collected["all"]:
        form = next((str(form) for form in all_forms() if f"[{form}" in test), None)
        of_forms.setdefault(function(test), set()).add(form)
    everywhere = {name for name, forms in of_forms.items() if len(forms) >= len(all_forms())}
    for name in (
        "test_kills.py::test_killed_at_a_write_and_continued_the_run_is_the_uninterrupted_one",
        "test_soak.py::test_killed_at_every_operation",
        "test_data_files.py::test_every_row_of_every_format_reaches_the_model",
        "test_older_spellings.py::test_every_retired_flag_is_refused",
        "test_parity.py::test_model_of_each_form_is_evaluated_by_every_other",
        "test_parity.py::test_run_of_each_loop_is_continued_by_every_other",
        "test_resume.py::test_stopped_and_continued_run_equals_the_uninterrupted",
        "test_sharing.py::test_model_is_loaded_by_name_whatever_framework_pushed_it",
        "test_processes.py::test_two_processes_give_what_one_gives",
    ):
        assert any(test.endswith(name) for test in everywhere), name


def test_a_part_of_ci_holds_nothing_of_other_tasks(collected):
    task = list(all_tasks())[-1]
    of_task = {test for test in collected["ci"] if f"[{task}/" in test or "[" not in test}
    assert collected["later"] == of_task
    assert of_task < collected["ci"]
