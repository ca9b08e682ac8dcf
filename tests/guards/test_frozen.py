"""A frozen project's record is written by a run that passed, by nothing else; CI comes to every project."""

import json
import subprocess
import sys
from pathlib import Path

import frozen
import pytest

PRINTED = {"command": ["python", "run_small.py"], "summary": "5 of 5", "same": {"n": 5}, "of_machine": {}}


@pytest.fixture
def project(tree, monkeypatch):
    """A project of the tree that needs nothing installed; and that in a repository of its own."""
    folder = tree / "research_projects/small"
    folder.mkdir()
    (folder / "test_claim.py").write_text(f"print({json.dumps(PRINTED)!r})\n")
    (folder / "requirements.txt").write_text("-c lock.txt\n--only-binary :all:\n")
    monkeypatch.setattr(frozen, "ROOT", tree)
    monkeypatch.setattr(frozen, "environment", lambda folder, anew: Path(sys.executable))
    (tree / "tests/fixtures/offline").mkdir(parents=True, exist_ok=True)
    return folder


def test_a_run_that_passed_is_recorded_with_what_it_ran(project):
    frozen.test(project, renew=True, ci=False)
    record = frozen.record(project)
    assert record["same"] == {"n": 5}
    assert record["files"] == frozen.hash_of_project(project)
    assert record["memory_in_mb"] > 1
    assert "| 5 of 5 |" in (project.parent / "README.md").read_text()
    frozen.test(project, renew=False, ci=False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("raise SystemExit('The claim does not hold: 4 of 5')", "ended with 1"),
        ("import socket; socket.create_connection(('192.0.2.1', 80), 1)", "ended with 1"),
        ("import os; os.kill(os.getpid(), 9)", "ended with -9"),
        ("print('Done.')", "no JSON"),
        ("print('{}')", "no JSON with command, summary"),
    ],
)
def test_a_run_that_failed_leaves_the_record_as_it_was(project, line, words):
    frozen.test(project, renew=True, ci=False)
    before = (project / frozen.RECORD).read_bytes()
    with (project / "test_claim.py").open("a") as file:
        file.write(f"{line}\n")
    for renew in (False, True):
        with pytest.raises(ValueError, match=words):
            frozen.test(project, renew=renew, ci=False)
    assert (project / frozen.RECORD).read_bytes() == before


def test_a_run_with_other_figures_than_its_record_fails(project):
    frozen.test(project, renew=True, ci=False)
    (project / "test_claim.py").write_text(f"print({json.dumps(PRINTED | {'same': {'n': 4}})!r})\n")
    with pytest.raises(ValueError, match=r'\{"n": 4\}, its record says \{"n": 5\}'):
        frozen.test(project, renew=False, ci=False)


def test_a_project_runs_in_a_copy(project):
    with (project / "test_claim.py").open("a") as file:
        file.write(f"open('left.txt', 'w').close(); print({json.dumps(PRINTED)!r})\n")
    frozen.test(project, renew=True, ci=False)
    assert not (project / "left.txt").exists()


LEAVES = """
import os
os.makedirs("for_today/small")
open("for_today/small/case.json", "w").write("{}")
"""


@pytest.mark.parametrize("scored", [True, False])
def test_what_is_left_has_to_be_scored_alike_for_a_record(scored, project, monkeypatch):
    def score(left: Path) -> dict[str, dict[str, float]]:
        assert (left / "small/case.json").is_file()
        if not scored:
            raise ValueError("another loss")
        return {"small": {"flax": 0.5}}

    test = (project / "test_claim.py").read_text()
    (project / "test_claim.py").write_text(LEAVES + test)
    monkeypatch.setattr(frozen, "scored_today", score)
    if scored:
        frozen.test(project, renew=True, ci=False)
        assert frozen.record(project)["scored_today"] == {"small": {"flax": 0.5}}
        frozen.test(project, renew=False, ci=True)  # has no environments
    else:
        with pytest.raises(ValueError, match="another loss"):
            frozen.test(project, renew=True, ci=False)
        assert frozen.record(project) == {}


