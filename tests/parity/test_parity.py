"""One command, every form, the same run: each form's curve, results and checkpoints against the first's."""

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from harness import STEPS, alike, all_forms, answers, approximately, flags, run_script, without_times

# What a seed changes is in the package.
SEEDS = (1, *(pytest.param(seed, marks=[pytest.mark.nightly, pytest.mark.first_task]) for seed in (2, 3)))
SCHEMA = json.loads((Path(__file__).parent / "results.schema.json").read_text())


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


@pytest.mark.parametrize("seed", SEEDS)
def test_curve_is_the_first_forms(first_form, other_form, seed, standard, measured):
    first, other = standard(first_form, seed), standard(other_form, seed)
    about = {"task": first_form.task, "form": other_form.name, "seed": seed}
    expected, found = curve(first, "loss"), curve(other, "loss")
    assert len(expected) == len(found) == STEPS
    measured("first loss", furthest(expected[:1], found[:1], 1e-5)[0], 1e-5, **about)
    figure, place = furthest(expected, found, 1e-4)
    where = f" at step {place + 1}: {found[place]} instead of {expected[place]}"
    measured("loss curve", figure, 1e-4, where, losses=found, reference=expected, **about)
    figure, place = furthest(curve(first, "learning_rate"), curve(other, "learning_rate"), 1e-9)
    measured("learning rate", figure, 1e-9, f" at step {place + 1}", **about)


@pytest.mark.parametrize("seed", SEEDS)
def test_evaluation_is_the_first_forms(first_form, other_form, seed, standard, measured):
    first, other = standard(first_form, seed), standard(other_form, seed)
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
    assert metrics[1] == approximately(metrics[0], rel=1e-4)


def test_result_files_have_the_same_names_keys_and_types(form, standard):
    run = standard(form)
    of_task = json.loads((form.folder / "schema.json").read_text())
    for name, schema in (SCHEMA["files"] | of_task).items():
        jsonschema.validate(run.json(name), {"$defs": SCHEMA["$defs"], **schema})
    names, expected = (
        {path.name for path in one.output.iterdir() if path.is_file()}
        for one in (run, standard(first_of(form.task)))
    )
    assert names - {"training_args.bin"} == expected - {"training_args.bin"}


# Tiny models of DeBERTa, whose attention is none of the other encoders'
DEBERTAS = {
    "text-classification": ("deberta-v2", {"ignore_mismatched_sizes": True}),
    "masked-language-modeling": ("masked-deberta", {"whole_word_mask": True}),
}


@pytest.mark.nightly
def test_deberta_learns_as_in_the_first_form(first_form, other_form, shared_run, tiny, files, measured):
    if first_form.task not in DEBERTAS:
        pytest.skip("no encoder")
    checkpoint, own = DEBERTAS[first_form.task]

    def run(form):
        words = flags(
            model_name_or_path=tiny / checkpoint,
            **files | own | form.longest(60),
            do_train=True,
            do_eval=True,
            do_predict=True,
            max_train_samples=60,
            max_eval_samples=20,
            max_predict_samples=20,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            max_steps=12,
            learning_rate=2e-3,
            logging_steps=1,
        )
        return shared_run(form, "deberta", *words, *form.settings["flags"])

    first, other = run(first_form), run(other_form)
    about = {"task": first_form.task, "form": other_form.name, "model": checkpoint}
    expected, found = curve(first, "loss"), curve(other, "loss")
    assert len(expected) == len(found) == 12
    assert expected[-1] < expected[0]
    measured("loss curve", furthest(expected, found, 1e-4)[0], 1e-4, **about)
    for name in ("eval_results.json", "predict_results.json"):
        expected, found = (without_times(each.json(name)) for each in (first, other))
        assert found == approximately(expected, rel=1e-4)


def evaluated_elsewhere(form, reader, standard, files, folder, measured):
    """The model of a form's run, evaluated by another form: to the same loss."""
    words = flags(model_name_or_path=standard(form).output, max_eval_samples=20, do_eval=True)
    words += ["--validation_file", files["validation_file"], *form.settings["flags"]]
    again = run_script(reader, *words, folder=folder)
    expected, found = (run.json("eval_results.json")["eval_loss"] for run in (standard(form), again))
    about = {"task": form.task, "form": form.name, "reader": reader.name}
    measured("model loaded", abs(found / expected - 1), 1e-5, **about)


def continued_elsewhere(form, reader, standard, standard_words, folder, measured):
    """The run of a loop, stopped half-way and continued by another: to the curve of the one never stopped."""
    begun = standard(form)
    shutil.copytree(begun.output, folder / "out")
    saved = sorted(int(path.name.partition("-")[2]) for path in begun.output.glob("checkpoint-*"))
    for step in saved[1:]:
        shutil.rmtree(folder / f"out/checkpoint-{step}")
    continued = run_script(reader, *standard_words(reader), folder=folder)
    assert f"Continuing after step {saved[0]}" in continued.stderr
    assert saved[0] <= STEPS - 20
    expected = curve(begun, "loss")
    figure, place = furthest(expected, curve(continued, "loss"), 1e-4)
    about = {"task": form.task, "form": form.name, "reader": reader.name}
    measured("run continued", figure, 1e-4, f" at step {place + 1}", **about)


def next_of(form, forms):
    """The one after a form in the ring of its task's forms, and the others."""
    own = [one for one in forms if one.task == form.task]
    at = own.index(form) + 1
    following = [*own[at:], *own[: at - 1]]
    return following[:1], following[1:]


@pytest.fixture
def loops(form, forms):
    if not form.is_loop:
        pytest.skip("the Trainer continues its own runs only")
    return [one for one in forms if one.is_loop]


def test_model_of_each_form_is_evaluated_by_the_next(form, forms, standard, files, measured, tmp_path):
    """A checkpoint of any form is one of transformers, and evaluates to the same wherever it is opened: in a
    ring, every form writes and every form reads."""
    for reader in next_of(form, forms)[0]:
        evaluated_elsewhere(form, reader, standard, files, tmp_path, measured)


@pytest.mark.nightly
def test_model_of_each_form_is_evaluated_by_every_other(form, forms, standard, files, measured, tmp_path):
    for reader in next_of(form, forms)[1]:
        (tmp_path / reader.name).mkdir()
        evaluated_elsewhere(form, reader, standard, files, tmp_path / reader.name, measured)


@pytest.mark.sampled
def test_run_of_each_loop_is_continued_by_the_next(form, loops, standard, standard_words, measured, tmp_path):
    for reader in next_of(form, loops)[0]:
        continued_elsewhere(form, reader, standard, standard_words, tmp_path, measured)


@pytest.mark.nightly
def test_run_of_each_loop_is_continued_by_every_other(
    form, loops, standard, standard_words, measured, tmp_path
):
    for reader in next_of(form, loops)[1]:
        (tmp_path / reader.name).mkdir()
        continued_elsewhere(form, reader, standard, standard_words, tmp_path / reader.name, measured)


@pytest.mark.crossed
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
