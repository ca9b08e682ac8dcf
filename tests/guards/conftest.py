"""Guards count what they compare: one that silently compares nothing protects nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def compared(record_property):
    """A function that notes how many things were compared, and fails below the number known so far."""

    def compared(number: int, at_least: int) -> None:
        record_property("compared", number)
        assert number >= at_least, f"compared {number} things, where there have been {at_least}"

    return compared


def pytest_terminal_summary(terminalreporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for number in (value for name, value in report.user_properties if name == "compared"):
            terminalreporter.write_line(f"{report.nodeid.partition('::')[2]} compared {number}")


@pytest.fixture(scope="session", autouse=True)
def not_of_this_make():
    """What `make` was called with is for the suite, not for the `make` that a test calls."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable in ("MAKEFLAGS", "MAKEOVERRIDES", "CHANGED", "FRAMEWORK", "TASK"):
            monkeypatch.delenv(variable, raising=False)
        yield


@pytest.fixture
def tree(tmp_path) -> Path:
    """A repository of its own with one commit of this one's files, changes included: to be broken."""
    folder = tmp_path / "tree"
    left_out = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "build")
    shutil.copytree(ROOT, folder, ignore=left_out)
    for command in (
        ["init", "--quiet"],
        ["config", "user.name", "Test"],
        ["config", "user.email", "test@example.org"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "Everything"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder
