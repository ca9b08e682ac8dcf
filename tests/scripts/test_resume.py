"""A run that was stopped and continued is the run that was not stopped, to the last bit."""

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from harness import SECONDS_PER_RUN, finish_script, flags, once, run_script, start_script

STEPS = 120


@pytest.fixture(scope="session")
def long_words(start, files):
    """Flags of a run with all that has a state: dropout, moments, warm-up, groups of length, workers."""
    return lambda form: flags(
        model_name_or_path=start(form),
        config_overrides=form.tests["dropout"],
        train_file=files["train_file"],
        validation_file=files["validation_file"],
        do_train=True,
        max_train_samples=101,
        max_eval_samples=8,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=STEPS,
        learning_rate=1e-2,
        warmup_steps=30,
        weight_decay=0.1,
        logging_steps=3,
        eval_strategy="steps",
        eval_steps=40,
        save_steps=20,
        group_by_length="length" in form.tests or None,
        dataloader_num_workers=2,
    )


@pytest.fixture(scope="session")
def uninterrupted(shared_run, long_words):
    return lambda form: shared_run(form, "uninterrupted", *long_words(form))


@pytest.fixture
def stopped(long_words, tmp_path):
    """The folder of a run that was told to stop after its 40th step, and the step at which it did."""

    def build(form, folder):
        process = start_script(form, [*long_words(form), "--output_dir", "out"], folder)
        deadline = time.monotonic() + SECONDS_PER_RUN
        while (
            not (folder / "out/checkpoint-40").exists()
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        ended = finish_script(process, form, folder / "out", expect=128 + signal.SIGTERM)
        assert "SIGTERM" in ended.stderr

    def run(form):
        folder = Path(os.environ["TRIPTYCH_TEST_RUN"]) / "runs/stopped" / form.task / form.name
        shutil.copytree(once(folder, partial(build, form)), tmp_path, dirs_exist_ok=True)
        step = max(int(path.name.partition("-")[2]) for path in (tmp_path / "out").glob("checkpoint-*"))
        assert 40 <= step < STEPS, f"stopped at {step}, too late to test anything"
        return tmp_path, step

    return run


def assert_same(found, expected):
    assert found.log() == expected.log()
    assert found.json("trainer_state.json") | {"log_history": []} == expected.json("trainer_state.json") | {
        "log_history": []
    }
    for name in ("model.safetensors", f"checkpoint-{STEPS}/model.safetensors"):
        assert (found.output / name).read_bytes() == (expected.output / name).read_bytes(), name


def steps_done(run):
    results = run.json("train_results.json")
    return round(results["train_steps_per_second"] * results["train_runtime"])


@pytest.mark.sampled
def test_stopped_and_continued_run_equals_the_uninterrupted(form, long_words, uninterrupted, stopped):
    folder, step = stopped(form)
    continued = run_script(form, *long_words(form), folder=folder)
    assert steps_done(continued) == STEPS - step
    assert_same(continued, uninterrupted(form))


@pytest.mark.neutral
@pytest.mark.first_task
def test_half_a_checkpoint_is_none(form, long_words, uninterrupted, stopped):
    """The one before it is taken, which is said, and the run ends as if nothing had happened."""
    folder, step = stopped(form)
    weights = folder / f"out/checkpoint-{step}/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    continued = run_script(form, *long_words(form), folder=folder)
    assert f"checkpoint-{step} is damaged" in continued.stderr
    assert steps_done(continued) == STEPS - (step - 1) // 20 * 20
    assert_same(continued, uninterrupted(form))


def is_trainer(form):
    """Whether a form is of the Trainer, whose checkpoints are of a kind of their own."""
    return not form.script.name.endswith("_no_trainer.py") and form.framework == "pytorch"


@pytest.mark.first_task
def test_trainer_and_loop_refuse_each_others_checkpoints(
    first_form, other_form, long_words, uninterrupted, tmp_path
):
    assert not first_form.is_loop
    for form, writer in ((first_form, other_form), (other_form, first_form)):
        shutil.copytree(uninterrupted(writer).output, tmp_path / form.name / "out")
        refused = run_script(form, *long_words(form), folder=tmp_path / form.name, expect=2)
        assert "is a checkpoint of another form" in refused.problems[0]
        assert refused.json("run.json") == uninterrupted(writer).json("run.json")


@pytest.mark.first_task
def test_finished_run_started_again_says_so_and_changes_nothing(form, long_words, uninterrupted, tmp_path):
    before = uninterrupted(form)
    shutil.copytree(before.output, tmp_path / "out")
    again = run_script(form, *long_words(form), folder=tmp_path)
    assert f"The run is finished: it ended after step {STEPS}." in again.stderr
    for name in ("train_results.json", "trainer_state.json"):
        assert again.json(name) == before.json(name)
    assert (again.output / "model.safetensors").read_bytes() == (
        before.output / "model.safetensors"
    ).read_bytes()


def changed(words, **values):
    """A command line with other values for some of its flags."""
    return (
        [*words, *flags(**values)]
        if not set(map("--{}".format, values)) & set(words)
        else [
            str(values.get(words[at - 1].removeprefix("--"), word))
            if at and words[at - 1].startswith("--")
            else word
            for at, word in enumerate(words)
        ]
    )


@pytest.mark.neutral
@pytest.mark.first_task
def test_other_course_is_refused_by_name(form, long_words, uninterrupted, files, tmp_path):
    """All that differs at once, and nothing is written."""
    shutil.copytree(uninterrupted(form).output, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    changes = {"learning_rate": 2e-2, "per_device_train_batch_size": 4, "max_train_samples": 99}
    length = form.tests["length"]
    words = changed(changed(long_words(form), **changes), seed=7, **{length: 99})
    refused = run_script(form, *words, folder=tmp_path, expect=2)
    for sign in ("--learning_rate 0.02", "_batch_size 4", "training rows", "--seed 7", f"--{length} 99"):
        assert sum(sign in problem for problem in refused.problems) == 1, refused.stderr
    assert "Give what it began with" in refused.problems[-1]
    refused = run_script(form, *changed(long_words(form), max_steps=STEPS + 2), folder=tmp_path, expect=2)
    assert f"--max_steps {STEPS + 2}: makes {STEPS + 2} steps instead of {STEPS}" in refused.problems[0]
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


@pytest.fixture(scope="session")
def constant_run(shared_run, start, files):
    """A run whose learning rate does not depend on its length, without dropout, which each framework has for
    itself."""

    def words(form):
        return flags(
            model_name_or_path=start(form),
            train_file=files["train_file"],
            do_train=True,
            max_train_samples=24,
            per_device_train_batch_size=4,
            max_steps=12,
            learning_rate=1e-3,
            lr_scheduler_type="constant_with_warmup",
            weight_decay=0.1,
            warmup_steps=3,
            logging_steps=1,
            save_steps=6,
        )

    return words, lambda form: shared_run(form, "constant", *words(form))


@pytest.mark.first_task
def test_run_is_lengthened_where_the_schedule_allows(form, constant_run, tmp_path):
    words, run = constant_run
    shutil.copytree(run(form).output, tmp_path / "out")
    longer = run_script(form, *changed(words(form), max_steps=14, logging_steps=2), folder=tmp_path)
    assert steps_done(longer) == 2
    assert longer.json("trainer_state.json")["global_step"] == 14
    assert longer.log("loss")[:12] == run(form).log("loss")
