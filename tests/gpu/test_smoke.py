"""What `make test-gpu` refuses, and how it tells that two runs differ; without training anything."""

import json
import os
import struct
import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from checks import Run, differences, largest_difference
from harness import all_tasks, interpreter
from machine import Failure, Machine, requirements
from run import parse, table

PROGRAM = Path(__file__).with_name("run.py")


def run_program(*words, **variables):
    command = [sys.executable, PROGRAM, *map(str, words)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)


def test_machine_without_a_gpu_is_refused_in_one_line():
    pythons = {f"TRIPTYCH_{name.upper()}_PYTHON": interpreter(name) for name in ("pytorch", "flax")}
    refused = run_program(**pythons)  # CUDA_VISIBLE_DEVICES is empty in these suites
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Nothing can be tested. pytorch: no GPU is visible (torch ")
    assert "; flax: no GPU is visible (jax " in line
    assert "--device cpu" in line


def test_missing_packages_are_told_with_what_to_install():
    """The interpreter of the tools has no tensor library."""
    words = ("--device", "cpu", "--forms", "pytorch-trainer,pytorch-accelerate")
    refused = run_program(*words, TRIPTYCH_PYTORCH_PYTHON=sys.executable)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert f"pytorch, {', '.join(all_tasks())}: packages are missing: " in line
    wanted = [one for one in requirements("pytorch", "summarization") if one.startswith("torch>=")]
    assert f"{sys.executable} -m pip install " in line
    assert f"'{wanted[0]}'" in line


def test_interpreter_that_does_not_start_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_FLAX_PYTHON", str(tmp_path / "python"))
    machine = Machine("cpu", 60, tmp_path)
    machine.find(["flax"], ["summarization"])
    assert not machine.frameworks
    (line,) = machine.skipped
    assert line.startswith(f"flax: {tmp_path}/python: it does not start: ")
    assert "No such file" in line


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(SystemExit):
        parse(["--forms", "tensorflow"])
    assert parse(["--parts", "speed", "--forms", "flax"]).parts == ["speed"]


def test_curves_are_compared_at_every_step():
    assert largest_difference([2.0, 1.0], [2.0, 1.0]) == 0
    assert largest_difference([2.0, 1.1], [2.0, 1.0]) == pytest.approx(0.1)
    for found in ([2.0], [2.0, None], [2.0, float("nan")]):
        with pytest.raises(Failure):
            largest_difference(found, [2.0, 1.0])


@pytest.fixture
def make_run(tmp_path):
    """A function that writes what a run leaves, as far as it is looked at."""

    def make(name, loss=2.0, weight=1.0, answer="yes", metric=0.5, seconds=1.0):
        folder = tmp_path / name
        folder.mkdir()
        header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        numbers = array("f", [0.5, weight]).tobytes()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + numbers)
        log = [{"loss": 3.0, "grad_norm": None}, {"loss": loss, "grad_norm": 1.0}, {"eval_loss": 2.5}]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
        metrics = {"eval_accuracy": metric, "eval_runtime": seconds}
        (folder / "all_results.json").write_text(json.dumps(metrics))
        (folder / "answers.txt").write_text(f"{answer}\n")
        return Run(folder)

    return make


def test_every_difference_of_two_runs_is_found(make_run):
    expected = make_run("expected")
    assert differences(make_run("same", seconds=2.0), expected, "answers.txt") == []
    assert differences(make_run("loss", loss=2.1), expected, "answers.txt") == ["loss from step 2"]
    assert differences(make_run("weight", weight=1.25), expected, "answers.txt") == [
        "weights by up to 2.5e-01"
    ]
    assert differences(make_run("answer", answer="no"), expected, "answers.txt") == ["predictions"]
    assert differences(make_run("metric", metric=0.6), expected, "answers.txt") == ["metrics"]
    assert expected.left_out == 1


def test_run_that_ends_before_it_is_killed_is_told(tmp_path):
    machine = Machine("cpu", 60, tmp_path)
    with pytest.raises(Failure, match="ended before it was killed: too fast"):
        machine.killed_after(tmp_path / "never", [sys.executable, "-c", "print('too fast')"], tmp_path)


def test_nothing_begins_when_the_time_is_over(tmp_path):
    with pytest.raises(Failure, match="the time was over"):
        Machine("cpu", 0, tmp_path).run([sys.executable, "-c", ""])
    with pytest.raises(Failure, match="stopped after"):
        Machine("cpu", 0.5, tmp_path).run([sys.executable, "-c", "import time; time.sleep(60)"])


def test_only_a_card_that_is_asked_for_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    machine = Machine("gpu", 60, tmp_path)
    assert machine.variables()["CUDA_VISIBLE_DEVICES"] == "3"
    assert "JAX_PLATFORMS" not in machine.variables()
    for hidden in (machine.variables(on_device=False), Machine("cpu", 60, tmp_path).variables()):
        assert hidden["CUDA_VISIBLE_DEVICES"] == ""
        assert hidden["JAX_PLATFORMS"] == "cpu"


def test_table_is_aligned():
    assert table(("a", "form"), [["long", "b"]]) == "| a    | form |\n| ---- | ---- |\n| long | b    |"
