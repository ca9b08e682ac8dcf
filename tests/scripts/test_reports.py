"""What people's bug reports found, in whole runs: what the unit tests cannot see of it."""

import json
import shutil

import pytest
from harness import answers, finish_script, flags, run_script, start_script

from triptych.output import lock


def put_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def find(problems, *parts):
    """The one problem that mentions all parts."""
    matching = [problem for problem in problems if all(part in problem for part in parts)]
    assert len(matching) == 1, f"{parts} in {problems}"


@pytest.mark.first_task
def test_trackers_metrics_and_a_busy_folder_are_looked_at_before_anything(form, start, files, tmp_path):
    assert lock.acquire(tmp_path / "out") == []
    try:
        words = flags(
            model_name_or_path=start(form),
            train_file=files["train_file"],
            validation_file=files["validation_file"],
            do_train=True,
            eval_strategy="steps",
            predict_with_generate=form.tests.get("generates"),
            metric_for_best_model="eval_rouge7",
            report_to="tensorboard,wnadb",
        )
        problems = run_script(form, *words, folder=tmp_path, expect=2).problems
        assert [path.name for path in (tmp_path / "out").iterdir()] == [lock.NAME]
    finally:
        lock.release()
    find(problems, "--report_to wnadb", "did you mean wandb?")
    find(problems, "--metric_for_best_model rouge7", "loss")
    find(problems, "--output_dir out", "another run", "is at work there")


@pytest.mark.first_task
def test_tokenizer_and_model_that_do_not_go_together_are_refused(form, start, files, tmp_path):
    """In every form with the same words, all at once: here a token too many, and a pickle alone."""
    shutil.copytree(start(form), tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] - 1}))
    (tmp_path / "model/model.safetensors").rename(tmp_path / "model/pytorch_model.bin")
    words = flags(model_name_or_path="model", train_file=files["train_file"], do_train=True)
    run = run_script(form, *words, folder=tmp_path, expect=2)
    assert len(run.problems) == 2
    find(run.problems, "beyond the model's table", "resize_token_embeddings")
    find(run.problems, "pytorch_model.bin", "python -m triptych.migrate model NEW_FOLDER")
    assert not run.output.exists()


@pytest.mark.nightly
def test_rows_without_a_text_or_a_label_keep_their_place(form, trained, samples, tmp_path):
    column, limit = form.tests["column"], {"max_predict_samples": 5}
    is_scored = not form.tests.get("generates")  # row by row, where it has a label
    rows = [json.loads(line) for line in (samples / "test.jsonl").read_text().splitlines()[:6]]
    words = flags(model_name_or_path=trained(form), do_predict=True, test_file="whole.jsonl", **limit)
    put_rows(tmp_path / "whole.jsonl", rows)
    whole = run_script(form, *words, *form.settings["flags"], folder=tmp_path, output="whole")
    *outer, last = form.reads
    for number, empty in ((1, ""), (4, " ")):
        holder = rows[number]
        for key in outer:
            holder = holder[key]
        holder[last] = empty
    if form.tests.get("spans"):
        rows[1][column], rows[4][column] = [], []
    if is_scored:
        rows[2][column] = None
    put_rows(tmp_path / "gaps.jsonl", rows)
    words[words.index("whole.jsonl")] = "gaps.jsonl"
    gaps = run_script(form, *words, *form.settings["flags"], folder=tmp_path, output="gaps")
    name = form.settings["predictions"]
    if name.endswith(".json"):
        expected = whole.json(name)
        assert gaps.json(name) == {key: text for key, text in expected.items() if key not in ("2", "5")}
        assert gaps.json("predict_results.json")["predict_total"] == 2
        return
    expected = (whole.output / name).read_text().splitlines()
    if name.endswith(".txt"):
        expected[1] = expected[4] = ""
    else:
        del expected[5], expected[2]
    assert (gaps.output / name).read_text().splitlines() == expected
    scored = {key for key in gaps.json("predict_results.json") if key.startswith("predict_accuracy")}
    assert bool(scored) == is_scored


@pytest.mark.nightly
@pytest.mark.first_with("one_language")
@pytest.mark.parametrize(
    ("model", "lang"),
    [
        ("mbart", "en_XX"),
        ("mbart-2020", "en_XX"),
        ("marian", None),
        ("m2m100", "fr"),
        ("nllb", "fra_Latn"),
        ("pegasus", None),
    ],
)
def test_rows_learnt_by_heart_are_said_by_heart(form, model, lang, tiny, tmp_path):
    """Which they are not where generation begins from another token than training."""
    names, things = ("kim", "leo", "ana", "tom"), ("red", "blue")
    rows = [{"text": f"{name} has one {it}", "summary": f"{name} {it}"} for name in names for it in things]
    put_rows(tmp_path / "rows.jsonl", rows)
    words = flags(
        model_name_or_path=tiny / model,
        train_file="rows.jsonl",
        test_file="rows.jsonl",
        lang=lang,
        do_train=True,
        do_predict=True,
        max_steps=250,
        learning_rate=5e-3,
        max_source_length=32,
        max_target_length=16,
    )
    run = run_script(form, *words, folder=tmp_path)
    assert answers(run.output / form.settings["predictions"]) == [[row["summary"]] for row in rows]
    assert run.json("predict_results.json")["predict_rouge1"] == 100


# A container that runs under a number: no home, and no name for it
NOBODY = """if True:
    import os, pwd, runpy, sys, tempfile

    def unknown(number):
        raise KeyError(number)

    pwd.getpwuid, tempfile.tempdir = unknown, os.getcwd()
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "HF_HOME", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    sys.argv.pop(0)
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.nightly
@pytest.mark.first_task
def test_run_without_a_home_or_a_name(form, start, files, tmp_path):
    (tmp_path / "nobody.py").write_text(NOBODY)
    words = flags(
        model_name_or_path=start(form),
        validation_file=files["validation_file"],
        do_eval=True,
        max_eval_samples=4,
    )
    words += [*form.settings["flags"], *flags(**form.tests["short"])]
    words += flags(output_dir="out")
    process = start_script(form, words, tmp_path, wrapper=[tmp_path / "nobody.py"], anew=True)
    run = finish_script(process, form, tmp_path / "out", expect=0)
    assert "eval_loss" in run.json("eval_results.json")
    assert not (tmp_path / "~").exists()
