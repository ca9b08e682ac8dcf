"""What people's bug reports found, in whole runs: what the unit tests cannot see of it."""

import json

import pytest
from harness import answers, finish_script, flags, run_script, start_script


def put_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.nightly
@pytest.mark.first_with("generates")
@pytest.mark.parametrize("model", ["mbart", "mbart-2020"])
def test_rows_learnt_by_heart_are_said_by_heart(form, model, tiny, tmp_path):
    """Which they are not where generation begins from another token than training."""
    names, things = ("kim", "leo", "ana", "tom"), ("red", "blue")
    rows = [{"text": f"{name} has one {it}", "summary": f"{name} {it}"} for name in names for it in things]
    put_rows(tmp_path / "rows.jsonl", rows)
    words = flags(
        model_name_or_path=tiny / model,
        train_file="rows.jsonl",
        test_file="rows.jsonl",
        lang="en_XX",
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
