"""The commands of commands.toml and of our READMEs run as they stand, in a folder of small stand-ins.

In every test run each shape is run in one of the forms that have its script, and the README commands of
PyTorch are; `--all` runs everything in every form, and each through the launcher that its line names.
"""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import (
    OFFLINE,
    ROOT,
    SECONDS_PER_RUN,
    Form,
    all_forms,
    finish_script,
    interpreter,
    once,
    script_environment,
    start_script,
)

sys.path.append(str(Path(__file__).parent))
import stand_ins

COMMANDS = tomllib.loads(Path(__file__).with_name("commands.toml").read_text())["command"]
LAUNCHERS = ("accelerate", "torchrun")
# READMEs' commands that other tests run, or nothing can: a pattern, and where.
ELSEWHERE = {
    r"make .*": "the targets themselves",
    r"git (clone|checkout) .*": "tests/guards/test_release.py checks tags and versions",
    r"(python -m venv|pip install|cd|\.) .*": "tests/guards/test_environment.py and `make env`",
    r"python -m triptych.migrate .*": "tests/unit/test_migrate.py",
    r".* --max_new_tokens .*": "tests/scripts/test_texts.py, test_denoising.py",
    r".* --test_file masks.jsonl .*": "tests/scripts/test_masks.py",
    r".* --train_file library/.*": "tests/real/test_causal_language_modeling.py",
    r".* --train_file bulletins/.*": "four minutes: run by hand, for the figures beside it",
    r"python -m triptych.samples .*": "the fixture `samples`, tests/unit/test_samples.py",
    r".* --push_to_hub .*": "tests/scripts/test_sharing.py",
    r"ACCELERATE_USE_CPU=true accelerate launch --multi_gpu .*": "tests/scripts/test_processes.py",
}
# What stands for the dots of a command that says only what is special about it
DOTS = "--train_file named.csv --do_train --max_steps 2 --output_dir out"
README_COMMANDS_AT_LEAST = 28


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line for one form, and what is expected of it; see commands.toml."""

    form: Form
    words: tuple[str, ...]
    expected: dict = dataclasses.field(hash=False)

    @property
    def launcher(self) -> tuple[str, ...]:
        """The words before the script, if they are a launcher's."""
        number = next(n for n, word in enumerate(self.words) if word.endswith(".py"))
        return self.words[:number] if self.words[0] in LAUNCHERS else ()

    @property
    def script(self) -> str:
        return next(word for word in self.words if word.endswith(".py"))

    @property
    def flags(self) -> tuple[str, ...]:
        return self.words[self.words.index(self.script) + 1 :]

    def __str__(self) -> str:
        return f"{self.form.framework}, {self.expected['shape']}"


def having(script: str, forms: list[Form]) -> list[Form]:
    """The forms whose folder has a script of that name, each with that script: one in each framework."""
    found = {}
    for form in forms:
        path = form.script.with_name(script)
        if path.is_file() and ("no_trainer" in script) == ("no_trainer" in form.script.name):
            found.setdefault(form.framework, dataclasses.replace(form, script=path))
    return list(found.values())


def shapes() -> Iterator[tuple[Command, bool]]:
    """Every shape in every form that has its script, and whether it is for the nightly run alone."""
    for expected in COMMANDS:
        words = tuple(shlex.split(expected["line"]))
        script = next(word for word in words if word.endswith(".py"))
        # The launchers are PyTorch's
        forms = [form for form in all_forms() if words[0] not in LAUNCHERS or form.framework == "pytorch"]
        for form in having(script, forms):
            yield (
                Command(form, words, expected),
                expected.get("nightly", False) or form.framework != expected.get("fast", "pytorch"),
            )


