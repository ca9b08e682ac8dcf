"""Pictures as people have them, for `make test-real`: 8,121 drawings of Debian's openclipart, three
of them too large to be decoded. And ViT-base's true shape with random weights, beside the stock Trainer and
the machine's limit."""

import json
import subprocess
import sys

import numpy as np
import pytest
from harness import ROOT, flags
from measuring import largest_difference, learn, print_table

DRAWINGS = ROOT / "build/openclipart"  # see the Makefile
PICTURES, CLASSES = 8121, 22
TOO_LARGE = (
    "stop_sign_right_font_mig_.png",
    "stop_sign_miguel_s_nchez_.png",
    "microchip_v.2_havok_redh_01.png",
)
SMALL = "image_size=32,patch_size=8,hidden_size=64,intermediate_size=128,num_hidden_layers=2"
SMALL += ",num_attention_heads=4,hidden_dropout_prob=0.0,attention_probs_dropout_prob=0.0"
STEPS, ROWS = 20, 16


@pytest.mark.timeout(3600)
def test_a_folder_with_broken_pictures_is_read_and_learnt_alike_in_every_form(forms, tmp_path, capsys):
    """The broken ones are named and left out of training, a part of the others is held out, new ones are
    predicted."""
    if not DRAWINGS.is_dir():
        pytest.skip(
            "openclipart-png is missing: `make build/openclipart` gets it where there is Debian's apt"
        )
    (tmp_path / "new").mkdir()
    new = sorted((DRAWINGS / "animals/birds").glob("*.png"))[:20]
    for path in new:
        (tmp_path / "new" / path.name).symlink_to(path)
    words = flags(
        model_type="vit",
        config_overrides=SMALL,
        train_dir=DRAWINGS,
        train_val_split=0.05,
        test_dir=tmp_path / "new",
        augment="trivial",
        do_train=True,
        do_eval=True,
        do_predict=True,
        max_steps=STEPS,
        per_device_train_batch_size=ROWS,
        per_device_eval_batch_size=ROWS,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    learnt, rows = {}, []
    for form in (one for one in forms if one.task == "image-classification"):
        run = learnt[form.name] = learn(form, words, tmp_path / form.name)
        first = next(iter(learnt.values()))
        difference = None if run is first else largest_difference(run.losses, first.losses)
        results = (run.results["eval_loss"], 100 * run.results["eval_accuracy"])
        rows.append([form.name, *results, difference, run.seconds, run.memory])
        log = (tmp_path / form.name / "log").read_text()
        held_out = run.results["eval_samples"]
        assert 0.04 * PICTURES < held_out < 0.06 * PICTURES
        assert f"train: 3 of {PICTURES - held_out} pictures dropped, which cannot be decoded: " in log
        assert all(name in log for name in TOO_LARGE)
        output = tmp_path / form.name / "out"
        assert len(json.loads((output / "config.json").read_text())["id2label"]) == CLASSES
        table = [line.split("\t") for line in (output / "predictions.tsv").read_text().splitlines()]
        assert [line[3] for line in table[1:]] == [path.name for path in new]
    print_table(("form", "loss", "accuracy", "largest difference", "CPU seconds", "memory, GB"), rows, capsys)
    for name, run in learnt.items():
        np.testing.assert_allclose(run.losses, first.losses, rtol=1e-4, err_msg=name)
        assert run.results["eval_samples"] == first.results["eval_samples"]


@pytest.mark.timeout(3600)
def test_every_form_trains_vit_base_as_the_stock_trainer_does(forms, capsys):
    """A part of the benchmarks, which keeps speed and memory in build/bench/table.md."""
    frameworks = ",".join({form.framework: None for form in forms})
    command = [sys.executable, ROOT / "benchmarks/bench.py", "--repetitions", "1", "--parts", "pictures"]
    done = subprocess.run([*command, "--frameworks", frameworks], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((ROOT / "build/bench/results.json").read_text())
    curves = {name: found[0]["losses"] for name, found in results["pictures, ViT-base"].items()}
    first = next(iter(curves.values()))
    assert len(first) == 6
    for name, losses in curves.items():
        assert losses == pytest.approx(first, rel=2e-4), name
    with capsys.disabled():
        print((ROOT / "build/bench/table.md").read_text())
