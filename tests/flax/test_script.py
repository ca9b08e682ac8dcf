"""What only the script in JAX has: compiled programs that are counted, and several devices."""

import json
import re
import shutil
from collections import Counter
from functools import cache

import pytest
from harness import ROOT, all_forms, finish_script, flags, start_script

FORM = next(form for form in all_forms() if str(form) == "summarization/flax")
README = ROOT / "examples/flax/summarization/README.md"


@pytest.fixture(scope="session")
def run(samples, tiny):
    """A function that runs the script in a folder and returns the run."""

    def run(folder, environment=None, **changes):
        words = {
            "model_name_or_path": tiny / "t5",
            "train_file": samples / "train.jsonl",
            "validation_file": samples / "validation.jsonl",
            "do_train": True,
            "do_eval": True,
            "max_train_samples": 90,
            "max_eval_samples": 11,
            "max_target_length": 40,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "max_steps": 8,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",  # so that a longer run can go on from a shorter one
            "logging_steps": 1,
            "predict_with_generate": True,
            "output_dir": "out",
        }
        process = start_script(FORM, flags(**words | changes), folder, **environment or {})
        return finish_script(process, FORM, folder / "out", expect=0)

    return run


def test_a_program_is_compiled_once_for_each_bucket(run, tmp_path):
    """A step that is compiled twice for a shape, for the layout of its first arguments, costs seconds."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_LOG_COMPILES": "1"}
    cold = run(tmp_path, cache)
    # As our own log has it: JAX before 0.8 writes each message beside it once more.
    message = r"WARNING: Compiling jit\((\w+)\) with global shapes and types (.*?)\. "
    programs = re.findall(message, cold.stderr)
    # Of the arguments only the batch, of integers, changes its shape.
    counts = Counter((name, *re.findall(r"int32\[(.*?)\]", shapes)) for name, shapes in programs)
    for name, fewest in (("add_gradients", 2), ("update", 1), ("evaluation_step", 1), ("generate_tokens", 1)):
        own = {tuple(shapes): count for (program, *shapes), count in counts.items() if program == name}
        assert own, f"{name} was not seen to be compiled"
        assert set(own.values()) == {1}, f"{name} was compiled again for the same shapes: {own}"
        assert fewest <= len(own) <= 6, f"{name} was compiled for {len(own)} shapes"
    assert list((tmp_path / "cache").iterdir())


@pytest.fixture(scope="session")
def one_device(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="session")
def two_devices(run, tmp_path_factory):
    """`two_devices(fsdp)` is the same run on two devices, which each hold all parameters, or half of each."""

    @cache
    def two_devices(fsdp):
        environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
        sizes = {f"per_device_{split}_batch_size": 4 for split in ("train", "eval")}
        return run(tmp_path_factory.mktemp("two"), environment, **sizes, fsdp=fsdp or None, save_steps=8)

    return two_devices


@pytest.mark.parametrize("fsdp", [False, True])
def test_two_devices_give_what_one_gives(one_device, two_devices, fsdp):
    two = two_devices(fsdp)
    assert two.json("run.json")["device"] == "2 cpu devices"
    entries = zip(one_device.log(), two.log(), strict=True)
    for expected, found in entries:
        assert found == pytest.approx(expected, rel=1e-5)
    expected, found = (run.json("eval_results.json") for run in (one_device, two))
    for name in ("eval_loss", "eval_rouge1", "eval_gen_len"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_checkpoint_of_split_parameters_is_the_ordinary_one(run, two_devices, tmp_path):
    """Written from two devices that each hold half of every array, continued on one."""
    shutil.copytree(two_devices(True).output, tmp_path / "out")
    longer = run(tmp_path, save_steps=8, max_steps=10)
    assert longer.json("trainer_state.json")["global_step"] == 10
    done = json.loads((tmp_path / "out/train_results.json").read_text())
    assert round(done["train_steps_per_second"] * done["train_runtime"]) == 2


def test_example_of_the_readme_answers(tiny, samples):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    texts = [json.loads(line)["text"] for line in (samples / "test.jsonl").read_text().splitlines()[:2]]
    names = {"folder": tiny / "t5", "texts": texts}
    exec(code, names)
    assert all(names["answers"])
