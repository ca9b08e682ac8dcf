"""The machine under test: its interpreters, what they lack, its card, and how a process is started on it."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

import manifest  # noqa: E402

# Installed with the package, but not imported by what is run here
NOT_NEEDED = {"tensorboard", "sentencepiece", "pyyaml"}
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
SECONDS_PER_PROCESS = 300


class Failure(Exception):
    """What a check found to be wrong, in one line."""


class TimeOver(Failure):
    """The time that was given has passed."""


@dataclass
class Ended:
    """A process that has ended: its exit code, what it printed, and how long it took."""

    code: int
    text: str
    seconds: float


@dataclass
class Framework:
    """An interpreter with a framework, as `probe.py` found it.

    Attributes:
        lacks: by task, the requirements of its scripts that are not installed.
    """

    name: str
    python: str
    about: dict[str, Any]
    lacks: dict[str, list[str]]


def flags(**values: Any) -> list[str]:
    """A command line: `max_steps=3` becomes --max_steps 3, `do_train=True` becomes --do_train; None is left
    out."""
    words = []
    for name, value in values.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def requirements(framework: str, task: str) -> list[str]:
    """What a task's scripts need in a framework, as pip is told it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    scripts = map(Path, manifest.tasks(ROOT)[task]["scripts"].values())
    folder = next(script.parent for script in scripts if script.parts[1] == framework)
    lines = (ROOT / folder / "requirements.txt").read_text().splitlines()
    own = [line for line in lines if line and not line.startswith((".", "#"))]
    found = [*project["dependencies"], *project["optional-dependencies"][framework], *own]
    return [one for one in found if name_of(one) not in NOT_NEEDED]


def name_of(requirement: str) -> str:
    """The package's name in `name>=1,<2`."""
    return re.split(r"[^\w.-]", requirement)[0]


