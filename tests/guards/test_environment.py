"""An environment is built once, again when a requirement changes, and again when it was not finished."""

import subprocess
import tomllib
from pathlib import Path

import environment
import pytest

from triptych import libraries

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = "examples/pytorch/language-modeling/requirements.txt"  # the first by name


@pytest.fixture
def installed(tree, monkeypatch):
    """The commands of pip that building would run, which do nothing here but end with `installed.code`."""

    class Commands(list):
        code = 0

    commands = Commands()

    def run(command, cwd):
        commands.append((list(map(str, command[4:])), cwd))
        return subprocess.CompletedProcess(command, commands.code)

    monkeypatch.setattr(environment, "ROOT", tree)
    monkeypatch.setattr(environment.subprocess, "run", run)
    monkeypatch.setattr(
        environment.venv, "create", lambda folder, **options: folder.mkdir(parents=True, exist_ok=True)
    )
    return commands


def test_an_environment_is_built_again_only_when_a_requirement_changes(tree, installed):
    environment.build("pytorch")
    (first, _), (second, _) = installed
    files = sorted((tree / "examples/pytorch").glob("*/requirements.txt"))
    assert [each for each in first if str(each).endswith("requirements.txt")] == list(map(str, files))
    assert second[-2:] == ["--editable", ".[pytorch,test,migrate]"]
    assert [where for _, where in installed] == [files[0].parent, tree]
    pyproject = (tree / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text(pyproject.replace("line-length = 110", "line-length = 100"))
    environment.build("pytorch")
    assert len(installed) == 2
    with (tree / REQUIREMENTS).open("a") as file:
        file.write("nltk>=3.9,<4\n")
    environment.build("pytorch")
    assert len(installed) == 4
    (tree / "pyproject.toml").write_text(pyproject.replace("torch>=", "torch>1,>="))
    environment.build("pytorch")
    assert len(installed) == 6


def test_a_failed_or_interrupted_build_is_begun_again(installed, monkeypatch):
    installed.code = 1
    with pytest.raises(SystemExit):
        environment.build("tools")
    installed.code = 0
    environment.build("tools")
    assert len(installed) == 2

    def interrupt(*anything, **options):
        raise KeyboardInterrupt

    (environment.ROOT / ".venv/tools/built-from.json").write_text("from other requirements")
    monkeypatch.setattr(environment.subprocess, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        environment.build("tools")
    assert not (environment.ROOT / ".venv/tools/built-from.json").exists()


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow", "flax"])
def test_lowest_takes_every_requirement_at_its_lower_bound(tree, installed, framework):
    examples = tree / "examples" / framework
    with (examples / "summarization/requirements.txt").open("a") as file:
        file.write("# for scores>=2\nsome-metric[fast]>=1.2,<2\n")
    environment.build(f"lowest-{framework}")
    lowest = (tree / f".venv/lowest-{framework}/constraints.txt").read_text().splitlines()
    assert "some-metric==1.2" in lowest
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [line for path in examples.glob("*/*.txt") for line in path.read_text().splitlines()]
    others = sum(line[0].isalpha() for line in lines)
    named = [project["dependencies"], *(extras[extra] for extra in (framework, "test", "migrate"))]
    assert len(lowest) == others + sum(map(len, named))
    assert all("--constraint" in command for command, _ in installed)


def test_newest_looks_for_newer_releases_at_each_call(installed):
    environment.build("newest-flax")
    assert not any("--upgrade" in command for command, _ in installed)
    environment.build("newest-flax")
    upgrades = [command for command, _ in installed if "--upgrade" in command]
    assert len(upgrades) == len(installed) / 2 == 2
    environment.build("flax")
    environment.build("flax")
    assert len(installed) == 6


def test_torch_is_the_release_that_was_asked_for(tree, installed, monkeypatch):
    monkeypatch.delenv("TORCH", raising=False)

    def constraints(name):
        environment.build(name)
        return (tree / ".venv" / name / "constraints.txt").read_text().split()

    assert constraints("pytorch") == constraints("newest-pytorch") == ["torch==2.13.*"]
    assert constraints("flax") == []
    monkeypatch.setenv("TORCH", "2.11")
    assert constraints("newest-pytorch") == ["torch==2.11.*"]
    assert constraints("xla") == ["torch==2.9.0"]


@pytest.mark.parametrize(
    ("variables", "built"),
    [
        ([], ["tools", "flax", "pytorch", "tensorflow"]),
        (["FRAMEWORK=flax"], ["tools", "flax", "pytorch"]),
        (["FRAMEWORK=tensorflow,pytorch"], ["tools", "pytorch", "tensorflow"]),
        (["TASK=summarization"], ["tools", "flax", "pytorch", "tensorflow"]),
    ],
)
def test_the_suite_builds_every_environment_that_it_runs(variables, built):
    command = ["make", "--no-print-directory", "--dry-run", "test-examples", *variables]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    environments = [line.split()[-1] for line in lines if "tools/environment.py" in line]
    assert environments == built


def test_bounds_that_a_run_checks_are_those_that_pip_reads():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    for framework, known in libraries.LIBRARIES.items():
        stated = {requirement.partition(">")[0]: requirement for requirement in lists[framework]}
        assert {name: name + bounds for name, (bounds, _) in known.items()}.items() <= stated.items()
        for name, (bounds, tried) in known.items():
            assert libraries.within(tried, bounds), name
