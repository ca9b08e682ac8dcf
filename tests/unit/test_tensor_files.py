"""Tensors of folders: found, read, written."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from triptych.errors import InputError
from triptych.models import tensor_files


def flags(name, cache_dir=None):
    return SimpleNamespace(model_name_or_path=name, model_revision=None, cache_dir=cache_dir)


def test_folder_without_safetensors_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        tensor_files.read_model(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match=r"only pytorch_model\.bin, a pickle.*python -m triptych\.migrate /"):
        tensor_files.read_model(tmp_path)
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "tf_model.h5")
    with pytest.raises(InputError, match=r"only tf_model\.h5\. Make a folder.*python -m triptych\.migrate /"):
        tensor_files.read_model(tmp_path)
    (tmp_path / tensor_files.MODEL).write_bytes(b"no such thing")
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        tensor_files.read_model(tmp_path)


@pytest.mark.parametrize("name", ["flax-t5-safe", "tf-t5-safe"])
def test_safetensors_with_other_names_are_refused_with_the_command_that_migrates_them(name, tmp_path):
    folder = Path(__file__).resolve().parents[1] / "fixtures/old" / name
    with pytest.raises(InputError, match=rf"names of {name[:2]}.*python -m triptych\.migrate .*{name} NEW"):
        tensor_files.read_model(folder)
    shutil.copy(folder / "model.safetensors", tmp_path / "a-1.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "a-1.safetensors"}}')
    assert "triptych.migrate" in tensor_files.format_problems(str(tmp_path))[0]
    for content, text in (("[", "no index"), ('{"weight_map": {"x": "../y"}}', "beside it")):
        index.write_text(content)
        with pytest.raises(InputError, match=text):
            tensor_files.read_model(tmp_path)


def test_model_out_of_reach_is_refused_and_folder_is_taken(tmp_path):
    assert tensor_files.local_folder(flags(str(tmp_path))) == tmp_path
    assert tensor_files.local_folder(flags(None)) is None
    for name in ("somebody/some-model", "./no/such/folder"):
        with pytest.raises(InputError, match=name):
            tensor_files.local_folder(flags(name))


def test_hub_name_finds_the_copy_in_the_cache(tmp_path):
    repository = tmp_path / "models--somebody--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc123")
    snapshot = repository / "snapshots/abc123"
    snapshot.mkdir(parents=True)
    assert tensor_files.local_folder(flags("somebody/some-model", tmp_path)) == snapshot


def test_optimizer_comes_back(tmp_path):
    moments = {kind: {"a.weight": np.ones((2, 3), np.float32)} for kind in ("exp_avg", "exp_avg_sq")}
    tensor_files.write_optimizer(tmp_path, moments, 7)
    found, step = tensor_files.read_optimizer(tmp_path)
    assert step == 7
    assert found.keys() == moments.keys()
    assert np.array_equal(found["exp_avg"]["a.weight"], moments["exp_avg"]["a.weight"])
    tensor_files.write_optimizer(tmp_path, {}, 0)
    assert tensor_files.read_optimizer(tmp_path) == ({}, 0)
