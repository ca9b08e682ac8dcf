"""Old checkpoints become ones that are read today, whole; what is broken or hostile is refused in a line
each.

The folders of tests/fixtures/old were written by transformers 4 in its three libraries; that their answers
are the same, tests/pytorch/test_migrate.py sees.
"""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import msgpack
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from triptych.errors import InputError, RunError
from triptych.migrate import migrate, msgpack_files, names
from triptych.migrate.tensors import Tensor
from triptych.models import barts, tensor_files

OLD = Path(__file__).resolve().parents[1] / "fixtures/old"
FOLDERS = sorted(path.parent.name for path in OLD.glob("*/answers.npz"))
# Tables that PyTorch keeps under several names, and others once
TIED = {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}


@pytest.fixture
def old(tmp_path):
    """A copy of one of the folders, to be broken."""

    def copy(name, config=None):
        shutil.copytree(OLD / name, tmp_path / "old")
        if config:
            whole = json.loads((tmp_path / "old/config.json").read_text()) | config
            (tmp_path / "old/config.json").write_text(json.dumps(whole))
        return tmp_path / "old"

    return copy


def empty(folder, model_type="bert"):
    """A folder with nothing but a configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def refused(folder, *texts, problems=1):
    """Asserts that nothing comes of a folder but so many sentences, one of which holds each of the texts."""
    new = folder.parent / "new"
    with pytest.raises(InputError) as raised:
        migrate(folder, new)
    found = raised.value.problems
    assert len(found) == problems, found
    assert all(problem.isprintable() and len(problem) < 600 for problem in found), found
    for text in texts:
        assert any(text in problem for problem in found), (text, found)
    assert not new.exists()
    assert [path.name for path in folder.parent.glob(".unfinished*")] == []
    return found


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_each_library_get_the_names_and_shapes_of_pytorch(name, tmp_path):
    before = contents(OLD / name)
    done = migrate(OLD / name, tmp_path / "new")
    assert contents(OLD / name) == before
    found = load_file(tmp_path / "new/model.safetensors")
    model = name.split("-")[1]
    reference = "bin-t5-parts" if model == "t5" else "bin-bert-legacy"
    migrate(OLD / reference, tmp_path / "reference")
    expected = load_file(tmp_path / "reference/model.safetensors")
    assert {key: value.shape for key, value in found.items() if key not in TIED} == {
        key: value.shape for key, value in expected.items() if key not in TIED
    }
    assert all(value.dtype == np.float32 and value.std() > 0.1 for value in found.values())
    assert done.tensors == len(found)
    with safe_open(tmp_path / "new/model.safetensors", framework="numpy") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert tensor_files.format_problems(str(tmp_path / "new")) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_configuration_tokenizer_and_settings_of_generation_come_along(name, tmp_path):
    done = migrate(OLD / name, tmp_path / "new")
    written = {path.name for path in (tmp_path / "new").iterdir()}
    kept = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    kept |= {"generation_config.json"} if "t5" in name else set()
    assert written == kept | {"model.safetensors"}
    assert set(done.copied) == kept
    assert done.left == ["answers.npz"]
    for file in kept - {"config.json"}:
        assert (tmp_path / "new" / file).read_bytes() == (OLD / name / file).read_bytes()
    configs = [json.loads((folder / "config.json").read_text()) for folder in (OLD / name, tmp_path / "new")]
    assert configs[0] == configs[1]


def test_command_says_what_it_did_and_ends_with_2_at_anything_wrong(tmp_path):
    def run(*words):
        command = [sys.executable, "-m", "triptych.migrate", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run(OLD / "flax-t5", "new")
    assert (done.returncode, done.stderr) == (0, "")
    assert "new/model.safetensors: 47 tensors of flax_model.msgpack" in done.stdout
    assert "left where they are: answers.npz" in done.stdout
    again = run(OLD / "flax-t5", "new")
    assert again.returncode == 2
    assert again.stderr.splitlines() == [
        "python -m triptych.migrate: new is not empty, and nothing is overwritten: name a folder that is not "
        "there yet."
    ]
    assert run(OLD / "nowhere", "new").stderr.count("\n") == 2
    assert run("-h").returncode == 0
    assert run().returncode == 2


def test_nothing_but_numpy_and_one_reader_is_imported(tmp_path):
    code = (
        "import sys; from triptych.migrate import migrate; migrate(*sys.argv[1:3]); "
        "print(*{'h5py', 'msgpack', 'torch', 'tensorflow', 'jax', 'transformers', 'pickle'} & {*sys.modules})"
    )
    for name, expected in (("bin-bert-legacy", set()), ("tf-t5", {"h5py"}), ("flax-t5", {"msgpack"})):
        command = [sys.executable, "-c", code, OLD / name, tmp_path / name]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        # NumPy imports pickle, and does not use it here.
        assert {*ran.stdout.split()} - {"pickle"} == expected


@pytest.mark.parametrize(("name", "library"), [("tf-bert-parts", "h5py"), ("flax-t5", "msgpack")])
def test_missing_reader_is_named_with_the_command_that_installs_it(old, name, library, monkeypatch):
    monkeypatch.setattr("triptych.migrate.find_spec", lambda wanted: None if wanted == library else True)
    refused(old(name), f"needs {library}: run `pip install {library}`")


def test_all_that_is_wrong_is_told_at_once(old, tmp_path):
    folder = old("bin-t5-parts")
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model-00001-of-00003.bin").write_bytes(b"nothing of the kind")
    (folder / "pytorch_model-00003-of-00003.bin").write_bytes(b"")
    refused(folder, "it has no model_type", "00001-of-00003.bin", "00003-of-00003.bin", problems=3)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/kept").touch()
    with pytest.raises(InputError) as raised:
        migrate(folder, tmp_path / "new")
    assert len(raised.value.problems) == 4
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kept"]


def test_new_folder_may_be_empty_but_no_file_and_no_link(tmp_path):
    (tmp_path / "empty").mkdir()
    assert migrate(OLD / "flax-t5", tmp_path / "empty").tensors == 47
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(InputError, match="is no folder"):
            migrate(OLD / "flax-t5", tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()
    assert migrate(OLD / "flax-t5", tmp_path / "made/on/the/way").tensors == 47


def test_nothing_half_is_left_where_writing_fails(tmp_path, monkeypatch):
    def fail(*anything):
        raise OSError(28, "No space left on device")

    def interrupt(*anything):
        raise KeyboardInterrupt

    for place in ("os.fsync", "shutil.copyfile"):
        with monkeypatch.context() as patched:
            patched.setattr(place, fail)
            with pytest.raises(RunError, match=r"could not be written.*No space left"):
                migrate(OLD / "tf-t5", tmp_path / "new")
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        migrate(OLD / "tf-t5", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_model_that_does_not_fit_on_the_disk_is_refused(old, monkeypatch):
    monkeypatch.setattr("triptych.migrate.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    refused(old("tf-t5"), "bytes, and 1,000 are free")


def test_folder_that_needs_no_migration_or_has_nothing_says_so(old, tmp_path):
    migrate(OLD / "flax-t5", tmp_path / "first")
    with pytest.raises(InputError, match=r"needs no migration: its model\.safetensors is PyTorch's"):
        migrate(tmp_path / "first", tmp_path / "second")
    folder = empty(tmp_path / "old")
    refused(folder, "has no weights: there is none of pytorch_model.bin, model.safetensors, tf_model.h5")
    shutil.rmtree(folder)
    shutil.copytree(OLD / "flax-t5-safe", folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", {"format": "mlx"})
    refused(folder, "of the format mlx, which is not known")


def test_pytorchs_own_file_is_taken_where_there_are_several(old):
    folder = old("tf-t5")
    for path in OLD.glob("bin-t5-parts/*"):
        shutil.copy(path, folder)
    assert migrate(folder, folder.parent / "new").source == "pytorch_model.bin.index.json"


def test_classes_of_tensorflow_and_flax_in_a_configuration_lose_their_prefix(old):
    folder = old("flax-bert-parts", {"architectures": ["FlaxBertForMaskedLM", "TFBertModel", "BertModel"]})
    migrate(folder, folder.parent / "new")
    config = json.loads((folder.parent / "new/config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM", "BertModel", "BertModel"]


def test_what_flax_computes_otherwise_is_said_and_what_it_leaves_out_is_made(tmp_path):
    array = {"kernel": packed(np.arange(6, dtype=np.float32).reshape(2, 3))}
    for model_type in ("electra", "bert", "pegasus"):
        folder = empty(tmp_path / model_type, model_type)
        (folder / "flax_model.msgpack").write_bytes(msgpack.packb({"model": array}))
    assert "compare its answers" in migrate(tmp_path / "electra", tmp_path / "new").notes[0]
    assert migrate(tmp_path / "bert", tmp_path / "new-bert").notes == []
    settings = {"model_type": "pegasus", "max_position_embeddings": 12, "d_model": 8}
    (tmp_path / "pegasus/config.json").write_text(json.dumps(settings))
    migrate(tmp_path / "pegasus", tmp_path / "new-pegasus")
    found = load_file(tmp_path / "new-pegasus/model.safetensors")
    positions = barts.sinusoids(12, 8, from_padding=False)
    assert np.array_equal(found.pop("model.encoder.embed_positions.weight"), positions)
    assert np.array_equal(found.pop("model.decoder.embed_positions.weight"), positions)
    assert found["model.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]


# Names and axes


def moved(rule, name, *shape):
    tensor = Tensor("F32", shape, lambda: np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    ((new, found),) = names.renamed({name: tensor}, rule).items()
    assert found.read().shape == found.shape
    return new, found.read()


@pytest.mark.parametrize(
    ("rule", "name", "shape", "expected", "axes"),
    [
        ("flax", "a.q.kernel", (2, 3), "a.q.weight", (1, 0)),
        ("flax", "conv.kernel", (2, 3, 4), "conv.weight", (2, 1, 0)),
        ("flax", "conv.kernel", (2, 3, 4, 5), "conv.weight", (3, 2, 0, 1)),
        ("flax", "a.scale", (2,), "a.weight", (0,)),
        ("flax", "shared.embedding", (2, 3), "shared.weight", (0, 1)),
        ("flax", "norm.mean", (2,), "norm.running_mean", (0,)),
        ("flax", "norm.var", (2,), "norm.running_var", (0,)),
        ("flax", "stages.0.layer.layer_1.scale", (2,), "stages.0.layer.1.weight", (0,)),
        ("flax", "final_logits_bias", (1, 2), "final_logits_bias", (0, 1)),
        ("tf", "bert/encoder/layer_._0/dense/kernel:0", (2, 3), "bert.encoder.layer.0.dense.weight", (1, 0)),
        ("tf", "conv/kernel:0", (2, 3, 4), "conv.weight", (2, 1, 0)),
        ("tf", "conv/kernel:0", (2, 3, 4, 5), "conv.weight", (3, 2, 0, 1)),
        ("tf", "conv/depthwise_kernel:0", (2, 3, 4, 5), "conv.weight", (2, 3, 0, 1)),
        ("tf", "conv/weight_g:0", (2, 3, 4), "conv.weight_g", (2, 1, 0)),
        ("tf", "stages.0/layers.0/norm/gamma:0", (2,), "stages.0.layers.0.norm.weight", (0,)),
        ("tf", "a/LayerNorm/beta:0", (2,), "a.LayerNorm.bias", (0,)),
        ("tf", "shared/embeddings:0", (2, 3), "shared.weight", (0, 1)),
        ("tf", "a/moving_mean:0", (2,), "a.running_mean", (0,)),
        ("tf", "a/moving_variance:0", (2,), "a.running_var", (0,)),
        ("tf", "mlm___cls/predictions/bias:0", (2,), "cls.predictions.bias", (0,)),
        ("tf", "h_._0/attn/c_attn/weight:0", (2, 3), "h.0.attn.c_attn.weight", (0, 1)),
        ("tf", "final_logits_bias:0", (1, 2), "final_logits_bias", (0, 1)),
        ("pt", "a.LayerNorm.gamma", (2,), "a.LayerNorm.weight", (0,)),
        ("pt", "a.LayerNorm.beta", (2,), "a.LayerNorm.bias", (0,)),
        ("pt", "a.kernel", (2, 3), "a.kernel", (0, 1)),
    ],
)
def test_names_and_axes_are_pytorchs(rule, name, shape, expected, axes):
    new, found = moved(rule, name, *shape)
    assert new == expected
    assert np.array_equal(found, np.arange(found.size).reshape(shape).transpose(axes))


def test_biases_of_gpt2_lose_their_first_axis():
    new, found = moved("tf", "h_._0/attn/c_attn/bias:0", 1, 3)
    assert (new, found.tolist()) == ("h.0.attn.c_attn.bias", [0, 1, 2])


def test_two_tensors_of_one_name_are_refused():
    tensor = Tensor("F32", (1,), lambda: np.zeros(1, np.float32))
    with pytest.raises(InputError, match=r"Two tensors would be called a\.weight"):
        names.renamed({"a.scale": tensor, "a.weight": tensor}, "flax")
    with pytest.raises(InputError, match="No tensor of a model is called"):
        names.renamed({"a\nb": tensor}, "flax")


# Files of Flax


def packed(array, dtype=None):
    """An array as Flax writes it."""
    content = (array.shape, dtype or array.dtype.name, array.tobytes())
    return msgpack.ExtType(1, msgpack.packb(content))


def flax_file(folder, tree):
    empty(folder)
    (folder / "flax_model.msgpack").write_bytes(tree if isinstance(tree, bytes) else msgpack.packb(tree))
    return folder


def test_types_collections_and_chunks_of_flax_are_read(tmp_path):
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    chunks = {str(number): packed(part.ravel()) for number, part in enumerate(np.split(whole, 3))}
    joined = {"__msgpack_chunked_array__": True, "shape": {"0": 3, "1": 4}, "chunks": chunks}
    tree = {
        "params": {
            "half": {"kernel": packed(np.ones((2, 3), np.float16))},
            "brain": {"bias": packed(np.array([0x3F80, 0x4000], np.uint16), "bfloat16")},
            "large": {"scale": joined},
            "number": msgpack.ExtType(3, msgpack.packb(((), "float32", np.float32(7).tobytes()))),
        },
        "batch_stats": {"norm": {"mean": packed(np.ones(2, np.float32))}},
    }
    done = migrate(flax_file(tmp_path / "old", tree), tmp_path / "new")
    assert done.tensors == 5
    with safe_open(tmp_path / "new/model.safetensors", framework="numpy") as opened:
        types = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        assert np.array_equal(opened.get_tensor("large.weight"), whole)
        assert opened.get_tensor("number") == 7
        assert opened.get_tensor("half.weight").shape == (3, 2)
    assert types["half.weight"] == "F16"
    assert types["brain.bias"] == "BF16"
    assert struct.pack("<HH", 0x3F80, 0x4000) in (tmp_path / "new/model.safetensors").read_bytes()
    assert "norm.running_mean" in types


NESTED = b"\x81\xa1a" * 200_000 + b"\xc0"
HOSTILE_FLAX = {
    "nothing": (b"", "cannot be read"),
    "text": (b"no such thing", "damaged, or not written by Flax"),
    "list without end": (b"\xdd\xff\xff\xff\xff" * 400, "damaged, or not written by Flax"),
    "table without end": (b"\xdf\xff\xff\xff\xff", "damaged, or not written by Flax"),
    "bytes without end": (b"\x81\xa1a\xc6\xff\xff\xff\xff1", "damaged, or not written by Flax"),
    "extension without end": (b"\x81\xa1a\xc9\x7f\xff\xff\xff\x011", "damaged, or not written by Flax"),
    "deep": (NESTED, "damaged, or not written by Flax"),
    "two trees": (msgpack.packb({}) * 2, "damaged, or not written by Flax"),
    "no tensors": ({}, "holds no tensors"),
    "a number": ({"a": {"b": 1}}, "holds a.b, which is no tensor"),
    "another extension": ({"a": msgpack.ExtType(5, b"x")}, "an extension of number 5"),
    "objects": ({"a": packed(np.zeros(1), "object")}, "numbers of the type object"),
    "too few bytes": ({"a": msgpack.ExtType(1, msgpack.packb(((9,), "float32", b"1234")))}, "4 bytes"),
    "huge shape": ({"a": msgpack.ExtType(1, msgpack.packb(((2**62, 2**62), "float32", b"")))}, "0 bytes"),
    "negative shape": ({"a": msgpack.ExtType(1, msgpack.packb(((-1, -1), "float32", b"1234")))}, "is none"),
    "garbage in an array": ({"a": msgpack.ExtType(1, b"\xff")}, "damaged"),
    "chunks that are none": ({"a": {msgpack_files.CHUNKED: True, "shape": {}, "chunks": {}}}, "whose parts"),
    "no chunks": ({"a": {msgpack_files.CHUNKED: True}}, "damaged"),
    "a name with a break": ({"a\nb": packed(np.zeros(1, np.float32))}, "No tensor of a model is called"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", HOSTILE_FLAX)
def test_hostile_files_of_flax_are_refused(name, tmp_path):
    tree, text = HOSTILE_FLAX[name]
    refused(flax_file(tmp_path / "old", tree), text)


def test_file_of_flax_that_ends_early_is_refused(old):
    folder = old("flax-t5")
    whole = (folder / "flax_model.msgpack").read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        (folder / "flax_model.msgpack").write_bytes(whole[:length])
        refused(folder, "damaged, or not written by Flax")


# Files of TensorFlow


def keras_file(folder, fill):
    """A file such as Keras writes, with the layer `dense`, that `fill` adds to."""
    empty(folder)
    with h5py.File(folder / "tf_model.h5", "w") as file:
        file.attrs["layer_names"] = ["dense"]
        group = file.create_group("dense")
        group["model/dense/kernel:0"] = np.ones((2, 3), np.float16)
        group.attrs["weight_names"] = ["model/dense/kernel:0"]
        fill(file)
    return folder


def test_half_precision_and_shared_variables_of_keras_are_read(tmp_path):
    def fill(file):
        file["other/model/dense/kernel:0"] = np.ones((2, 3), np.float16)
        file.attrs["layer_names"] = ["dense", "other"]

    migrate(keras_file(tmp_path / "old", fill), tmp_path / "new")
    found = load_file(tmp_path / "new/model.safetensors")
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        "dense.weight": ((3, 2), np.float16)
    }


def make_external(file):
    file["dense"].create_dataset("secret", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def make_virtual(file):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "secret", (4,))
    file["dense"].create_virtual_dataset("secret", layout)


def make_packed(file):
    file["dense"].create_dataset("bomb", (10**6,), "f4", data=np.zeros(10**6, "f4"), compression="gzip")


def make_link(file):
    file["dense/elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    file["dense/soft"] = h5py.SoftLink("/dense/nowhere")
    file["dense"].attrs["weight_names"] = ["elsewhere", "soft"]


def make_different(file):
    file["other/model/dense/kernel:0"] = np.zeros((2, 3), np.float16)
    file.attrs["layer_names"] = ["dense", "other"]


def make_again_and_again(file):
    kernel = file["dense"].create_dataset("large", data=np.ones(50_000, np.float32))
    for number in range(100):
        file[f"dense/again{number}"] = kernel


HOSTILE_KERAS = {
    "another file's bytes": (make_external, "dense/secret lies in another file"),
    "another file's data": (make_virtual, "dense/secret lies in another file"),
    "packed": (make_packed, "dense/bomb is packed"),
    "huge and never written": (
        lambda file: file["dense"].create_dataset("huge", (2**40,), "f4"),
        "claims 4,398,046,511,104 bytes, and 0 are there",
    ),
    "huge and in chunks": (
        lambda file: file["dense"].create_dataset("huge", (2**40,), "f4", chunks=(4,)),
        "claims 4,398,046,511,104 bytes",
    ),
    "texts": (lambda file: file["dense"].create_dataset("text", data="abc"), "is of the type object"),
    "links": (make_link, "dense/elsewhere, dense/soft is listed, and not there"),
    "listed, not there": (
        lambda file: file["dense"].attrs.modify("weight_names", ["model/dense/bias:0"]),
        "dense/model/dense/bias:0 is listed, and not there",
    ),
    "twice with other values": (make_different, "holds dense/kernel:0 twice, with other values"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", HOSTILE_KERAS)
def test_hostile_files_of_keras_are_refused(name, tmp_path):
    fill, text = HOSTILE_KERAS[name]
    refused(keras_file(tmp_path / "old", fill), text)


def test_many_names_of_one_dataset_take_no_room(tmp_path):
    """A hundred times the file's size would come of a file that names its largest tensor a hundred times."""
    folder = keras_file(tmp_path / "old", make_again_and_again)
    assert migrate(folder, tmp_path / "new").size < (folder / "tf_model.h5").stat().st_size


