"""The Trainer form on an XLA device, the one that torch_xla makes of a CPU: for `make test-xla`."""

import json
import os
import subprocess

import pytest
from harness import ROOT, Run, flags, remember, run_script, script_environment

SPAWN = ROOT / "examples/pytorch/xla_spawn.py"
SECONDS = 1200  # two programs, one for each kind of step, are compiled


@pytest.fixture
def words(trained, files, form):
    if form.name != "pytorch-trainer":
        pytest.skip("the other forms have launchers of their own")
    changes = {form.settings["tests"]["length"]: 64, "pad_to_max_length": True}
    return flags(
        model_name_or_path=trained(form),
        **{name: files[name] for name in ("train_file", "validation_file")},
        do_train=True,
        do_eval=True,
        max_train_samples=24,
        max_eval_samples=8,
        max_steps=4,
        logging_steps=1,
        learning_rate=1e-4,
        optim="adamw_torch",
        **changes,
    )


@pytest.mark.timeout(SECONDS)
def test_xla_gives_the_losses_of_a_cpu(form, words, tmp_path):
    expected = run_script(form, *words, folder=tmp_path, output="cpu").output
    environment = script_environment() | {"PJRT_DEVICE": "CPU"}
    command = [os.environ["TRIPTYCH_XLA_PYTHON"], str(SPAWN), "--num_cores", "1", str(form.script), *words]
    done = subprocess.run(
        [*command, "--output_dir", "xla"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = tmp_path / "xla"
    remember(form, Run(0, "", "", found), "")
    assert json.loads((found / "run.json").read_text())["device"] == "xla"
    logs = (json.loads((f / "trainer_state.json").read_text())["log_history"] for f in (expected, found))
    for one, other in zip(*logs, strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    results = (json.loads((f / "eval_results.json").read_text())["eval_loss"] for f in (expected, found))
    assert next(results) == pytest.approx(next(results), rel=1e-5)


def test_without_either_library_it_says_what_to_install(form, words, tmp_path):
    environment = script_environment() | {"PJRT_DEVICE": "CPU"}
    python = ROOT / ".venv/pytorch/bin/python"
    command = [python, SPAWN, form.script, *words, "--output_dir", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "neither torch_tpu nor torch_xla is installed" in done.stderr
    assert "pip install" in done.stderr
