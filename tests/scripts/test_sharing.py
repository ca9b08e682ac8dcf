"""Runs that are pushed to a hub and loaded from it; the hub is tests/hub.py, its clients are real."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from harness import all_forms, finish_script, flags, interpreter, once, script_environment, start_script
from hub import LARGE, READS, USER, WRITES, Hub
from huggingface_hub import ModelCard
from interruption import leaks

from triptych.output import checkpoints

REPOSITORY = f"{USER}/headlines"
SHARED = {
    *("README.md", "all_results.json", "arguments.json", "config.json", "eval_results.json", "run.json"),
    *("model.safetensors", "train_results.json", "trainer_state.json", "training_curve.png"),
}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


def shared(form):
    """The files that a run has on the hub, whatever its task."""
    return SHARED | ({"preprocessor_config.json"} if form.tests.get("pictures") else TOKENIZER)


@pytest.fixture
def words(trained, files, form):
    def words(**changes):
        values = {
            "model_name_or_path": trained(form),
            **files,
            "do_train": True,
            "do_eval": True,
            "max_train_samples": 16,
            "max_eval_samples": 8,
            "max_steps": 2,
            "logging_steps": 1,
            "save_steps": 1,
            "save_total_limit": 1,
            "push_to_hub": True,
            "hub_model_id": REPOSITORY,
            "hub_token": WRITES,
            "output_dir": "out",
        }
        return [*flags(**values | changes), *form.settings["flags"]]

    return words


def run_on(hub, form, words, folder, expect=0, **environment):
    process = start_script(form, words, folder, **hub.environment(folder / "cache") | environment)
    return finish_script(process, form, folder / "out", expect)


@pytest.fixture
def pushed(words):
    """A folder in which a form ran and pushed, to the hub in its folder `hub`, which broke off the first time
    that the result was to be committed."""

    def push(form):
        def build(folder):
            with Hub(folder / "hub") as hub:
                commits = []

                def breaks(path, body):
                    is_result = b"Result of a training run" in body
                    commits.extend([path] * is_result)
                    return is_result and len(commits) == 1

                hub.fails = breaks
                run = run_on(hub, form, words(hub_strategy="checkpoint"), folder)
                assert hub.tokens <= {"", WRITES}
                (folder / "said").write_text(run.stdout + run.stderr)
                (folder / "requests").write_text("\n".join(hub.requests))

        return once(Path(os.environ["TRIPTYCH_TEST_RUN"]) / "pushed" / form.task / form.name, build)

    return push


@pytest.mark.sampled
def test_result_is_on_the_hub_as_it_is_here(form, pushed):
    folder = pushed(form)
    found, output = Hub(folder / "hub").files(REPOSITORY), folder / "out"
    of_run = {name for name in found if not name.startswith("last-checkpoint/")}
    of_task = {"generation_config.json", "special_tokens_map.json", "spiece.model", "confusion_matrix.png"}
    of_task |= {"samples.png"} if form.tests.get("pictures") else set()
    assert of_run - of_task == shared(form)
    assert {name: found[name] for name in of_run} == {name: (output / name).read_bytes() for name in of_run}
    assert checkpoints.verify(folder / "hub" / REPOSITORY / "last-checkpoint") == []
    assert (output / "model.safetensors").stat().st_size > LARGE
    assert "PUT /objects/" in (folder / "requests").read_text(), "nothing went by git LFS"
    assert leaks(output, WRITES) == leaks(folder / "hub", WRITES) == []
    said = (folder / "said").read_text()
    assert WRITES not in said
    assert f"Pushed to {REPOSITORY}" in said
    assert "once more in" in said


@pytest.mark.neutral
@pytest.mark.sampled
def test_model_card_is_read_back(form, pushed):
    output = pushed(form) / "out"
    card = ModelCard.load(output / "README.md")
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    found = json.loads((output / "eval_results.json").read_text())
    assert results == {
        name.removeprefix("eval_"): pytest.approx(value, abs=1e-4)
        for name, value in found.items()
        if "_per_" not in name and not name.endswith(("_runtime", "_samples", "_by_label"))
    }
    assert f'TASK = "{card.data.pipeline_tag}"\n' in form.script.read_text()
    about = json.loads((output / "run.json").read_text())
    for wanted in (about["training_rows"], f"triptych {about['versions']['triptych']}", '"max_steps": 2'):
        assert wanted in card.text
    assert "(training_curve.png)" in card.text


@pytest.mark.neutral
@pytest.mark.sampled
def test_dataset_is_loaded_by_name_with_the_token(form, words, files, tmp_path):
    for split in ("train", "validation"):
        path = tmp_path / "hub/datasets" / REPOSITORY / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(files[f"{split}_file"]).read_bytes())
    changes = {"train_file": None, "validation_file": None, "test_file": None, "push_to_hub": None}
    with Hub(tmp_path / "hub") as hub:
        asked = words(**changes, dataset_name=REPOSITORY, hub_token=READS)
        # `datasets` counts loads, and looks for Parquet files, at other servers: not noted
        run = run_on(hub, form, asked, tmp_path, TRIPTYCH_CONNECTIONS=os.devnull)
    assert any(request.endswith("train.jsonl") for request in hub.requests)
    assert hub.tokens == {READS}, hub.requests
    assert run.json("eval_results.json")["eval_samples"] == 8


@pytest.mark.sampled
def test_model_is_loaded_by_name_whatever_framework_pushed_it(form, forms, pushed, words, tmp_path):
    """And by the code in its card, in its own framework. No request lacks the token."""
    others = [one for one in all_forms() if one.task == form.task and one.framework != form.framework]
    other = next((one for one in others if one.name in [selected.name for selected in forms]), form)
    folder = pushed(other)
    expected = json.loads((folder / "out/eval_results.json").read_text())["eval_loss"]
    changes = {"model_name_or_path": REPOSITORY, "do_train": None, "push_to_hub": None, "hub_token": READS}
    with Hub(folder / "hub") as hub:
        run = run_on(hub, form, words(**changes), tmp_path)
        assert hub.tokens == {READS}, hub.requests
        code = ModelCard.load(folder / "out/README.md").text.split("```python\n")[1:]
        code = code[0] if form.framework == "pytorch" else code[1].replace("tensorflow", form.framework)
        reads = "processor.size" if form.tests.get("pictures") else "len(tokenizer) > 100"
        program = code.split("```")[0] + f"\nassert model is not None and {reads}"
        environment = script_environment() | hub.environment(tmp_path / "cache")
        done = subprocess.run(
            [interpreter(form.framework), "-c", program], env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((run.output / "eval_results.json").read_text())["eval_loss"]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.neutral
@pytest.mark.parametrize(
    ("token", "repository", "offline"),
    [
        (READS, REPOSITORY, "0"),
        ("hf_nobody", REPOSITORY, "0"),
        (WRITES, "others/headlines", "0"),
        (WRITES, REPOSITORY, "1"),
    ],
    ids=["reads only", "unknown token", "not ours", "offline"],
)
@pytest.mark.first_task
def test_missing_right_to_push_is_told_before_training(token, repository, offline, form, words, tmp_path):
    with Hub(tmp_path / "hub") as hub:
        (tmp_path / "hub" / repository).mkdir(parents=True)
        given = words(hub_token=token, hub_model_id=repository)
        run = run_on(hub, form, given, tmp_path, expect=2, HF_HUB_OFFLINE=offline)
    assert len(run.problems) == 1
    assert f"--push_to_hub: {repository} cannot be written to" in run.problems[0]
    assert token not in run.stderr
    assert not run.output.exists()


@pytest.mark.neutral
@pytest.mark.first_task
def test_hub_that_stays_away_leaves_the_result_and_a_command_that_works(form, words, tmp_path):
    with Hub(tmp_path / "hub") as hub:
        hub.fails = lambda path, body: (tmp_path / "out/train_results.json").exists()
        run = run_on(hub, form, words(), tmp_path, expect=1)
        (run.output / "diary.txt").write_text("not of a run")
        hub.fails = lambda path, body: False
        assert "Traceback" not in run.stderr
        assert (run.output / "eval_results.json").exists()
        command = shlex.split(
            run.stderr.partition("To push it later, after `hf auth login`:\n")[2].strip().splitlines()[0]
        )
        program = [interpreter(form.framework).replace("python", "hf"), *command[1:]]
        environment = script_environment() | hub.environment(tmp_path / "cache")
        environment |= {"HF_TOKEN": WRITES, "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert hub.files(REPOSITORY).keys() >= shared(form)
        others = hub.files(REPOSITORY).keys() - shared(form)
        assert not [
            name for name in others if name.startswith(("checkpoint", "diary")) or name.endswith(".bin")
        ]
