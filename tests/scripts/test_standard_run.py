"""One run of every script, from data to predictions: whether what it leaves behind means what it says."""

import json
import struct

import numpy as np
import pytest
from harness import (
    ROOT,
    SECRET,
    STEPS,
    answers,
    approximately,
    flags,
    once,
    rows_answered,
    run_python,
    run_script,
    without_times,
)

RECOMPUTE = ROOT / "tests/fixtures/recompute.py"
EVALUATIONS = [10, 20, 30, 40, 50]  # steps after which the run was evaluated and saved


@pytest.fixture
def recomputed(form, forms, standard, samples):
    """The metrics of the predictions in the standard run's file; where these are compared with those of the
    task's first form, in that one's."""
    if not form.is_of_first_task:
        form = next(one for one in forms if one.task == form.task)

    def build(folder):
        rows = [json.loads(line) for line in (samples / "test.jsonl").read_text().splitlines()[:40]]
        (folder / "rows.json").write_text(json.dumps(rows))
        found = run_python(RECOMPUTE, form.task, standard(form).output, folder / "rows.json")
        (folder / "metrics.json").write_text(found.splitlines()[-1])

    folder = once(standard(form).output.with_name("recomputed"), build)
    return json.loads((folder / "metrics.json").read_text())


def test_loss_falls(form, standard):
    losses = [entry["loss"] for entry in standard(form).log("loss")]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3]), losses


def test_log_has_every_step_and_evaluation(form, standard):
    log = standard(form).log()
    training = [entry for entry in log if "loss" in entry]
    # 44 rows are five batches of 8 and one of 4, thus three steps of two batches
    assert [entry["step"] for entry in training] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([entry["epoch"] for entry in training], np.arange(1, STEPS + 1) / 3, rtol=1e-6)
    assert list(dict.fromkeys(entry["step"] for entry in log if "eval_loss" in entry)) == EVALUATIONS
    # linear: up in five steps, then down, to reach zero after the last
    highest = form.tests["rate"]
    up, down = np.arange(5) / 5, (STEPS - np.arange(5, STEPS)) / (STEPS - 5)
    expected = highest * np.concatenate([up, down])
    np.testing.assert_allclose([entry["learning_rate"] for entry in training], expected, rtol=1e-6)


def test_result_files_have_their_keys(form, standard, recomputed):
    run = standard(form)
    train, evaluation, prediction = (
        run.json(f"{split}_results.json") for split in ("train", "eval", "predict")
    )
    speed = {"runtime", "samples", "samples_per_second"}
    of_training = {"loss", "steps_per_second", f"{form.tests.get('unit', 'tokens')}_per_second", *speed}
    assert set(train) == {"epoch", *(f"train_{name}" for name in of_training)}
    details = form.tests.get("details", [])
    assert set(evaluation) == {f"eval_{name}" for name in {"loss", *speed, *recomputed, *details}}
    assert set(prediction) == {f"predict_{name}" for name in {"loss", *speed, *recomputed, *details}}
    assert run.json("all_results.json") == train | evaluation | prediction
    assert (train["epoch"], train["train_samples"]) == (pytest.approx(STEPS / 3), 44)
    assert (evaluation["eval_samples"], prediction["predict_samples"]) == (20, 40)
    # A mean over the tokens of each step, and of the steps.
    assert train["train_loss"] == pytest.approx(
        np.mean([entry["loss"] for entry in run.log("loss")]), rel=1e-6
    )

    state = run.json("trainer_state.json")
    # In the seventeenth epoch
    assert (state["global_step"], state["max_steps"], state["num_train_epochs"]) == (STEPS, STEPS, 17)
    assert state["epoch"] == pytest.approx(STEPS / 3)
    last = [entry for entry in run.log("eval_loss") if entry["step"] == STEPS][-1]
    assert last["eval_loss"] == pytest.approx(evaluation["eval_loss"], rel=1e-6)


@pytest.mark.crossed
def test_metrics_equal_those_of_another_library(form, standard, recomputed):
    reported = standard(form).json("predict_results.json")
    for name, value in recomputed.items():
        assert reported[f"predict_{name}"] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_predictions_differ_from_row_to_row(form, standard):
    path = standard(form).output / form.settings["predictions"]
    predictions = answers(path)
    assert rows_answered(path) == 40
    assert len({row[0] for row in predictions}) > form.tests["different"], predictions


@pytest.mark.needs("confusion")
def test_scores_and_confusions_of_each_label_add_up(form, standard, recomputed):
    run = standard(form)
    results, names = run.json("predict_results.json"), list(run.json("config.json")["label2id"])
    by_label = results["predict_by_label"]
    assert sorted(by_label) == sorted(names)
    assert sum(label["rows"] for label in by_label.values()) == 40
    for name, label in by_label.items():
        assert sum(label["predicted"].values()) == label["rows"]
        given = sum(other["predicted"].get(name, 0) for other in by_label.values())
        right = label["predicted"].get(name, 0)
        assert label["precision"] == pytest.approx(right / given if given else 0)
        assert label["recall"] == pytest.approx(right / label["rows"] if label["rows"] else 0)
    assert (run.output / "confusion_matrix.png").read_bytes()[:4] == b"\x89PNG"


