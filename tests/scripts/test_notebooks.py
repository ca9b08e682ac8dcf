"""A notebook does what its script does."""

import pytest
from harness import ROOT, finish_script, flags, run_script, start_script, without_times

AS_NOTEBOOK = ROOT / "tests/fixtures/as_notebook.py"


@pytest.mark.first_task
def test_cells_in_one_namespace_give_the_losses_of_the_script(form, start, files, tmp_path):
    words = flags(
        **{"model_name_or_path": start(form), "do_train": True, "do_eval": True, "do_predict": True},
        **{"train_file": files["train_file"], "validation_file": files["validation_file"]},
        **{"test_file": files["test_file"], "max_train_samples": 24, "max_eval_samples": 8},
        **{"max_predict_samples": 8, "max_steps": 3, "logging_steps": 1, **form.tests["short"]},
    )
    script = run_script(form, *words, *form.settings["flags"][:1], folder=tmp_path, output="script")
    words += [*form.settings["flags"][:1], *flags(output_dir="cells")]
    process = start_script(form, words, tmp_path, wrapper=[AS_NOTEBOOK])
    cells = finish_script(process, form, tmp_path / "cells", expect=0)
    expected, found = (without_times(run.json("all_results.json")) for run in (script, cells))
    assert {f"{split}_loss" for split in ("train", "eval", "predict")} <= expected.keys()
    assert found == expected
    assert [entry["loss"] for entry in cells.log("loss")] == [entry["loss"] for entry in script.log("loss")]
    files_of = [sorted(path.name for path in run.output.iterdir()) for run in (script, cells)]
    assert files_of[0] == files_of[1]
