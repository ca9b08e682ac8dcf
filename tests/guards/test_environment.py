"""An environment is built once, again when a requirement changes, and again when it was not finished."""

import subprocess
import tomllib

import environment
import pytest

REQUIREMENTS = "examples/pytorch/summarization/requirements.txt"
OTHER_REQUIREMENTS = "examples/pytorch/[!s]*/requirements.txt"


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
    assert ["--requirement", str(tree / REQUIREMENTS)] == first[first.index("--requirement") :][:2]
    assert second[-2:] == ["--editable", ".[pytorch,test]"]
    assert [where for _, where in installed] == [(tree / REQUIREMENTS).parent, tree]
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


def test_lowest_takes_every_requirement_at_its_lower_bound(tree, installed):
    (tree / REQUIREMENTS).write_text("../../..[pytorch]\n# for scores>=2\nsome-metric[fast]>=1.2,<2\n")
    environment.build("lowest")
    lowest = (tree / ".venv/lowest/lowest.txt").read_text().splitlines()
    assert "some-metric==1.2" in lowest
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    others = sum(len(path.read_text().splitlines()) - 1 for path in tree.glob(OTHER_REQUIREMENTS))
    assert len(lowest) == 1 + others + len(project["dependencies"] + extras["pytorch"] + extras["test"])
    assert all("--constraint" in command for command, _ in installed)
