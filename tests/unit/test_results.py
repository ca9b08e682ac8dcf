"""The files of a run: their names, their keys, and what must survive."""

import json
import math
import sys

import numpy as np
import pytest

from triptych import __version__
from triptych.errors import RunError
from triptych.output import files, pictures, record, results


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_evaluating_later_keeps_what_training_wrote(tmp_path):
    results.save_metrics(tmp_path / "run", "train", {"train_loss": 2.0, "epoch": 3.0})
    results.save_metrics(tmp_path / "run", "eval", {"eval_loss": 1.5})
    results.save_metrics(tmp_path / "run", "eval", {"eval_loss": 1.0})
    assert read(tmp_path / "run/train_results.json") == {"train_loss": 2.0, "epoch": 3.0}
    assert read(tmp_path / "run/eval_results.json") == {"eval_loss": 1.0}
    assert read(tmp_path / "run/all_results.json") == {"train_loss": 2.0, "epoch": 3.0, "eval_loss": 1.0}
    assert (tmp_path / "run/all_results.json").read_text().splitlines()[1] == '    "epoch": 3.0,'
    assert len(list((tmp_path / "run").iterdir())) == 3  # no temporary file is left


def test_metrics_of_numpy_and_not_finite_ones_are_valid_json(tmp_path):
    results.save_metrics(
        tmp_path,
        "eval",
        {"a": np.float32(0.5), "b": np.int64(3), "c": math.nan, "d": [np.array(math.inf), "é"]},
    )
    assert "NaN" not in (tmp_path / "eval_results.json").read_text(encoding="utf-8")
    assert read(tmp_path / "eval_results.json") == {"a": 0.5, "b": 3, "c": None, "d": [None, "é"]}


def test_unreadable_all_results_does_not_lose_the_new_metrics(tmp_path, caplog):
    (tmp_path / "all_results.json").write_text('{"train_loss": 2.')
    results.save_metrics(tmp_path, "eval", {"eval_loss": 1.5})
    assert read(tmp_path / "all_results.json") == {"eval_loss": 1.5}
    assert "written anew" in caplog.text


def test_failing_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    results.save_metrics(tmp_path, "eval", {"eval_loss": 1.5})
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(RunError, match=r"eval_results.json could not be written \(\d+ bytes\): disk full"):
        results.save_metrics(tmp_path, "eval", {"eval_loss": 1.0})
    assert read(tmp_path / "eval_results.json") == {"eval_loss": 1.5}
    assert {path.name for path in tmp_path.iterdir()} == {"eval_results.json", "all_results.json"}


def test_rates_of_training_stay_where_a_later_process_did_no_step(tmp_path):
    state = dict.fromkeys(results.STATE_KEYS) | {"log_history": []}
    results.save_training(tmp_path, {"train_loss": 2.0, "train_runtime": 5.0}, state)
    results.save_training(tmp_path, {"train_loss": 2.0}, state)
    assert read(tmp_path / "train_results.json") == {"train_loss": 2.0, "train_runtime": 5.0}
    (tmp_path / "train_results.json").write_text("[1]")
    results.save_training(tmp_path, {"train_loss": 2.0}, state)
    assert read(tmp_path / "train_results.json") == {"train_loss": 2.0}


def test_predictions_are_one_line_each(tmp_path):
    results.save_predictions(tmp_path, ["a\nb\r\nc", "", "é\u2028日本"])
    assert (tmp_path / "generated_predictions.txt").read_bytes() == "a b c\n\né 日本\n".encode()
    results.save_predictions(tmp_path, [], name="predictions.txt")
    assert (tmp_path / "predictions.txt").read_bytes() == b""


def test_state_has_exactly_the_common_keys(tmp_path):
    state = dict.fromkeys(results.STATE_KEYS, 1)
    results.save_state(tmp_path, state | {"total_flos": 1e9, "is_world_process_zero": True})
    assert read(tmp_path / "trainer_state.json") == state
    del state["epoch"]
    with pytest.raises(KeyError, match="epoch"):
        results.save_state(tmp_path, state)


def test_state_of_the_trainer_has_every_common_key(tmp_path):
    pytest.importorskip("torch")
    from dataclasses import asdict

    from transformers.trainer_callback import TrainerState

    state = TrainerState(global_step=7, log_history=[{"loss": 1.0, "step": 7}])
    results.save_state(tmp_path, asdict(state))
    assert TrainerState.load_from_json(str(tmp_path / "trainer_state.json")) == state


