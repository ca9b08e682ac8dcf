"""One command, every form, the same run: each form's curve, results and checkpoints against the first's."""

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from harness import alike, all_forms, answers, flags, run_script, without_times

SEEDS = (1, 2, 3)
STEPS = 50
SCHEMA = json.loads((Path(__file__).parent / "results.schema.json").read_text())


@pytest.fixture(scope="session")
def parity_words(trained, files):
    """The command line that is compared: warm-up, decay, clipping, accumulation over a partial last batch."""

    def words(form, **changes):
        values = {
            "model_name_or_path": trained(form),
            **files,
            "do_train": True,
            "do_eval": True,
            "do_predict": True,
            "max_train_samples": 44,
            "max_eval_samples": 20,
            "max_predict_samples": 40,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "max_steps": STEPS,
            "learning_rate": 1e-4,
            "warmup_steps": 5,
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": STEPS // 2,
            "save_steps": STEPS // 2,
        }
        return [*flags(**values | changes), *form.settings["flags"]]

    return words


@pytest.fixture
def seed(request, first_form):
    """What a seed changes is in the package, so that three are for the first task, and one for each other."""
    if request.param != SEEDS[0] and not first_form.is_of_first_task:
        pytest.skip("one seed stands for all in this task")
    return request.param


@pytest.fixture(scope="session")
def parity_run(shared_run, parity_words):
    return lambda form, seed: shared_run(form, f"parity-{seed}", *parity_words(form, seed=seed))


@pytest.fixture
def measured(request):
    """`measured(what, figure, bar, forms=..., ...)` checks a figure against its bar, and notes both."""
    path = request.config.getoption("--figures")

    def note(what, figure, bar, where="", **about):
        if path:
            with open(path, "a") as file:
                file.write(json.dumps({"what": what, "figure": figure, "bar": bar, **about}) + "\n")
        assert figure <= bar, f"{what}: {figure:.3g} is above {bar:g}{where}"

    return note


def furthest(expected, found, bar):
    """The largest relative difference of two sequences, and the first place where it is above the bar."""
    differences = np.abs(np.subtract(found, expected)) / np.maximum(np.abs(expected), 1e-12)
    return float(differences.max()), int(np.argmax(differences > bar))


def first_of(task):
    return next(form for form in all_forms() if form.task == task)


def curve(run, key):
    return [entry[key] for entry in run.log(key)]


@pytest.mark.parametrize("seed", SEEDS, indirect=True)
def test_curve_is_the_first_forms(first_form, other_form, seed, parity_run, measured):
    first, other = parity_run(first_form, seed), parity_run(other_form, seed)
    about = {"task": first_form.task, "form": other_form.name, "seed": seed}
    expected, found = curve(first, "loss"), curve(other, "loss")
    assert len(expected) == len(found) == STEPS
    measured("first loss", furthest(expected[:1], found[:1], 1e-5)[0], 1e-5, **about)
    figure, place = furthest(expected, found, 1e-4)
    where = f" at step {place + 1}: {found[place]} instead of {expected[place]}"
    measured("loss curve", figure, 1e-4, where, losses=found, reference=expected, **about)
    figure, place = furthest(curve(first, "learning_rate"), curve(other, "learning_rate"), 1e-9)
    measured("learning rate", figure, 1e-9, f" at step {place + 1}", **about)


@pytest.mark.parametrize("seed", SEEDS, indirect=True)
def test_evaluation_is_the_first_forms(first_form, other_form, seed, parity_run, measured):
    first, other = parity_run(first_form, seed), parity_run(other_form, seed)
    about = {"task": first_form.task, "form": other_form.name, "seed": seed}
    figure, place = furthest(curve(first, "eval_loss"), curve(other, "eval_loss"), 1e-4)
    measured("eval_loss", figure, 1e-4, f" in evaluation {place + 1}", **about)
    name = first_form.settings["predictions"]
    expected, found = (answers(run.output / name) for run in (first, other))
    several = len({row[0] for row in expected}) > first_form.tests["different"]
    assert several, "the model says the same again and again, so that equality means nothing"
    different = [row for row, (a, b) in enumerate(zip(expected, found, strict=True)) if not alike(b, a)]
    where = "".join(f"; row {row}: {found[row]!r} instead of {expected[row]!r}" for row in different[:1])
    measured("predictions that differ", len(different), 0, where, **about)
    metrics = [without_times(run.json("predict_results.json")) for run in (first, other)]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-4)