def written() -> list[tuple[str, str]]:
    """Every command of a README, once, with the README's path."""
    found = {}
    for path in sorted([*ROOT.glob("README.md"), *ROOT.glob("examples/**/README.md")]):
        blocks = re.findall(r"^```(\w*)\n(.*?)^```\n", path.read_text(), re.MULTILINE | re.DOTALL)
        for block in (text for language, text in blocks if language == "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                for command in line.partition(" #")[0].split(" && "):
                    if command.strip():
                        found[path.relative_to(ROOT).as_posix(), " ".join(command.split())] = None
    return list(found)


def elsewhere(command: str) -> bool:
    return any(re.fullmatch(pattern, command) for pattern in ELSEWHERE)


def of_readmes() -> Iterator[Command]:
    """The scripts' commands in READMEs: of a folder's README in that folder, of others in PyTorch's."""
    for path, line in written():
        if elsewhere(line):
            continue
        words = tuple(shlex.split(re.sub(r"\.\.\.|…", DOTS, line).removeprefix("python ")))
        script = next(word for word in words if word.endswith(".py"))
        framework = Path(path).parts[1] if path.startswith("examples/") else "pytorch"
        (form,) = having(script, [form for form in all_forms() if form.framework == framework])
        yield Command(form, words, {"shape": f"{path}: {line[:60]}"})


def marks(nightly: bool) -> list[pytest.MarkDecorator]:
    return [pytest.mark.nightly] if nightly else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = {name: metafunc.config.getoption(name).split(",") for name in ("framework", "task")}

    def is_selected(command: Command) -> bool:
        return all(names == [""] or getattr(command.form, name) in names for name, names in asked.items())

    if "shape" in metafunc.fixturenames:
        found = [
            pytest.param(command, id=str(command), marks=marks(nightly))
            for command, nightly in shapes()
            if is_selected(command)
        ]
        metafunc.parametrize("shape", found)
    if "readme_command" in metafunc.fixturenames:
        found = [
            pytest.param(command, id=str(command), marks=marks(command.form.framework != "pytorch"))
            for command in of_readmes()
            if is_selected(command)
        ]
        metafunc.parametrize("readme_command", found)


@pytest.fixture
def folder(tiny, samples, tmp_path) -> Path:
    """A folder with the stand-ins, the test's own."""
    fixtures = Path(os.environ["TRIPTYCH_FIXTURES"])
    ready = once(fixtures / "stand-ins", lambda folder: stand_ins.build(folder, tiny, samples))
    for path in ready.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def launch(command: Command, folder: Path) -> tuple[int, str]:
    """Runs a command through its launcher, on the CPU; its exit code and all that it prints, in order."""
    python = Path(interpreter(command.form.framework))
    first, *options = command.launcher
    words = [python.with_name(first), *options, command.form.script, *command.flags]
    done = subprocess.run(
        words,
        cwd=folder,
        env=script_environment() | {"ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_PER_RUN,
    )
    return done.returncode, done.stdout


def run(command: Command, folder: Path, by_launcher: bool) -> str:
    expected = command.expected
    code = expected.get("code", 0)
    if command.launcher and by_launcher:
        found, output = launch(command, folder)
        assert found == code, output
    else:
        process = start_script(command.form, command.flags, folder, as_written=True)
        done = finish_script(process, command.form, folder / "out", code)
        output = done.stdout + done.stderr
    for words in expected.get("says", ()):
        assert output.count(words), f"nothing of {words!r} in\n{output}"
    for pattern in expected.get("has", ()):
        assert list(folder.glob(pattern)), f"no {pattern} after\n{output}"
    return output


def test_a_command_as_people_have_it_runs_as_written(shape, folder, pytestconfig):
    by_launcher = shape.expected.get("launched") or pytestconfig.getoption("all")
    output = run(shape, folder, by_launcher)
    if end := shape.expected.get("ends"):
        assert output.rstrip().endswith(end)
        assert output.count(end) == 1


def test_a_command_of_a_readme_runs_as_written(readme_command, folder):
    output = run(readme_command, folder, by_launcher=True)
    name = readme_command.flags[readme_command.flags.index("--output_dir") + 1]
    assert (folder / name / "model.safetensors").exists(), output


@pytest.mark.nightly
@pytest.mark.first_task
@pytest.mark.timeout(1200)
def test_uv_runs_a_script_with_nothing_installed(form, folder):
    """The script's header says what to install. The releases are those of the form's environment, which also
    keeps builds of torch for other devices away."""
    freeze = [interpreter(form.framework), "-m", "pip", "freeze", "--exclude", "triptych"]
    frozen = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout
    (folder / "releases.txt").write_text(re.sub(r"\+\w+$", "", frozen, flags=re.MULTILINE))
    uv, words = (
        Path(sys.executable).with_name("uv"),
        f"--model_name_or_path google-bert/bert-base-uncased {DOTS}",
    )
    done = subprocess.run(
        [uv, "run", "--python", sys.executable, form.script, *shlex.split(words)],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": str(OFFLINE),
            "UV_CACHE_DIR": f"{os.environ['TRIPTYCH_FIXTURES']}/uv",
            "UV_CONSTRAINT": str(folder / "releases.txt"),
            "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "").replace(" ", ","),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert (folder / "out/model.safetensors").exists()


def test_every_command_of_a_readme_is_run_or_has_its_place():
    found = written()
    unused = [pattern for pattern in ELSEWHERE if not any(re.fullmatch(pattern, line) for _, line in found)]
    assert not unused, "no command of a README is such a one"
    assert len(list(of_readmes())) == sum(not elsewhere(line) for _, line in found) >= 11
    assert len(found) >= README_COMMANDS_AT_LEAST


def test_every_run_of_the_tests_has_commands_of_each_framework():
    assert len(COMMANDS) >= 15
    assert len({command["shape"] for command in COMMANDS}) == len(COMMANDS)
    assert {command.form.framework for command, nightly in shapes() if not nightly} == {
        "pytorch",
        "tensorflow",
        "flax",
    }