def test_curve_is_a_picture(form, standard):
    content = (standard(form).output / "training_curve.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert 600 <= width <= 3000
    assert 400 <= height <= 3000
    assert len(content) > 10_000  # an empty one of this size has a tenth of that


@pytest.mark.sampled
def test_tensorboard_shows_the_log(form, standard):
    run = standard(form)
    code = """if True:
        import json, sys
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        events = EventAccumulator(sys.argv[1], {"scalars": 0}).Reload()
        shown = ("train/loss", "train/learning_rate", "eval/loss")
        print(json.dumps({tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in shown}))
    """
    (folder,) = {path.parent for path in run.output.glob("runs/**/events.*")}
    shown = json.loads(run_python("-c", code, folder))
    for tag, key in (
        ("train/loss", "loss"),
        ("train/learning_rate", "learning_rate"),
        ("eval/loss", "eval_loss"),
    ):
        logged = {entry["step"]: entry[key] for entry in run.log(key)}
        assert dict(shown[tag]) == pytest.approx(logged, rel=1e-6), tag


def test_run_file_tells_versions_and_command(form, standard):
    about = standard(form).json("run.json")
    assert (about["processes"], about["device"]) == (1, "cpu")
    assert {"python", "triptych", "transformers", "numpy"} <= set(about["versions"])
    assert "--max_train_samples" in about["command"]
    assert "<hidden>" in about["command"]


def test_no_file_holds_the_token(form, standard):
    run = standard(form)
    holders = [
        path for path in run.output.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert not holders
    assert SECRET not in run.stdout + run.stderr


def test_checkpoints_are_whole_and_few(form, standard):
    """With `--save_total_limit 3` the newest of five, and the best if it is none of these."""
    run = standard(form)
    best = min(run.log("eval_loss"), key=lambda entry: entry["eval_loss"])["step"]
    assert run.json("trainer_state.json")["best_global_step"] == best
    kept = {best, *EVALUATIONS[-3:]} if best in EVALUATIONS[-3:] else {best, *EVALUATIONS[-2:]}
    assert {path.name for path in run.output.glob("checkpoint-*")} == {f"checkpoint-{step}" for step in kept}
    newest = run.output / f"checkpoint-{STEPS}"
    listed = json.loads((newest / "manifest.json").read_text())["files"]
    present = {path.relative_to(newest).as_posix() for path in newest.rglob("*")}
    assert set(listed) == present - {"manifest.json"}
    assert "model.safetensors" in listed
    assert not list(run.output.glob(".*"))


@pytest.mark.sampled
def test_saved_model_reproduces_the_evaluation(form, standard, files, tmp_path):
    run = standard(form)
    words = flags(
        model_name_or_path=run.output, validation_file=files["validation_file"], max_eval_samples=20
    )
    again = run_script(form, *words, "--do_eval", *form.settings["flags"], folder=tmp_path)
    expected, found = run.json("eval_results.json"), again.json("eval_results.json")
    assert without_times(found) == approximately(without_times(expected), abs=1e-6)
    assert not (again.output / "train_results.json").exists()
    assert not (again.output / "model.safetensors").exists()  # nothing was trained, so nothing is saved


@pytest.mark.sampled
def test_arguments_file_reproduces_the_run(form, standard, tmp_path):
    run = standard(form)
    arguments = run.json("arguments.json") | {"output_dir": "out"}
    (tmp_path / "arguments.json").write_text(json.dumps(arguments))
    again = run_script(form, "arguments.json", folder=tmp_path, output=None)
    again.output = tmp_path / "out"
    for name in (form.settings["predictions"], "model.safetensors"):
        assert (again.output / name).read_bytes() == (run.output / name).read_bytes(), name
    assert again.log() == run.log()
    for split in ("eval", "predict"):
        assert without_times(again.json(f"{split}_results.json")) == without_times(
            run.json(f"{split}_results.json")
        )
    assert again.json("arguments.json") == arguments


def test_ends_with_a_table_and_the_next_command(form, standard, tmp_path):
    """The command offered at the end of a run without prediction is one that works."""
    run = standard(form)
    table = {line.split()[0]: line.split()[1:] for line in run.stdout.splitlines() if len(line.split()) == 4}
    assert float(table["loss"][1]) == pytest.approx(run.json("eval_results.json")["eval_loss"], abs=1e-3)
    assert "training_curve.png" in run.stdout
