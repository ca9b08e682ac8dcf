"""Two processes on one machine, started by torchrun: the same run as one process with the same batches."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from harness import SECONDS_PER_RUN, Run, flags, interpreter, remember, script_environment, without_times

from triptych import checkpoints


def launched(form):
    return form.framework == "pytorch"


def launch(form, words, folder, processes):
    """Starts a form by torchrun; its log goes to a file, because the processes share it."""
    folder.mkdir(exist_ok=True)
    command = [interpreter("pytorch"), "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), str(form.script), *map(str, words)]
    with open(folder / "log", "w") as log:
        return subprocess.Popen(command, cwd=folder, env=script_environment(), stdout=log, stderr=log)


@pytest.fixture
def words(trained, files, form):
    """41 rows in batches of 8: the last batch has one row, none for the second process."""
    if not launched(form):
        pytest.skip("only the PyTorch forms are launched by torchrun")

    def words(processes, **changes):
        values = {
            "model_name_or_path": trained(form),
            **files,
            "do_train": True,
            "do_eval": True,
            "do_predict": True,
            "max_train_samples": 41,
            "max_eval_samples": 11,
            "max_predict_samples": 13,
            "per_device_train_batch_size": 8 // processes,
            "per_device_eval_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_steps": 8,
            "learning_rate": 1e-4,
            "logging_steps": 1,
            "output_dir": "out",
        }
        return [*flags(**values | changes), *form.settings["flags"]]

    return words


def result(folder, name):
    return json.loads((folder / "out" / name).read_text())


def test_two_processes_give_what_one_gives(form, words, tmp_path):
    one, two = (tmp_path / str(processes) for processes in (1, 2))
    for processes, folder in ((1, one), (2, two)):
        process = launch(form, words(processes), folder, processes)
        assert process.wait(SECONDS_PER_RUN) == 0, (folder / "log").read_text()[-3000:]
        remember(form, Run(0, "", "", folder / "out"), "torchrun")
    assert result(two, "run.json")["processes"] == 2
    assert "2 processes on cpu" in (two / "log").read_text()
    logs = (result(folder, "trainer_state.json")["log_history"] for folder in (one, two))
    for expected, found in zip(*logs, strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    for split in ("eval", "predict"):
        expected, found = (without_times(result(folder, f"{split}_results.json")) for folder in (one, two))
        assert found == pytest.approx(expected, rel=1e-6)
    name = form.settings["predictions"]
    assert (two / "out" / name).read_text() == (one / "out" / name).read_text()


def children(process):
    """The processes that a launcher has started."""
    text = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout
    return [int(pid) for pid in text.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux lists them")
def test_one_process_signalled_stops_both_with_a_checkpoint(form, words, tmp_path):
    process = launch(form, words(2, max_steps=4000, logging_steps=10, save_steps=5), tmp_path / "run", 2)
    deadline = time.monotonic() + SECONDS_PER_RUN
    output = tmp_path / "run/out"
    while not checkpoints.found(output) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(children(process)[-1], signal.SIGTERM)
    process.wait(60)
    log = (tmp_path / "run/log").read_text()
    assert log.count("Stopped by SIGTERM") == 2, log[-3000:]
    newest, skipped = checkpoints.newest(output)
    assert newest is not None
    assert skipped == []
    assert (newest / checkpoints.STATE).exists()
