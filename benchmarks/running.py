"""Runs the processes to be measured, each on a core of its own."""

import functools
import itertools
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT, HERE = Path(__file__).resolve().parents[1], Path(__file__).resolve().parent
BUILD = ROOT / "build/bench"
Figures = dict[str, Any]


class Run:
    """A process that has ended: what it printed, when what it noted happened, and what it took.

    Attributes:
        seconds: of the whole process.
        memory: at its peak, in GB.
    """

    def __init__(
        self,
        core: int | Collection[int],
        framework: str,
        *command: Any,
        name: str,
        expect: int = 0,
        **variables: str,
    ):
        self.folder = BUILD / "runs" / name.replace(", ", "-").replace(" ", "-")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        marks, log = self.folder / "marks.jsonl", self.folder / "log"
        environment = os.environ | {
            "BENCH_MARKS": str(marks),
            "HF_HOME": str(BUILD / "hf"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            **variables,
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # would make every start of a library slower
        words = [str(word) for word in (ROOT / ".venv" / framework / "bin/python", *command)]
        cores = {core} if isinstance(core, int) else set(core)
        pinned = hasattr(os, "sched_setaffinity")
        pin = functools.partial(os.sched_setaffinity, 0, cores) if pinned else None
        with log.open("w") as file:
            began = time.monotonic()
            process = subprocess.Popen(
                words, cwd=self.folder, env=environment, stdout=file, stderr=file, preexec_fn=pin
            )
            _, status, usage = os.wait4(process.pid, 0)
            self.seconds = time.monotonic() - began
        self.memory = usage.ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
        self.text = log.read_text()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != expect:
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{self.text[-3000:]}")
        lines = marks.read_text().splitlines() if marks.exists() else []
        self.marks = [json.loads(line) for line in lines]
        for mark in self.marks:
            mark["at"] -= began

    def at(self, what: str) -> list[float]:
        """When it happened, in seconds after the process began."""
        return [mark["at"] for mark in self.marks if mark["what"] == what]

    def values(self, what: str, name: str) -> list[float]:
        """What was noted with it."""
        return [mark[name] for mark in self.marks if mark["what"] == what]


def steps_of(run: Run, units: int) -> Figures:
    """Of a run that noted its steps: units a second of the median step, the memory, and the losses.

    Args:
        units: tokens or images of a step.
    """
    seconds = [after - before for before, after in itertools.pairwise(run.at("step"))]
    log = json.loads((run.folder / "out/trainer_state.json").read_text())["log_history"]
    return {
        "a second": units / statistics.median(seconds),
        "memory": run.memory,
        "losses": [entry["loss"] for entry in log if "loss" in entry],
    }


def on_cores(cores: list[int], jobs: dict[str, Callable[[int], Figures]]) -> dict[str, Figures]:
    """The figures of jobs, each of which is given the number of a core that it has for itself."""
    free: queue.Queue[int] = queue.Queue()
    for core in cores:
        free.put(core)

    def with_core(job: Callable[[int], Figures]) -> Figures:
        core = free.get()
        try:
            return job(core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores)) as threads:
        results = dict(zip(jobs, threads.map(with_core, jobs.values()), strict=True))
    for name, figures in results.items():
        print(f"{name}: {json.dumps(figures)}", flush=True)
    return results


def python(*words: Any) -> str:
    """What a program prints that prepares a measurement, in PyTorch's environment."""
    command = [str(word) for word in (ROOT / ".venv/pytorch/bin/python", *words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