def test_file_of_keras_that_ends_early_is_refused(old):
    folder = old("tf-t5")
    whole = (folder / "tf_model.h5").read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (folder / "tf_model.h5").write_bytes(whole[:length])
        refused(folder, "tf_model.h5 is damaged, or no file of HDF5")


# Files of PyTorch, made instruction by instruction


def word(text):
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def number(value):
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def several(*values):
    return b"(" + b"".join(values) + b"t"


def imported(module, name):
    return f"c{module}\n{name}\n".encode()


def kept(key="0", count=6, storage="FloatStorage", kind="storage", stream=False):
    words = [word(kind), imported("torch", storage), word(key), word("cpu"), number(count)]
    return several(*words, *([b"N"] if stream else [])) + b"Q"


def view(storage, shape=(2, 3), strides=(3, 1), offset=0, function="_rebuild_tensor_v2"):
    shape, strides = (several(*map(number, numbers)) for numbers in (shape, strides))
    hooks = imported("collections", "OrderedDict") + b")R"
    parts = [storage, number(offset), shape, strides, b"\x89", hooks]
    return imported("torch._utils", function) + several(*parts) + b"R"


def table(**tensors):
    made = b"".join(word(name) + value + b"s" for name, value in tensors.items())
    return b"\x80\x02" + imported("collections", "OrderedDict") + b")R" + made + b"."


