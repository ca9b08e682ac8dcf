"""Kills at every operation on a file (`make test-all`), and at random moments as well (`make soak`).

Each test adds a line to the table that ends the test run. A kill has landed if it was what ended the process.
It was continued exactly if the run, however often it was killed, ended as the uninterrupted one. Something
is lost if the newest whole checkpoint is older than the one before the kill, or not that of the uninterrupted
run.
"""

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from harness import flags, start_script
from interruption import FAULTS, Record, copy, differences, replayed, run_with, unsound

from triptych.output import checkpoints, record

KILLED = -signal.SIGKILL
LIMIT = flags(save_total_limit=1)
SECONDS = 6 * 3600
KILLS_PER_RUN = 3  # most; then it may finish, and is compared

# Checkpoints are the same code in all tasks: guarded loops, and the package. Only at its end each writes
# files of its own.
OF_EACH_TASK = "end"

# The fault that a run is brought to the beginning with, the operation after which it is killed at each, and
# how the name of the first begins at which it is no longer (None: to its end).
PHASES = {
    "first save": (None, "step 2", "collate"),
    "save and rotation": ({"do": "kill", "at": "step 3"}, "step 4", "collate"),
    "replacement": (
        {"do": "SIGTERM", "at": "collate 5", "skip": 4},
        "mkdir .unfinished-checkpoint-6",
        "mkdir .unfinished-model",
    ),
    OF_EACH_TASK: ({"do": "kill", "at": "mkdir .unfinished-model"}, "mkdir .unfinished-model", None),
}


@dataclass
class Tally:
    """A line of the table."""

    form: str
    kind: str
    kills: int = 0
    landed: int = 0
    exact: int = 0
    lost: int = 0

    def write(self):
        with (Path(os.environ["TRIPTYCH_TEST_RUN"]) / "soak.jsonl").open("a") as file:
            file.write(json.dumps(asdict(self)) + "\n")

    def require_perfection(self):
        # At a random moment the run may have ended just before.
        assert self.landed == self.kills or (self.kind == "random moments" and self.landed > 0.9 * self.kills)
        assert (self.exact, self.lost) == (self.kills, 0)


def newest_step(output):
    checkpoint, _ = checkpoints.newest(output)
    return checkpoints.step_of(checkpoint) if checkpoint else 0


def kept(output):
    """What decides which operations a continued process comes to: the checkpoints, each with its manifest
    (one that is replaced keeps its name), and the files that are noted as the run's, each once."""
    sealed = [(path.name, (path / checkpoints.MANIFEST).read_bytes()) for path in checkpoints.found(output)]
    return sealed, record.written(output)


@pytest.mark.nightly
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(
    "phase",
    [
        pytest.param(phase, marks=[] if phase == OF_EACH_TASK else [pytest.mark.first_task])
        for phase in PHASES
    ],
)
def test_killed_at_every_operation(phase, form, words, uninterrupted, tmp_path):
    whole, _ = uninterrupted(form)
    rotated, _ = uninterrupted(form, "rotated", *LIMIT)
    words = [*words, *LIMIT]
    fault, start, end = PHASES[phase]
    base, work = tmp_path / "base", tmp_path / "work"
    base.mkdir()
    if fault:
        run_with(form, words, base, fault, expect=KILLED if fault["do"] == "kill" else 128 + signal.SIGTERM)
    names = run_with(form, words, copy(base, work))[1].names
    names = names[names.index(start) + 1 :]
    count = next((at for at, name in enumerate(names) if end and name.startswith(end)), len(names))
    assert count > 5, names

    tally, open_kills = Tally(str(form), phase), 0
    copy(base, work)
    held = kept(base / "out")
    for number in range(1, count + 1):
        before = newest_step(work / "out")
        _, killed = run_with(form, words, work, {"do": "kill", "at": start, "number": number}, expect=KILLED)
        tally.kills += 1
        tally.landed += killed.entries[-1]["faults"] == ["kill"]
        tally.lost += bool(unsound(work / "out", whole)) or newest_step(work / "out") < before
        open_kills += 1
        if number == count or kept(work / "out") != held:
            run_with(form, words, work)
            tally.exact += open_kills * (differences(work / "out", rotated) == [])
            open_kills = 0
            copy(base, work)
    tally.write()
    tally.require_perfection()


@pytest.mark.nightly
@pytest.mark.first_task
@pytest.mark.timeout(SECONDS)
def test_killed_at_random_moments(form, words, uninterrupted, tmp_path, request):
    kills = request.config.getoption("soak", 0)
    if not kills:
        pytest.skip("only with --soak KILLS")
    whole, _ = uninterrupted(form)
    rotated, reference = uninterrupted(form, "rotated", *LIMIT)
    words = [*words, *LIMIT, *flags(output_dir="out")]
    (tmp_path / "timed").mkdir()
    began = time.monotonic()
    run_with(form, words, tmp_path / "timed")
    duration = time.monotonic() - began

    chance, tally, number = random.Random(str(form)), Tally(str(form), "random moments"), 0
    while tally.kills < kills:
        number += 1
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        records, killed = [], 0
        while True:
            limit = min(KILLS_PER_RUN - killed, kills - tally.kills)
            path = folder / f"record-{len(records)}.jsonl"
            process = start_script(form, words, folder, wrapper=[FAULTS, "out", path, "[]"])
            before = newest_step(folder / "out")
            try:
                _, stderr = process.communicate(timeout=chance.uniform(0, duration) if limit else None)
            except subprocess.TimeoutExpired:
                process.kill()
                _, stderr = process.communicate()
                killed += 1
                tally.kills += 1
                tally.landed += process.returncode == KILLED
                tally.lost += bool(unsound(folder / "out", whole)) or newest_step(folder / "out") < before
            lines = path.read_text().splitlines() if path.exists() else []
            records.append(Record([json.loads(line) for line in lines]))
            if process.returncode != KILLED:
                break
        assert process.returncode == 0, stderr[-3000:]
        same = differences(folder / "out", rotated) == []
        tally.exact += killed * (same and replayed(records, reference, 2, batches_per_epoch=5) == [])
    tally.write()
    tally.require_perfection()