def test_result_files_have_the_same_names_keys_and_types(form, parity_run):
    run = parity_run(form, SEEDS[0])
    of_task = json.loads((form.folder / "schema.json").read_text())
    for name, schema in (SCHEMA["files"] | of_task).items():
        jsonschema.validate(run.json(name), {"$defs": SCHEMA["$defs"], **schema})
    names, expected = (
        {path.name for path in one.output.iterdir() if path.is_file()}
        for one in (run, parity_run(first_of(form.task), SEEDS[0]))
    )
    assert names - {"training_args.bin"} == expected - {"training_args.bin"}


def test_model_of_each_form_is_loaded_by_every_other(form, parity_run, files, measured, tmp_path, forms):
    """A checkpoint of any form is one of transformers, and evaluates to the same wherever it is opened."""
    expected = parity_run(form, SEEDS[0]).json("eval_results.json")["eval_loss"]
    for reader in forms:
        if reader.task != form.task:
            continue
        words = flags(model_name_or_path=parity_run(form, SEEDS[0]).output, max_eval_samples=20)
        words += ["--do_eval", "--validation_file", files["validation_file"]]
        (tmp_path / reader.name).mkdir()
        again = run_script(reader, *words, *form.settings["flags"], folder=tmp_path / reader.name)
        figure = abs(again.json("eval_results.json")["eval_loss"] / expected - 1)
        measured("model loaded", figure, 1e-5, task=form.task, form=form.name, reader=reader.name)


def test_run_of_each_loop_is_continued_by_every_other(
    form, parity_run, parity_words, measured, tmp_path, forms
):
    """Stopped half-way, continued elsewhere: the curve follows that of the run that was never stopped."""
    if not form.is_loop:
        pytest.skip("the Trainer continues its own runs only")
    begun = parity_run(form, SEEDS[0])
    expected = curve(begun, "loss")
    for reader in forms:
        if reader.task != form.task or reader == form or not reader.is_loop:
            continue
        shutil.copytree(begun.output, tmp_path / reader.name / "out")
        shutil.rmtree(tmp_path / reader.name / f"out/checkpoint-{STEPS}")
        continued = run_script(reader, *parity_words(reader, seed=SEEDS[0]), folder=tmp_path / reader.name)
        assert f"Continuing after step {STEPS // 2}" in continued.stderr
        figure, place = furthest(expected, curve(continued, "loss"), 1e-4)
        about = {"task": form.task, "form": form.name, "reader": reader.name}
        measured("run continued", figure, 1e-4, f" at step {place + 1}", **about)


def test_losses_are_those_of_the_golden_curve(form, tiny, files, request, tmp_path):
    """Catches a change that moves all forms alike; `make golden` renews it."""
    words = flags(
        model_name_or_path=tiny / form.tests["bare"],
        train_file=files["train_file"],
        do_train=True,
        max_train_samples=64,
        per_device_train_batch_size=8,
        max_steps=8,
        learning_rate=1e-2,
        weight_decay=0.1,
        warmup_steps=2,
        label_smoothing_factor=0.1,
        logging_steps=1,
        save_strategy="no",
    )
    losses = curve(run_script(form, *words, folder=tmp_path), "loss")
    golden = form.folder / "golden.json"
    if request.config.getoption("--renew-golden"):
        if form == first_of(form.task):
            golden.write_text(json.dumps([round(loss, 6) for loss in losses], indent=2) + "\n")
        return
    np.testing.assert_allclose(losses, json.loads(golden.read_text()), rtol=1e-3)