NUMBERS = np.arange(6, dtype=np.float32)
CONTENT = NUMBERS.tobytes()


def zip_file(folder, program, storages=None, **options):
    empty(folder)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", **options) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        for key, content in ({"0": NUMBERS.tobytes()} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", content)
    return folder


def stream_file(folder, program, keys=("0",), content=CONTENT, count=6):
    empty(folder)
    begin = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, 2)
    parts = [begin, system, program, pickle.dumps(list(keys), 2), struct.pack("<q", count), content]
    (folder / "pytorch_model.bin").write_bytes(b"".join(parts))
    return folder


def test_both_formats_of_torch_are_read_with_views_parameters_and_numbers_that_are_shared(tmp_path):
    parameter = imported("torch._utils", "_rebuild_parameter") + several(view(kept()), b"\x88", b"N") + b"R"
    for name, write in (("zip", zip_file), ("stream", stream_file)):
        storage = kept(stream=name == "stream")
        program = table(
            whole=view(storage),
            turned=view(storage, (3, 2), (1, 3)),
            part=view(storage, (2,), (1,), 4, "_rebuild_tensor"),
            one=view(storage, (), (), 5),
            none=view(storage, (0, 3), (3, 1)),
            parameter=parameter.replace(kept(), storage),
        )
        migrate(write(tmp_path / name, program), tmp_path / f"new-{name}")
        found = load_file(tmp_path / f"new-{name}/model.safetensors")
        whole = NUMBERS.reshape(2, 3)
        assert {key: value.tolist() for key, value in found.items()} == {
            "whole": whole.tolist(),
            "turned": whole.T.tolist(),
            "part": [4, 5],
            "one": 5,
            "none": [],
            "parameter": whole.tolist(),
        }


