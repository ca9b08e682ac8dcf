"""Today's scripts score what a frozen project left for them as its own did; called by tools/frozen.py.

$TRIPTYCH_LEFT holds a folder for each model: `model/`, in whatever format the project writes,
`validation.jsonl`, and `case.json` with `task`, `flags` of that task's scripts, and `results`, the figures
that they are to come to.
"""

import json
import os
from pathlib import Path

import pytest
from harness import all_forms, run_python

if "TRIPTYCH_LEFT" not in os.environ:
    pytest.skip("tools/frozen.py says what was left", allow_module_level=True)
LEFT = Path(os.environ["TRIPTYCH_LEFT"])
CASES = {path.parent.name: json.loads(path.read_text()) for path in sorted(LEFT.glob("*/case.json"))}
RUNS = [(name, form) for name, case in CASES.items() for form in all_forms() if form.task == case["task"]]


def test_something_was_left():
    assert CASES, f"{LEFT} holds no */case.json"
    assert {name for name, _ in RUNS} == {*CASES}, "a task of theirs has no scripts"


@pytest.mark.parametrize(("name", "by"), RUNS, ids=str)
def test_today_s_scripts_score_alike(name, by, tmp_path):
    case, model = CASES[name], LEFT / name / "model"
    if not (model / "model.safetensors").is_file():
        run_python("-m", "triptych.migrate", model, tmp_path / "new", framework=by.framework)
        model = tmp_path / "new"
    words = [
        "--model_name_or_path",
        model,
        "--validation_file",
        LEFT / name / "validation.jsonl",
        *case["flags"],
    ]
    words += ["--do_eval", "--per_device_eval_batch_size", "40", "--output_dir", tmp_path / "out"]
    run_python(by.script, *words, framework=by.framework)
    found = json.loads((tmp_path / "out/eval_results.json").read_text())
    path = LEFT / name / "scored.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | {by.name: found["eval_loss"]}))
    for figure in ("eval_loss", "eval_accuracy"):
        if figure in case["results"]:
            assert found[figure] == pytest.approx(case["results"][figure], abs=1e-6, rel=0)