def commit(tree: Path) -> None:
    subprocess.run(["git", "add", "--all"], cwd=tree, check=True)
    subprocess.run(["git", "commit", "--quiet", "--allow-empty", "-m", "More"], cwd=tree, check=True)


def test_ci_tests_no_more_than_it_has_time_for(project, tree, monkeypatch):
    frozen.test(project, renew=True, ci=False)
    commit(tree)
    monkeypatch.setattr(frozen, "cost", lambda folder: 100 if folder == project else 200)
    for seconds, tested, named in ((300, 2, 0), (299, 1, 0), (99, 0, 1)):
        monkeypatch.setattr(frozen, "SECONDS_OF_CI", seconds)
        found, too_long = frozen.concerned(tree, "HEAD~1")
        assert len(found) == tested
        assert (project in found, project in too_long) == (named == 0, named == 1)


def test_ci_tests_what_changed_and_comes_to_all_others_in_turn(project, tree, monkeypatch):
    monkeypatch.setattr(frozen, "SECONDS_OF_CI", float("inf"))
    others = frozen.projects(tree)
    others.remove(project)
    assert others, "there are others"
    commit(tree)
    assert project in frozen.concerned(tree, "HEAD")[0], "it has no record"
    frozen.test(project, renew=True, ci=False)
    commit(tree)
    assert project in frozen.concerned(tree, "HEAD~1")[0]
    in_turn = []
    for _ in range(len(others) + 1):
        commit(tree)
        in_turn += frozen.concerned(tree, "HEAD~1")[0]
    assert sorted(in_turn) == sorted([project, *others])


def test_an_environment_is_made_once_for_the_same_pins_and_again_if_it_was_not_finished(
    tmp_path, monkeypatch
):
    commands = []

    def run(command, **options):
        commands.append(command)
        if "fail" in (tmp_path / "requirements.txt").read_text():
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setenv("TRIPTYCH_FROZEN", str(tmp_path))
    monkeypatch.setattr(frozen.venv, "create", lambda place, **options: place.mkdir(exist_ok=True))
    monkeypatch.setattr(frozen.subprocess, "run", run)
    for file in ("requirements.txt", "lock.txt"):
        (tmp_path / file).write_text("numpy==2.4.6\n")
    assert frozen.environment(tmp_path, anew=False) == frozen.environment(tmp_path, anew=False)
    assert len(commands) == 1
    frozen.environment(tmp_path, anew=True)
    (tmp_path / "lock.txt").write_text("numpy==2.4.5\n")
    frozen.environment(tmp_path, anew=False)
    assert len(commands) == 3
    (tmp_path / "requirements.txt").write_text("fail")
    for number in (4, 5):
        with pytest.raises(subprocess.CalledProcessError):
            frozen.environment(tmp_path, anew=False)
        assert len(commands) == number


@pytest.mark.parametrize(
    ("code", "message", "printed", "error"),
    [
        (1, "No solution found", "", ValueError),
        (0, "warning: `numpy==2.4.6` is yanked", "numpy==2.4.6\n", ValueError),
        (0, "", "numpy==2.4.6\nmore==1.0\n", ValueError),
        (2, "error sending request", "", ConnectionError),
        (0, "", "numpy==2.4.6\n", None),
    ],
)
def test_a_pin_that_vanished_is_told(tmp_path, monkeypatch, code, message, printed, error):
    for file in ("requirements.txt", "lock.txt"):
        (tmp_path / file).write_text("numpy==2.4.6\n")
    answer = subprocess.CompletedProcess([], code, printed, message)
    monkeypatch.setattr(frozen.subprocess, "run", lambda *words, **options: answer)
    if error is None:
        frozen.check(tmp_path)
    else:
        with pytest.raises(error):
            frozen.check(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["test", "nothing"], "code-deduplication"),
        (["lock"], "project is required"),
        (["check", "--renew"], "unrecognized arguments: --renew"),
        (["test", "code-deduplication", "--ci"], "not allowed with"),
    ],
)
def test_what_cannot_be_done_is_refused(words, message):
    done = subprocess.run([sys.executable, frozen.__file__, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
