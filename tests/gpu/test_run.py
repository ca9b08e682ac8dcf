"""`make test-gpu` gone through on a processor, for `make test-real`: some ten minutes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import machine
import pytest
from harness import all_forms, interpreter, run_python
from speed import TRUE

PROGRAM = Path(__file__).with_name("run.py")
COUNT = """
import json, sys, torch, transformers
model_type, auto_class, sizes = sys.argv[1:]
config = transformers.AutoConfig.for_model(model_type, **json.loads(sizes))
with torch.device("meta"):
    model = getattr(transformers, auto_class).from_config(config)
print(model.num_parameters())
"""


@pytest.fixture
def pythons(monkeypatch):
    """The environments' interpreters, for the program."""
    for name in ("pytorch", "flax"):
        monkeypatch.setenv(f"TRIPTYCH_{name.upper()}_PYTHON", interpreter(name))


def test_true_shapes_have_as_many_parameters_as_the_published_models():
    """t5-small's 60.5 million and BERT-base's 109.5 million, the classifier of two labels with 1,538 more."""
    counted = []
    for shape, auto_class in zip(TRUE, ("Seq2SeqLM", "SequenceClassification"), strict=True):
        sizes = json.dumps(shape.sizes | {"vocab_size": shape.vocabulary})
        counted.append(int(run_python("-c", COUNT, shape.model_type, f"AutoModelFor{auto_class}", sizes)))
    assert counted == [60_506_624, 109_482_240 + 1_538]


def test_jax_that_lacks_the_deterministic_operations_is_tested_without(pythons, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "DETERMINISTIC", "--xla_no_such_flag=true")
    found = machine.Machine("cpu", 60, tmp_path)
    found.find(["flax"], ["summarization"])
    assert not found.knows_deterministic
    assert "--xla_no_such_flag" in found.skipped[0]
    assert list(found.frameworks) == ["flax"]
    assert "XLA_FLAGS" not in found.variables(exact=True)


@pytest.mark.timeout(3600)
def test_every_part_runs_on_a_processor(pythons, tmp_path):
    """All checks pass, all figures are there; float16 is refused, as it is on a processor."""
    command = [sys.executable, str(PROGRAM), "--device", "cpu", "--out", str(tmp_path)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["problems"] == figures["skipped"] == []

    forms = [form for form in all_forms() if form.framework != "tensorflow"]
    said = {(check["form"], check["what"]): check["said"] for check in figures["checks"]}
    for form in forms:
        name = f"{form.task}, {form.name}"
        assert said[name, "float32"] == "0.0e+00"
        assert float(said[name, "bfloat16"]) > 0
        assert said[name, "float16"] == "refused"
        assert said[name, "continued"] == "exact"
        assert name in done.stdout

    names = ["stock Trainer", *dict.fromkeys(form.name for form in forms)]
    rows = [(row["shape"], row["precision"], row["form"]) for row in figures["speed"]]
    assert rows == [
        (shape, precision, name)
        for shape in ("tiny T5", "tiny BERT")
        for precision in ("float32", "bfloat16")
        for name in names
    ]
    for row in figures["speed"]:
        ratios = () if row["form"] == "stock Trainer" else ("times_stock", "of_stock")
        for key in ("tokens", "step", "memory", "of_limit", "of_card", *ratios):
            assert math.isfinite(row[key])
            assert row[key] > 0
