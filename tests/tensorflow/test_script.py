"""What only the script in TensorFlow has: traces that are counted, several devices, and the README's fit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from harness import ROOT, all_forms, finish_script, flags, start_script

FORM = next(form for form in all_forms() if str(form) == "summarization/tensorflow")
README = ROOT / "examples/tensorflow/summarization/README.md"


@pytest.fixture(scope="session")
def words(samples, tiny):
    """A function that gives the command line of a short run with batches of several shapes."""

    def words(**changes):
        values = {
            "model_name_or_path": tiny / "t5",
            "train_file": samples / "train.jsonl",
            "validation_file": samples / "validation.jsonl",
            "do_train": True,
            "do_eval": True,
            "max_train_samples": 43,
            "max_eval_samples": 11,
            "max_target_length": 40,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "predict_with_generate": True,
            "output_dir": "out",
        }
        return flags(**values | changes)

    return words


@pytest.fixture(scope="session")
def one_device(words, tmp_path_factory):
    """A run on one device, in whose folder traces.json has the number of each function's traces."""
    folder = tmp_path_factory.mktemp("one")
    wrapper = Path(__file__).with_name("traces.py"), folder / "traces.json"
    process = start_script(FORM, words(), folder, wrapper=wrapper, anew=True)
    return finish_script(process, FORM, folder / "out", expect=0)


def test_one_trace_serves_batches_of_every_shape(one_device):
    """A trace for each shape would cost seconds each."""
    counts = json.loads((one_device.output.parent / "traces.json").read_text())
    assert counts == dict.fromkeys(("add_gradients", "update", "evaluation_step"), 1)


@pytest.mark.timeout(240)
def test_two_devices_give_what_one_gives(words, one_device, tmp_path):
    """With 43 rows in batches of 8, the last batch of an epoch has three: one for a device, two for the
    other; of the last evaluation batch, with three rows on four places, likewise."""
    sizes = {f"per_device_{split}_batch_size": 4 for split in ("train", "eval")}
    process = start_script(FORM, words(**sizes), tmp_path, TRIPTYCH_CPU_DEVICES="2")
    two = finish_script(process, FORM, tmp_path / "out", expect=0)
    assert two.json("run.json")["device"] == "2 cpu devices"
    for expected, found in zip(one_device.log(), two.log(), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    for name in ("eval_loss", "eval_rouge1", "eval_gen_len"):
        expected, found = (run.json("eval_results.json")[name] for run in (one_device, two))
        assert found == pytest.approx(expected, rel=1e-5)


def test_fit_of_the_readme_learns(made, tmp_path):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    draw = np.random.default_rng(1)
    tokens = draw.integers(5, 25, (16, 9))
    inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "decoder_input_ids": tokens[:, :5]}
    labels = np.where(np.arange(5) < 4, tokens[:, 1:6], -100)
    dataset = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(4).repeat(20)
    names = {"folder": made / "t5", "dataset": dataset, "output": tmp_path}
    exec(code, names)
    losses = names["history"].history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    assert (tmp_path / "model.safetensors").exists()