@dataclass
class Machine:
    """Starts processes on the device under test, until the time is over.

    Attributes:
        device: "gpu" or "cpu".
        seconds: that are given for everything.
        folder: for all that is made.
        frameworks: those that can be tested.
        skipped: what is not tested, a line each with its reason.
    """

    device: str
    seconds: float
    folder: Path
    frameworks: dict[str, Framework] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    knows_deterministic: bool = True

    def find(self, names: Iterable[str], tasks: Iterable[str]) -> None:
        """Looks at the frameworks' interpreters: what cannot be tested goes to `skipped`."""
        for name in names:
            python = os.environ.get(f"TRIPTYCH_{name.upper()}_PYTHON") or sys.executable
            needed = {task: requirements(name, task) for task in tasks}
            packages = sorted({name_of(one) for task in tasks for one in needed[task]})
            try:
                about = self.probe(name, python, packages)
            except Failure as error:
                self.skipped.append(f"{name}: {python}: {error}")
                continue
            lacks = {
                task: [one for one in needed[task] if name_of(one) in about["missing"]] for task in tasks
            }
            if any(lacks.values()):
                without = ", ".join(task for task in tasks if lacks[task])
                words = " ".join(f"'{one}'" for one in dict.fromkeys(chain.from_iterable(lacks.values())))
                self.skipped.append(
                    f"{name}, {without}: packages are missing: {python} -m pip install {words}"
                )
            if all(lacks.values()):
                continue
            if self.device == "gpu" and not about["card"]:
                self.skipped.append(f"{name}: no GPU is visible ({about['reason']})")
                continue
            self.frameworks[name] = Framework(name, python, about, lacks)

    def probe(self, framework: str, python: str, packages: list[str]) -> dict[str, Any]:
        """What `probe.py` finds in an interpreter; also whether XLA knows how to give the same bits."""
        command = [python, HERE / "probe.py", framework, *packages]
        ended = self.run(command, exact=True)
        if ended.code and framework == "flax" and "XLA_FLAGS" in ended.text:
            self.knows_deterministic = False
            self.skipped.append(f"flax: a continuation bit for bit, as XLA knows no {DETERMINISTIC}")
            ended = self.run(command, exact=True)
        lines = [line for line in ended.text.splitlines() if line.startswith("{")]
        if ended.code or not lines:
            raise Failure(f"it does not start: {last_line(ended.text)}")
        return json.loads(lines[-1])

    @property
    def seconds_left(self) -> float:
        return self.began + self.seconds - time.monotonic()

    def variables(
        self, on_device: bool = True, exact: bool = False, cache: Path | None = None, float32: bool = True
    ) -> dict[str, str]:
        """The environment of a process: this checkout's package, no network, one card or none, and float32
        that is not computed in TensorFloat-32.

        Args:
            on_device: whether it sees the card.
            exact: whether two runs must give the same bits.
            cache: where JAX keeps what it compiled.
            float32: whether float32 is what it computes in.
        """
        found = dict(os.environ)
        found.pop("PYTHONDONTWRITEBYTECODE", None)  # importing a framework would take twice as long
        own = [str(ROOT / "src"), *filter(None, [found.get("PYTHONPATH")])]
        found |= {
            "PYTHONPATH": os.pathsep.join(own),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.folder / "huggingface"),
            "OMP_NUM_THREADS": found.get("OMP_NUM_THREADS", "1"),
            "JAX_COMPILATION_CACHE_DIR": str(cache or self.folder / "compiled"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the card
            "NVIDIA_TF32_OVERRIDE": "0",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        if float32:  # which JAX multiplies in TensorFloat-32 otherwise
            found["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
        cards = found.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        found["CUDA_VISIBLE_DEVICES"] = cards[0] if on_device and self.device == "gpu" else ""
        if not found["CUDA_VISIBLE_DEVICES"]:
            found["JAX_PLATFORMS"] = "cpu"
        if exact:
            found["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
            if self.knows_deterministic:
                found["XLA_FLAGS"] = f"{found.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()
        return found

    def run(self, command: Iterable[Any], folder: Path = ROOT, **variables: Any) -> Ended:
        """Runs a process to its end.

        Raises:
            TimeOver: if it is not begun, or is stopped, because the time is over.
        """
        if self.seconds_left <= 0:
            raise TimeOver("the time was over before it began")
        began = time.monotonic()
        try:
            process = subprocess.run(
                [str(word) for word in command],
                cwd=folder,
                env=self.variables(**variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=min(SECONDS_PER_PROCESS, self.seconds_left),
            )
        except FileNotFoundError as error:
            return Ended(127, str(error), 0.0)
        except subprocess.TimeoutExpired as error:
            seconds = time.monotonic() - began
            raise TimeOver(f"stopped after {seconds:.0f} s, before its end") from error
        return Ended(process.returncode, process.stdout, time.monotonic() - began)

    def call(self, command: Iterable[Any], folder: Path = ROOT, **variables: Any) -> Ended:
        """The same of a process that must succeed.

        Raises:
            Failure: if it does not; its whole output is kept beside the results.
        """
        words = [str(word) for word in command]
        ended = self.run(words, folder, **variables)
        if ended.code:
            raise failed(words, ended, folder)
        return ended

    def killed_after(self, checkpoint: Path, command: Iterable[Any], folder: Path, **variables: Any) -> None:
        """Starts a process and kills it (SIGKILL) as soon as a checkpoint has its name.

        Raises:
            Failure: if it ended before.
            TimeOver: if it was not there in time.
        """
        words, log = [str(word) for word in command], folder / "killed.log"
        limit = time.monotonic() + min(SECONDS_PER_PROCESS, self.seconds_left)
        with log.open("w") as file:
            process = subprocess.Popen(
                words, cwd=folder, env=self.variables(**variables), stdout=file, stderr=subprocess.STDOUT
            )
            while process.poll() is None and not checkpoint.exists() and time.monotonic() < limit:
                time.sleep(0.002)
            was_there = checkpoint.exists()
            process.kill()
            process.wait()
        if process.returncode >= 0:
            ended = Ended(process.returncode, log.read_text(errors="replace"), 0.0)
            raise failed(words, ended, folder, "ended before it was killed")
        if not was_there:
            raise TimeOver(f"{checkpoint.name} was not there in time")


def failed(words: list[str], ended: Ended, folder: Path, how: str = "") -> Failure:
    """A failure of a process, whose output is kept."""
    log = folder / "failed.log"
    log.write_text(f"{' '.join(words)}\n{ended.text}")
    how = how or f"exit code {ended.code}"
    return Failure(f"{how}: {last_line(ended.text)} (all of it: {os.path.relpath(log, ROOT)})")


def last_line(text: str) -> str:
    """The last line that says something, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