def test_run_records_versions_and_the_callers_facts_but_no_secret(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", "--hub_token", "hf_x", "--hub_token=hf_y", "--do_train"])
    record.save_run(tmp_path, {"processes": 2, "seconds": 1.5})
    run = read(tmp_path / "run.json")
    assert run["command"] == ["run.py", "--hub_token", "<hidden>", "--hub_token=<hidden>", "--do_train"]
    assert run["versions"]["numpy"] == np.__version__
    assert run["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run["versions"]["triptych"] == __version__
    assert (run["processes"], run["seconds"]) == (2, 1.5)
    assert run["platform"]
    assert run["cpu_count"] >= 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--hub-token", "x"], ["--hub-token", "<hidden>"]),
        (["--hub_tok=x=y"], ["--hub_tok=<hidden>"]),  # argparse accepts any unique beginning of a flag
        (["--push_to_hub_token", "x"], ["--push_to_hub_token", "<hidden>"]),
        (["--token", "x", "--use_auth_token=x"], ["--token", "<hidden>", "--use_auth_token=<hidden>"]),
        (["--x=hf_" + "a" * 34], ["--x=<hidden>"]),
        (["--train_file", "s3://key:word@bucket/a"], ["--train_file", "s3://<hidden>@bucket/a"]),
        (["--push_to_hub", "--hub_model_id", "me/m"], ["--push_to_hub", "--hub_model_id", "me/m"]),
        (["--tokenizer_name", "t5-small"], ["--tokenizer_name", "t5-small"]),
        (["--forced_bos_token", "ro_RO"], ["--forced_bos_token", "ro_RO"]),
        (["--max_new_tokens=5", "a@b"], ["--max_new_tokens=5", "a@b"]),
    ],
)
def test_secrets_are_hidden_and_nothing_else(arguments, expected):
    assert record.hide_secrets(arguments) == expected


def curve_history(steps=200, every=10):
    history = []
    for step in range(every, steps + 1, every):
        rate = 3e-4 * (1 - step / steps)
        history.append(
            {"loss": 6 * math.exp(-step / 80) + 1, "learning_rate": rate, "epoch": 1.0, "step": step}
        )
        if step % 50 == 0:
            history.append({"eval_loss": 6 * math.exp(-step / 80) + 1.2, "eval_rouge1": 20.0, "step": step})
    return [*history, {"train_loss": 2.0, "train_runtime": 5.0, "step": steps}]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that save_curve saves, to be asked what they show."""
    figure_class = pytest.importorskip("matplotlib.figure").Figure
    figures = []
    savefig = figure_class.savefig
    monkeypatch.setattr(
        figure_class,
        "savefig",
        lambda self, *rest, **named: (figures.append(self), savefig(self, *rest, **named)),
    )
    return figures


def test_curve_shows_every_point_with_labels_and_title(tmp_path, drawn):
    path = pictures.save_curve(tmp_path / "my-run", curve_history())
    assert path == tmp_path / "my-run/training_curve.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    losses, rates = drawn[0].axes
    assert [len(line.get_xdata()) for line in losses.lines + rates.lines] == [20, 4, 20]
    assert [text.get_text() for text in losses.get_legend().get_texts()] == [
        "training loss",
        "evaluation loss",
    ]
    assert losses.get_title() == "my-run"
    assert (losses.get_ylabel(), rates.get_ylabel()) == ("loss (nats per token)", "learning rate")
    assert rates.get_xlabel() == "optimizer steps"
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    ("history", "points"),
    [
        ([{"loss": 2.0, "learning_rate": 1e-3, "step": 1}], [1, 1]),
        ([{"eval_loss": 2.0, "step": 0}], [1]),
        ([{"loss": 2.0, "step": 1}, {"loss": math.nan, "step": 2}, {"loss": None, "step": 3}], [1]),
        ([{"loss": step, "step": step} for step in range(500)], [500]),
    ],
    ids=["one point", "no training", "not finite", "many"],
)
def test_curve_of_unusual_histories(tmp_path, drawn, history, points):
    assert pictures.save_curve(tmp_path, history).is_file()
    lines = [line for axis in drawn[0].axes for line in axis.lines]
    assert [len(line.get_xdata()) for line in lines] == points
    if len(points) == 1 and len(history) == 3:
        assert lines[0].get_label() == "training loss (1 not finite)"


def test_curve_of_nothing_writes_nothing(tmp_path):
    assert pictures.save_curve(tmp_path, []) is None
    assert pictures.save_curve(tmp_path, [{"loss": math.nan, "step": 1}]) is None
    assert not list(tmp_path.iterdir())


def test_summary_table_is_aligned():
    table = results.summary_table(
        {
            "before": {"loss": 6.91234, "rouge1": 3.2},
            "after": {"loss": np.float32(1.25), "rouge1": 84.51, "samples": 12345},
            "lead baseline": {"rouge1": 20.7},
        }
    )
    assert table.splitlines() == [
        "         before   after  lead baseline",
        "loss     6.9123  1.2500              -",
        "rouge1     3.20   84.51          20.70",
        "samples       -  12,345              -",
    ]
    assert (
        results.summary_table({"learning_rate": 5e-5, "epoch": 3})
        == "learning_rate  5.00e-05\nepoch                 3"
    )
    assert results.summary_table({}) == ""
