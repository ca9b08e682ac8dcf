"""A release is a tag on a commit that states one version; a script of another version names that tag."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import release
from harness import all_forms, all_tasks

import triptych

ROOT = Path(__file__).resolve().parents[2]
OLD = triptych.__version__
MAJOR, MINOR, PATCH = map(int, OLD.split("."))
PATCHED, NEW = f"{MAJOR}.{MINOR}.{PATCH + 1}", f"{MAJOR}.{MINOR + 1}.0"
RANGES = [
    f'">={MAJOR}.{minor},<{MAJOR}.{minor + 1}"' for minor in (MINOR, MINOR + 1)
]  # of old, of new scripts
SCRIPTS = [str(form.script.relative_to(ROOT)) for form in all_forms()]


def run(tree: Path, *command: str) -> subprocess.CompletedProcess:
    # A make that runs these tests passes its own variables to every make below it.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")
    }
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def make_release(tree: Path, version: str, tests: str = "true") -> subprocess.CompletedProcess:
    return run(tree, "make", "release", f"VERSION={version}", f"TESTS={tests}", f"PYTHON={sys.executable}")


def restate(tree: Path, path: str, old: str, new: str) -> None:
    text = (tree / path).read_text()
    assert old in text
    (tree / path).write_text(text.replace(old, new, 1))


def commit_next_version(tree: Path) -> None:
    restate(tree, "pyproject.toml", f'version = "{OLD}"', f'version = "{NEW}"')
    restate(tree, "src/triptych/__init__.py", f'"{OLD}"', f'"{NEW}"')
    restate(tree, "CHANGELOG.md", f"## {OLD}", f"## {NEW}\n\nNew.\n\n## {OLD}")
    for script in SCRIPTS:
        restate(tree, script, f"require({RANGES[0]}", f"require({RANGES[1]}")
    run(tree, "git", "commit", "--all", "--message", NEW)


def test_everything_states_the_same_version(compared):
    assert not release.disagreements(ROOT, OLD)
    compared(3 + len(SCRIPTS), at_least=3 + len(all_tasks()))


def test_release_tags_the_commit_and_the_older_tag_still_holds_its_scripts(tree):
    done = make_release(tree, OLD)
    assert done.returncode == 0, done.stderr
    commit_next_version(tree)
    done = make_release(tree, NEW)
    assert done.returncode == 0, done.stderr
    assert run(tree, "git", "cat-file", "-t", f"v{NEW}").stdout == "tag\n"
    assert (
        run(tree, "git", "rev-parse", f"v{NEW}^{{commit}}").stdout
        == run(tree, "git", "rev-parse", "HEAD").stdout
    )

    assert run(tree, "git", "checkout", f"v{OLD}").returncode == 0
    assert not release.disagreements(tree, OLD)
    version = run(tree / "src", sys.executable, "-c", "import triptych; print(triptych.__version__)")
    assert version.stdout == f"{OLD}\n"


def test_release_lists_all_that_is_wrong_and_tags_nothing(tree):
    run(tree, "git", "tag", f"v{NEW}")
    restate(tree, "pyproject.toml", f'version = "{OLD}"', f'version = "{NEW}"')
    restate(tree, SCRIPTS[0], f"require({RANGES[0]}, ", "print(")
    restate(tree, "examples/pytorch/summarization/requirements.txt", "../../..", "triptych")
    done = make_release(tree, NEW)
    assert done.returncode == 2
    for words in (
        f"src/triptych/__init__.py states {OLD}, not {NEW}",
        f"CHANGELOG.md states {OLD}, not {NEW}",
        f"{SCRIPTS[0]} states no versions",
        f"{SCRIPTS[1]} states {RANGES[0][1:-1]}, which leaves out {NEW}",
        "requirements.txt does not install the package",
        f"The tag v{NEW} exists already",
        "not committed",
    ):
        assert words in done.stderr
    assert "pyproject.toml states" not in done.stderr
    assert "is not a version" in make_release(tree, "latest").stderr
    assert run(tree, "git", "tag").stdout == f"v{NEW}\n"


def test_release_with_failing_tests_tags_nothing(tree):
    done = make_release(tree, OLD, tests="false")
    assert done.returncode != 0
    assert "the tests fail" in done.stderr
    assert run(tree, "git", "tag").stdout == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_of_another_version_names_the_tag_to_check_out(script, tmp_path):
    # A package in which nothing else is where the script expects it.
    (tmp_path / "triptych").mkdir()
    package = (ROOT / "src/triptych/__init__.py").read_text().replace(f'"{OLD}"', f'"{NEW}"')
    (tmp_path / "triptych/__init__.py").write_text(package)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, ROOT / script, "-h"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert f"git checkout v{NEW}" in done.stderr


@pytest.mark.parametrize("version", [OLD, PATCHED])
def test_a_copied_script_outlives_a_patch_release(version, monkeypatch):
    monkeypatch.setattr(triptych, "__version__", version)
    triptych.require(RANGES[0][1:-1])
    with pytest.raises(SystemExit):
        triptych.require(RANGES[1][1:-1])
