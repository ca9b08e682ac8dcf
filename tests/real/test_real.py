"""t5-small's true shape, random weights, real text: 20 steps in every form, for `make test-real`.

Beside the losses it notes time and memory, and prints them as the table that stands in the README.
"""

import json
import os
import subprocess
import time

import numpy as np
import pytest
from harness import flags, interpreter, once, run_python, script_environment

STEPS = 20
TABLE = (
    *("form", "first loss", "last loss", "largest difference"),
    *("start and end, s", "training, s", "tokens/s", "evaluation, s", "memory, GB"),
)
MAKE_MODEL = """
import sys, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
config = transformers.T5Config(dropout_rate=0, decoder_start_token_id=tokenizer.pad_token_id)
torch.manual_seed(1)
transformers.T5ForConditionalGeneration(config).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """Docstrings of the standard library, and a model of t5-small's shape with 32,128 tokens."""

    def build(folder):
        run_python("-m", "triptych.samples", "docstrings", folder)
        text = ["--files", folder / "train.jsonl", "--vocab_size", "8000"]
        run_python("-m", "triptych.samples", "tokenizer", folder / "tokenizer", *text)
        run_python("-c", MAKE_MODEL, folder / "tokenizer", folder / "model")

    return once(tmp_path_factory.getbasetemp() / "real", build)


def measure(form, words, folder):
    """Runs a script; its output folder, the seconds of the whole process, and its peak memory in GB."""
    command = [interpreter(form.framework), str(form.script), *words]
    environment = script_environment() | {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "jax")}
    del environment["OMP_NUM_THREADS"]  # the other tests run side by side
    with open(folder / "log", "w") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "log").read_text()[-3000:]
    return folder / "out", seconds, usage.ru_maxrss / 1e6


@pytest.mark.timeout(3600)
def test_every_form_trains_the_true_shape_alike(real, forms, tmp_path, capsys):
    words = flags(
        model_name_or_path=real / "model",
        train_file=real / "train.jsonl",
        validation_file=real / "validation.jsonl",
        do_train=True,
        do_eval=True,
        predict_with_generate=True,
        max_eval_samples=16,
        max_source_length=512,
        max_target_length=32,
        per_device_train_batch_size=8,
        max_train_samples=8 * STEPS,
        max_steps=STEPS,
        learning_rate=5e-5,
        warmup_steps=5,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    rows, curves = [], {}
    runs = [(form.name, form) for form in forms if form.task == "summarization"]
    # Once more with the programs that were compiled before
    runs += [(f"{name}, compiled before", form) for name, form in runs if form.framework == "flax"]
    for name, form in runs:
        folder = tmp_path / name
        folder.mkdir()
        output, seconds, memory = measure(form, words, folder)
        log = json.loads((output / "trainer_state.json").read_text())["log_history"]
        trained = json.loads((output / "train_results.json").read_text())
        evaluated = json.loads((output / "eval_results.json").read_text())["eval_runtime"]
        losses = curves[name] = np.array([entry["loss"] for entry in log])
        difference = np.abs(losses / next(iter(curves.values())) - 1).max()
        runtime = trained["train_runtime"]
        figures = (losses[0], losses[-1], difference, seconds - runtime - evaluated, runtime)
        others = (trained["train_tokens_per_second"], evaluated, memory)
        rows.append([name, *(f"{value:.4g}" for value in figures + others)])
    with capsys.disabled():
        for row in (TABLE, ["---"] * len(TABLE), *rows):
            print(f"| {' | '.join(row)} |")
    assert all(float(row[3]) <= 1e-4 for row in rows), "the forms do not train alike: see the table"
    for name, losses in curves.items():
        assert losses[-1] < losses[0], name
