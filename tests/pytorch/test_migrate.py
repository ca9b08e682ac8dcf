"""Migrated models answer as they did in the library that saved them, and as torch reads their files."""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

from triptych.errors import InputError
from triptych.migrate import migrate
from triptych.pytorch import models

OLD = Path(__file__).resolve().parents[1] / "fixtures/old"
FOLDERS = sorted(path.parent.name for path in OLD.glob("*/answers.npz"))

specification = importlib.util.spec_from_file_location("compare", OLD / "compare.py")
compare = importlib.util.module_from_spec(specification)
specification.loader.exec_module(compare)


@pytest.mark.parametrize("name", FOLDERS)
def test_migrated_models_answer_as_before(name, tmp_path):
    """All weights are random, and the second row is padded."""
    migrate(OLD / name, tmp_path / "new")
    largest, odd = compare.difference(tmp_path / "new", OLD / name / "answers.npz")
    assert odd == {}
    assert largest < 1e-6
    asked = np.load(OLD / name / "answers.npz")
    assert np.ptp(asked["logits"]) > 0.1
    assert len(AutoTokenizer.from_pretrained(tmp_path / "new")) == 60


@pytest.mark.parametrize("name", ["tf-bert-parts", "flax-t5"])
def test_scripts_take_migrated_models(name, tmp_path):
    migrate(OLD / name, tmp_path / "new")
    model_args = SimpleNamespace(
        model_name_or_path=str(tmp_path / "new"), cache_dir=None, model_revision=None, trust_remote_code=False
    )
    settings = {"seed": 0, "gradient_checkpointing": False}
    cls = AutoModelForSeq2SeqLM if "t5" in name else AutoModelForSequenceClassification
    config = AutoConfig.from_pretrained(tmp_path / "new")
    model = models.load(model_args, SimpleNamespace(), SimpleNamespace(**settings), config, cls)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
def test_what_torch_saves_is_read_bit_for_bit(is_zip, dtype, tmp_path):
    linear = torch.nn.Linear(5, 3).to(dtype)
    table = linear.state_dict()  # which has attributes, too
    table["turned"] = torch.randn(4, 6).to(dtype)[1:, ::2].T
    table["tied"] = table["weight"]
    table["parameter"] = torch.nn.Parameter(torch.randn(2).to(dtype))
    table["ids"] = torch.arange(7).expand(1, -1)
    table["mask"] = torch.tensor([True, False])
    table["none"] = torch.zeros(0, 3)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text('{"model_type": "bert"}')
    torch.save(table, tmp_path / "old/pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    migrate(tmp_path / "old", tmp_path / "new")
    found = load_file(tmp_path / "new/model.safetensors")
    assert found.keys() == table.keys()
    for name, value in table.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value.detach()), name


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
def test_pickle_of_torch_that_calls_is_refused_and_nothing_ran(is_zip, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_text('{"model_type": "bert"}')
    path, table = (
        tmp_path / "old/pytorch_model.bin",
        {"weight": torch.ones(2), "trap": Trap(tmp_path / "ran")},
    )
    torch.save(table, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(InputError, match=r"names posix\.system"):
        migrate(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "new").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists(), "it would have run"
