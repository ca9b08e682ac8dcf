"""Trackers: known and installed before anything, and told the log of a run."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from triptych.errors import InputError
from triptych.output import reporting

# What each tracker's module is asked for, noted in the order of the calls
FAKES = {
    "wandb": """
def init(**about):
    note("init", about["project"], about["name"], about["config"])
    return Run()
class Run:
    def log(self, values, step): note("log", step, values)
    def finish(self): note("end")
""",
    "mlflow": """
def set_experiment(name): note("project", name)
def start_run(run_name): note("init", run_name)
def log_params(some): note("flags", len(some))
def log_metrics(values, step): note("log", step, values)
def end_run(): note("end")
""",
    "trackio": """
def init(project, name, **about): note("init", project, name, about["config"])
def log(values, step): note("log", step, values)
def finish(): note("end")
""",
    "comet_ml": """
def start(project_name, online): note("init", project_name, online); return Experiment()
class Experiment:
    def set_name(self, name): note("name", name)
    def log_parameters(self, flags): note("flags", flags)
    def log_metrics(self, values, step): note("log", step, values)
    def end(self): note("end")
""",
}
NOTE = """
import json, os
def note(*what):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps(what) + "\\n")
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts modules in the place of all trackers, and returns what they note."""
    for name, code in FAKES.items():
        (tmp_path / f"{name}.py").write_text(NOTE + code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    for variable in [name for name in os.environ if name.startswith(("WANDB", "MLFLOW", "TRACKIO", "COMET"))]:
        monkeypatch.delenv(variable)
    yield lambda: [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    for name in FAKES:
        sys.modules.pop(name, None)


def args(tmp_path):
    return SimpleNamespace(output_dir=tmp_path / "out", logging_dir=None)


@pytest.mark.parametrize("name", FAKES)
def test_tracker_is_told_flags_log_and_end(name, installed, tmp_path):
    flags = {f"flag_{number}": number for number in range(120)}
    with reporting.opened([name], args(tmp_path), flags) as reporters:
        reporters.log(3, {"loss": 0.5, "epoch": 1.0})
        reporters.log(4, {"eval_rouge1": 7})
    notes = installed()
    told = json.dumps(notes)
    assert "triptych" in told
    assert '"out"' in told
    assert '"flag_7": 7' in told or ["flags", 100] in notes
    assert notes[-3:] == [
        ["log", 3, {"train/loss": 0.5, "train/epoch": 1.0}],
        ["log", 4, {"eval/rouge1": 7.0}],
        ["end"],
    ]


def test_tensorboard_has_no_file_before_its_first_entry(tmp_path):
    with reporting.opened(["tensorboard"], args(tmp_path), {}) as reporters:
        assert not (tmp_path / "out").exists()
        reporters.log(1, {"loss": 0.5})
    (events,) = (tmp_path / "out/runs").iterdir()
    assert b"train/loss" in events.read_bytes()


def test_unknown_and_missing_trackers_are_refused(installed):
    assert reporting.problems("none") == reporting.problems(None) == reporting.problems([]) == []
    assert reporting.problems("tensorboard, wandb,mlflow") == []
    (problem,) = reporting.problems("wandb,wnadb")
    assert "--report_to wnadb" in problem
    assert "did you mean wandb?" in problem
    (problem,) = reporting.problems("neptune", reporting.OF_THE_TRAINER)
    assert "pip install neptune" in problem
    assert "no such tracker" in reporting.problems("neptune")[0]
    assert reporting.names("all") == [*reporting.TRACKERS]
    assert reporting.names(["wandb", "none"]) == ["wandb"]


def test_tracker_that_cannot_be_opened_or_fails_does_not_cost_the_run(installed, tmp_path, caplog):
    (tmp_path / "wandb.py").write_text("def init(**about): raise RuntimeError('no account')")
    (tmp_path / "trackio.py").write_text(
        "def init(**about): pass\ndef log(*a, **b): raise OSError('no network')\nfinish = 1"
    )
    with (
        pytest.raises(InputError, match="--report_to wandb: no account"),
        reporting.opened(["mlflow", "wandb"], args(tmp_path), {}),
    ):
        pass
    assert installed()[-1] == ["end"]
    with reporting.opened(["trackio", "mlflow"], args(tmp_path), {}) as reporters:
        reporters.log(1, {"loss": 1.0})
        reporters.log(2, {"loss": 1.0})
    assert caplog.text.count("no network; the run goes on without it") == 1
    assert [note[:2] for note in installed()[-3:]] == [["log", 1], ["log", 2], ["end"]]
