"""A release is a tag on a commit that states one version, and what its suite ran with; a script of another
version names that tag, and every clone can make it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import release
import versions
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


INSTALLED = {
    "pytorch": "torch==2.13.0+cpu transformers==5.24.0",
    "tensorflow": "tensorflow==2.21.0 keras-hub==0.32.0 transformers==5.24.0",
    "flax": "jax==0.10.2 flax==0.12.8 transformers==5.24.0",
}


@pytest.fixture
def first(tree) -> Path:
    """A repository with environments that state releases, and no version yet in its list."""
    for framework, releases in INSTALLED.items():
        python = tree / ".venv" / framework / "bin/python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\n" + "".join(f"echo {release}\n" for release in releases.split()))
        python.chmod(0o755)
    (tree / versions.FILE).write_text("# The versions\n")
    commit(tree, "A list without versions")
    return tree


def commit(tree: Path, message: str) -> None:
    readme = tree / "README.md"
    readme.write_text(versions.with_table(readme.read_text(), tree))
    run(tree, "git", "commit", "--all", "--message", message)


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
    commit(tree, NEW)


def test_everything_states_the_same_version(compared):
    assert not release.disagreements(ROOT, OLD)
    compared(3 + len(SCRIPTS), at_least=3 + len(all_tasks()))


def test_release_tags_the_commit_and_the_older_tag_still_holds_its_scripts(first):
    tree = first
    done = make_release(tree, OLD)
    assert done.returncode == 0, done.stderr
    commit_next_version(tree)
    done = make_release(tree, NEW)
    assert done.returncode == 0, done.stderr
    assert run(tree, "git", "cat-file", "-t", f"v{NEW}").stdout == "tag\n"
    assert (
        run(tree, "git", "rev-parse", f"v{NEW}^{{commit}}").stdout
        == run(tree, "git", "rev-parse", "HEAD~1").stdout
    )
    assert run(tree, "git", "status", "--porcelain").stdout == ""

    assert run(tree, "git", "checkout", f"v{OLD}").returncode == 0
    assert not release.disagreements(tree, OLD)
    version = run(tree / "src", sys.executable, "-c", "import triptych; print(triptych.__version__)")
    assert version.stdout == f"{OLD}\n"


def test_release_states_what_the_suite_ran_with_and_lists_the_version(first):
    assert make_release(first, OLD).returncode == 0
    stated = run(first, "git", "show", f"v{OLD}:constraints/pytorch.txt").stdout
    assert stated.splitlines()[1:] == ["torch==2.13.0", "transformers==5.24.0"]
    about = versions.versions(first)[OLD]
    assert about["commit"] == run(first, "git", "rev-parse", f"v{OLD}^{{commit}}").stdout.strip()
    assert (about["torch"], about["keras-hub"], about["jax"]) == ("2.13.0", "0.32.0", "0.10.2")
    assert f"| {OLD} | {about['commit'][:7]} |" in (first / "README.md").read_text()
    assert versions.problems(first) == []
    again = make_release(first, OLD)
    assert again.returncode == 2
    assert f"{versions.FILE} has {OLD} already" in again.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [(None, ".venv/flax, with which the tests run, is not there"), ("x @ file:///x", "no release: x @ file")],
)
def test_release_that_cannot_say_what_the_suite_ran_with_tags_nothing(first, line, words):
    python = first / ".venv/flax/bin/python"
    python.write_text(f"#!/bin/sh\necho '{line}'\n") if line else python.unlink()
    done = make_release(first, OLD)
    assert done.returncode != 0
    assert words in done.stderr
    assert run(first, "git", "tag").stdout == run(first, "git", "status", "--porcelain").stdout == ""


def test_list_of_versions_is_true_and_in_the_readme(compared):
    assert versions.problems(ROOT) == []
    readme = (ROOT / "README.md").read_text()
    assert versions.with_table(readme, ROOT) == readme, "`make fix-copies`"
    compared(len(versions.versions(ROOT)), at_least=1)


@pytest.mark.parametrize(
    ("path", "old", "new", "words"),
    [
        (versions.FILE, 'jax = "', 'max = "', "lacks jax"),
        (versions.FILE, 'commit = "', 'commit = "0', "is not there, or of another version"),
        ("CHANGELOG.md", f"## {OLD}", "## Newest", f"CHANGELOG.md says nothing of {OLD}"),
    ],
)
def test_list_of_versions_that_is_not_true_is_found(first, path, old, new, words):
    make_release(first, OLD)
    assert versions.problems(first) == []
    restate(first, path, old, new)
    assert any(words in problem for problem in versions.problems(first))


def test_a_version_whose_commit_states_another_is_found(first):
    make_release(first, OLD)
    commit_next_version(first)
    restate(first, versions.FILE, versions.versions(first)[OLD]["commit"], "HEAD")
    assert any("of another version" in problem for problem in versions.problems(first))


def test_every_clone_makes_the_same_tags_also_without_a_name(first, tmp_path, monkeypatch):
    make_release(first, OLD)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    made = []
    for name in ("one", "other"):
        run(tmp_path, "git", "clone", "--quiet", "--no-tags", str(first), name)
        assert run(tmp_path / name, "git", "checkout", f"v{OLD}").returncode != 0
        for _ in range(2):
            done = run(tmp_path / name, "make", "versions", f"PYTHON={sys.executable}")
            assert done.returncode == 0, done.stderr
        assert run(tmp_path / name, "git", "cat-file", "-t", f"v{OLD}").stdout == "tag\n"
        made.append(run(tmp_path / name, "git", "rev-parse", f"v{OLD}").stdout)
        assert run(tmp_path / name, "git", "checkout", f"v{OLD}").returncode == 0
        assert not release.disagreements(tmp_path / name, OLD)
    assert made[0] == made[1]


@pytest.mark.parametrize(("loss", "words"), [(6.40001, None), (6.5, "otherwise"), (None, "This failed")])
def test_an_old_version_whose_checkpoint_is_evaluated_otherwise_is_told(first, monkeypatch, loss, words):
    """The interpreters of its own and of today's scripts write their `eval_loss`, or fail."""
    make_release(first, OLD)
    write = 'for out; do :; done; mkdir -p "$out"; echo \'{"eval_loss": %s}\' > "$out/eval_results.json"\n'
    old, today = first / ".venv/flax/bin/python", first / ".venv/pytorch/bin/python"
    (first / ".venv/tensorflow/bin/python").unlink()
    old.write_text("#!/bin/sh\nmkdir -p rows\n" + write % 6.4)
    today.write_text("#!/bin/sh\n" + ("exit 1" if loss is None else write % loss))
    monkeypatch.setattr(versions, "install", lambda tree, framework, place: old)
    if words:
        with pytest.raises(SystemExit, match=words):
            versions.test(OLD, "flax", first)
    else:
        versions.test(OLD, "flax", first)
    assert len(run(first, "git", "worktree", "list").stdout.splitlines()) == 1


def test_a_tag_elsewhere_and_a_commit_that_is_not_here_are_told(first, tmp_path):
    make_release(first, OLD)
    commit_next_version(first)
    run(first, "git", "tag", "--force", f"v{OLD}")
    done = run(first, "make", "versions", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert f"v{OLD} is another commit" in done.stderr
    run(tmp_path, "git", "clone", "--quiet", "--no-tags", "--depth=1", f"file://{first}", "shallow")
    done = run(tmp_path / "shallow", "make", "versions", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert f"The commit of {OLD} is not here" in done.stderr


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


def test_release_with_failing_tests_tags_nothing(first):
    done = make_release(first, OLD, tests="false")
    assert done.returncode != 0
    assert "the tests fail" in done.stderr
    assert run(first, "git", "tag").stdout == run(first, "git", "status", "--porcelain").stdout == ""


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