class Call:
    """What a pickle makes of a call, here one that would leave a trace."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def trap(tmp_path, protocol):
    return pickle.dumps({"weight": Call(os.system, f"touch {tmp_path}/ran")}, protocol)


@pytest.mark.parametrize("write", [zip_file, stream_file])
@pytest.mark.parametrize("protocol", range(6))
def test_pickle_that_calls_is_refused_by_the_name_and_nothing_ran(write, protocol, tmp_path):
    program = trap(tmp_path, protocol)
    refused(write(tmp_path / "old", program), "names posix.system" if protocol else "the instruction DICT")
    pickle.loads(program)
    assert (tmp_path / "ran").exists(), "it would have run"


STORAGE = kept()
HOSTILE_TORCH = {
    "eval": (table(a=imported("builtins", "eval") + several(word("1")) + b"R"), "it names builtins.eval"),
    "a name with a dot": (
        table(a=imported("torch", "FloatStorage.__class__")),
        "it names torch.FloatStorage.__c",
    ),
    "another function of torch": (
        table(a=imported("torch._utils", "_rebuild_sparse")),
        "torch._utils._rebuild_sp",
    ),
    "load of torch": (table(a=imported("torch", "load") + several(word("x")) + b"R"), "it names torch.load"),
    "NumPy's": (table(a=imported("numpy.core.multiarray", "_reconstruct")), "numpy.core.multiarray._recon"),
    "a name with a break": (b"\x80\x04\x8c\x02a\n\x8c\x01b\x93.", "'a\\n.b'"),
    "a name that is no text": (b"\x80\x04K\x01\x8c\x01b\x93.", "a name is no text"),
    "extension": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "instance": (b"\x80\x02(cos\nsystem\no.", "os.system"),
    "old instance": (b"(S'touch x'\nios\nsystem\n.", "the instruction STRING"),
    "new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "the instruction NEWOBJ"),
    "attributes of a function": (
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n}b.",
        "attributes are given to what has none",
    ),
    "a call of what is no function": (b"\x80\x02X\x01\x00\x00\x00a)R.", "called that is no function"),
    "a storage that is called": (b"\x80\x02ctorch\nFloatStorage\n)R.", "called that is no function"),
    "endless": (b"\x80\x02", "damaged"),
    "empty stack": (b"\x80\x02.", "damaged"),
    "text beyond the end": (b"\x80\x02X\xff\xff\xff\x7fa.", "damaged"),
    "text beyond all memory": (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.", "damaged"),
    "no memo": (b"\x80\x02h\x05.", "damaged"),
    "no mark": (b"\x80\x02}u.", "damaged"),
    "a list": (b"\x80\x02].", "holds no table of tensors"),
    "a number for a tensor": (table(a=number(1), b=view(STORAGE)), "holds a, which is no tensor"),
    "a table for a name": (b"\x80\x02}})s.", "damaged"),
    "names that take forever": (b"\x80\x02})" + b"2\x86" * 60 + b"Ns.", "the instruction DUP"),
    "names that take forever, kept": (
        b"\x80\x02})" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60)) + b"Ns.",
        "a table has a tuple for a name",
    ),
    "numbers beyond the storage": (
        table(a=view(STORAGE, offset=1)),
        "shape (2, 3) from a storage of 6 numbers",
    ),
    "before the storage": (table(a=view(STORAGE, offset=-1)), "whose shape is none"),
    "backwards": (table(a=view(STORAGE, strides=(-3, 1))), "whose shape is none"),
    "much out of little": (table(a=view(STORAGE, (2**40,), (0,))), "from a storage of 6 numbers"),
    "huge": (table(a=view(STORAGE, (2**60, 2**60), (1, 1))), "from a storage of 6 numbers"),
    "axes without strides": (table(a=view(STORAGE, (2, 3), (1,))), "without its storage"),
    "storage of another size": (table(a=view(kept(count=7))), "has no 28 bytes of storage 0"),
    "storage of a huge size": (table(a=view(kept(count=2**100))), "bytes of storage 0"),
    "storage that is not there": (table(a=view(kept("1"))), "has no 24 bytes of storage 1"),
    "storage elsewhere": (table(a=view(kept("../../../etc/passwd"))), "storage ../../../etc/passwd"),
    "complex numbers": (table(a=view(kept(storage="ComplexFloatStorage"))), "torch.ComplexFloatStorage"),
    "another thing kept outside": (table(a=kept(kind="module")), "kept outside that is no storage"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", HOSTILE_TORCH)
def test_hostile_pickles_are_refused(name, tmp_path):
    program, text = HOSTILE_TORCH[name]
    refused(zip_file(tmp_path / "old", program), text)


def test_archives_that_torch_did_not_write_are_refused(tmp_path):
    def write(**entries):
        empty(tmp_path / "old")
        with zipfile.ZipFile(tmp_path / "old/pytorch_model.bin", "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return tmp_path / "old"

    refused(write(a="b"), "it has no data.pkl")
    refused(write(**{"a/data.pkl": table(), "b/data.pkl": table()}), "it has no data.pkl")
    refused(write(**{"a/data.pkl": table(), "a/byteorder": "big"}), "begin with the highest byte")
    refused(zip_file(tmp_path / "old", table()), "holds no tensors")
    bomb = {"0": bytes(10**6)}
    program = table(a=view(kept(count=250_000), (250_000,), (1,)))
    refused(zip_file(tmp_path / "old", program, bomb, compression=zipfile.ZIP_DEFLATED), "is packed")


def test_archive_whose_entries_lie_over_each_other_is_refused(tmp_path):
    """Many entries of the directory for the same bytes: the bomb that needs no packing."""
    folder = zip_file(tmp_path / "old", table(), {str(number): bytes(1000) for number in range(9)})
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        first = archive.getinfo("archive/data/0")
        directory, start = archive.infolist(), archive.start_dir
    whole = path.read_bytes()
    head = whole[: first.header_offset + 1100]
    entries = whole[start:]
    for entry in directory[2:]:
        entries = entries.replace(
            struct.pack("<I", entry.header_offset), struct.pack("<I", first.header_offset)
        )
    end = entries.rindex(b"PK\5\6")
    entries = entries[: end + 16] + struct.pack("<I", len(head)) + entries[end + 20 :]
    path.write_bytes(head + entries)
    refused(folder, "bytes of content and has")


def test_damaged_numbers_of_an_archive_are_found_before_anything_is_left(tmp_path):
    folder = zip_file(tmp_path / "old", table(a=view(STORAGE)))
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole.replace(NUMBERS.tobytes(), NUMBERS[::-1].tobytes()))
    refused(folder, "Bad CRC-32")


def test_streams_that_do_not_fit_their_table_are_refused(tmp_path):
    program = table(a=view(kept(stream=True)))
    refused(stream_file(tmp_path / "old", program, keys=("1",)), "its list of storages is not that")
    refused(stream_file(tmp_path / "old", program, keys=("0", "1")), "its list of storages is not that")
    refused(stream_file(tmp_path / "old", program, count=7), "has no 24 bytes of storage 0")
    refused(stream_file(tmp_path / "old", program, content=b"1234"), "has no 24 bytes of storage 0")
    twice = table(a=view(kept(stream=True)), b=view(kept(stream=True, count=2**40), (2**40,), (1,)))
    refused(stream_file(tmp_path / "old", twice), "storage of 6 numbers")
    for content in (b"", b"\x80\x02", pickle.dumps(1) * 5, pickle.dumps([]) * 9, b"archive", bytes(100)):
        (tmp_path / "old/pytorch_model.bin").write_bytes(content)
        refused(tmp_path / "old")


# Models in parts


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"../../etc/passwd"}, "lists ../../etc/passwd, which is no name of a file beside it"),
        ({"/etc/passwd"}, "lists /etc/passwd, which is no name"),
        ({".."}, "lists .., which is no name"),
        ({"a\nb"}, r"lists 'a\nb', which is no name"),
        ({"config.json"}, "config.json is damaged, or no file of HDF5"),
        ({"gone.h5"}, "has no gone.h5, which tf_model.h5.index.json lists"),
    ],
)
def test_index_names_files_beside_it_alone(old, change, text):
    folder = old("tf-bert-parts")
    index = json.loads((folder / "tf_model.h5.index.json").read_text())
    first, second = index["weight_map"] | {}, index
    for name, part in zip(first, change, strict=False):
        second["weight_map"][name] = part
    (folder / "tf_model.h5.index.json").write_text(json.dumps(second))
    refused(folder, text)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 9999]
)
def test_index_that_is_none_is_refused(old, content):
    folder = old("flax-bert-parts")
    (folder / "flax_model.msgpack.index.json").write_text(content)
    refused(folder, "is no index of a model in parts")


def test_parts_hold_what_the_index_lists(old):
    folder = old("bin-t5-parts")
    index = json.loads((folder / "pytorch_model.bin.index.json").read_text())
    index["weight_map"]["one.more"] = "pytorch_model-00001-of-00003.bin"
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    refused(folder, "lists 51 tensors; its parts hold 50")
    first, second = (folder / f"pytorch_model-0000{number}-of-00003.bin" for number in (1, 2))
    shutil.copy(first, second)
    refused(folder, "and so does another part")


def test_fifo_is_no_file_of_weights(tmp_path):
    folder = empty(tmp_path / "old")
    os.mkfifo(folder / "tf_model.h5")
    refused(folder, "has no weights")


def test_safetensors_of_a_type_that_is_not_known_are_refused(old):
    folder = old("flax-t5-safe")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"dtype":"F32","shape":[60,16]', b'"dtype":"C64","shape":[30,16]', 1))
    refused(folder, "as C64")
    path.write_bytes(whole[:-1])
    refused(folder, "model.safetensors cannot be read")
