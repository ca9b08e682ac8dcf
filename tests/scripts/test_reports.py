"""What people's bug reports found, in whole runs: what the unit tests cannot see of it."""

import json

import pytest
from harness import answers, flags, run_script


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
