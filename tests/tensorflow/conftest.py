"""What PyTorch answers to the same models and texts, models that have learnt something, and two devices."""

import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import harness
import numpy as np
import pytest
import tensorflow as tf
from transformers import AutoConfig

from triptych.tensorflow import checkpoint

REFERENCE = harness.ROOT / "tests/reference/torch_reference.py"
VARIANTS = ("t5", "t5-v1.1", "t5-v1.1-untied", "mt5", "bart", "bart-uneven", "bart-untied", "mbart")

# Before anything is computed, when it can no longer be done.
CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, 2 * [tf.config.LogicalDeviceConfiguration()])
tf.config.threading.set_intra_op_parallelism_threads(1)


def ask(folder: Path, jobs: list[dict]) -> None:
    (folder / "jobs.json").write_text(json.dumps(jobs, default=str))
    harness.run_python(REFERENCE, folder / "jobs.json")


@pytest.fixture(scope="session")
def ask_pytorch():
    """`ask_pytorch(folder, jobs)` does jobs of torch_reference.py in one process; `folder` keeps the list."""
    return ask


@pytest.fixture(scope="session")
def load():
    """`load(folder, **options)` is the model of a folder."""
    return lambda folder, **options: checkpoint.load(folder, AutoConfig.from_pretrained(folder), **options)


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def made(tmp_path_factory, batch) -> Path:
    """A folder with batch.npz and, for each of VARIANTS, a folder of a random model saved by PyTorch, beside
    it what PyTorch answers: logits.npz, gradients.npz, dropouts.json. Also VARIANT/initial, as transformers
    initialises it, and the checkpoints "bf16", "fp16" and "shards", a BART in several files."""
    root = tmp_path_factory.mktemp("made")
    np.savez(root / "batch.npz", **batch)
    jobs = [
        {"command": "make", "variant": "bart", "folder": root / "bf16", "dtype": "bfloat16"},
        {"command": "make", "variant": "t5", "folder": root / "fp16", "dtype": "float16"},
        {"command": "make", "variant": "bart", "folder": root / "shards", "max_shard_size": "30KB"},
    ]
    for variant in VARIANTS:
        folder = root / variant
        about = {"folder": folder, "inputs": root / "batch.npz"}
        jobs += [
            {"command": "make", "variant": variant, "folder": folder},
            {"command": "make", "variant": variant, "folder": folder / "initial", "noise": 0},
            {"command": "logits", **about, "outputs": folder / "logits.npz"},
            {"command": "gradients", **about, "outputs": folder / "gradients.npz"},
            {"command": "dropouts", **about, "outputs": folder / "dropouts.json"},
        ]
    ask(root, jobs)
    return root


@pytest.fixture(scope="session")
def batch() -> dict[str, np.ndarray]:
    """Sources and targets of several lengths, padded on the right, one source also on the left; the last
    labels of each target are missing."""
    draw = np.random.default_rng(0)
    source, target = np.array([12, 5, 1, 9]), np.array([7, 3, 5, 1])
    attention_mask = (np.arange(12) < source[:, None]).astype(np.int32)
    attention_mask[3, :2] = 0
    decoder_attention_mask = (np.arange(7) < target[:, None]).astype(np.int32)
    tokens = draw.integers(3, 120, (4, 20), dtype=np.int32)
    return {
        "input_ids": np.where(attention_mask, tokens[:, :12], 0),
        "attention_mask": attention_mask,
        "decoder_input_ids": np.where(decoder_attention_mask, tokens[:, 13:], 0),
        "decoder_attention_mask": decoder_attention_mask,
        "labels": np.where(np.arange(7) < target[:, None] - 1, tokens[:, 12:19], -100),
    }


@pytest.fixture(scope="session")
def trained() -> dict[str, Path]:
    """By "t5" and "bart", folders of small models that sort numbers, not always rightly: $TRIPTYCH_TINY_T5
    and $TRIPTYCH_TINY_BART, or made here, which takes half a minute each."""
    folders, fixtures = {}, Path(os.environ["TRIPTYCH_FIXTURES"])
    for name in ("t5", "bart"):
        made_here = fixtures / f"sorting-{name}/model"
        folders[name] = Path(os.environ.get(f"TRIPTYCH_TINY_{name.upper()}", made_here))
        if not folders[name].exists():
            job = {"command": "train", "variant": name, "folder": folders[name]}
            harness.once(folders[name].parent, lambda folder, job=job: ask(folder, [job]))
    return folders
