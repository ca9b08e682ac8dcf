"""Damaged checkpoints, full disks, vanished folders, losses that are no number: what was good survives."""

import json
import os
import shutil
import subprocess

import pytest
from harness import flags, interpreter, run_python, run_script, script_environment, with_needed
from interruption import copy, differences, run_with

from triptych.output import checkpoints


def only_good(folder):
    """The newest checkpoint's step, if no other is damaged."""
    checkpoint, skipped = checkpoints.newest(folder)
    assert skipped == []
    return checkpoint and checkpoints.step_of(checkpoint)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.first_task
def test_damaged_checkpoints_are_passed_over_with_a_warning_and_made_anew(
    form, words, uninterrupted, tmp_path
):
    """Truncated, emptied, bit-flipped: each time the one before is taken."""
    whole, _ = uninterrupted(form)
    output = copy(whole, tmp_path / "out")
    weights = output / "checkpoint-6/model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)
    optimizer = next((output / "checkpoint-4").glob("optimizer.*"))
    flip_a_bit(optimizer)
    run, record = run_with(form, words, tmp_path)
    for name in ("checkpoint-6", "checkpoint-4"):
        assert f"out/{name} is damaged and was skipped" in run.stderr
    assert f"{optimizer.name} has changed" in run.stderr
    assert record.steps == [3, 4, 5, 6]
    assert differences(output, whole) == []

    os.truncate(output / "checkpoint-6/training_state.json", 0)
    run, record = run_with(form, words, tmp_path)
    assert "training_state.json has 0 bytes instead of" in run.stderr
    assert record.steps == [5, 6]
    assert differences(output, whole) == []

    # Where no checkpoint is whole, nothing is begun over what is there.
    for checkpoint in checkpoints.found(output):
        (checkpoint / checkpoints.MANIFEST).write_bytes(b'{"files": {"../../x": {"size": 1, "sha256": "0"}}}')
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    refused = run_script(form, *words, folder=tmp_path, expect=2)
    assert [problem for problem in refused.problems if "is damaged" in problem]
    assert "holds no checkpoint to continue" in refused.problems[-1]
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


@pytest.mark.neutral
@pytest.mark.first_task
def test_full_disk_ends_the_run_and_the_last_good_checkpoint_survives(form, words, uninterrupted, tmp_path):
    """Full or read-only, wherever something is written; with space again the run continues exactly."""
    whole, reference = uninterrupted(form)
    model = reference.first(r"write \.unfinished-checkpoint-4/.*model\.safetensors")
    for do, at, path, step in (
        ("full", "write run.json.partial", "out/run.json", None),
        ("full", model, "out/checkpoint-4", 2),
        ("readonly", "mkdir .unfinished-checkpoint-4", "out/checkpoint-4", 2),
        ("full", "write .unfinished-model/model.safetensors", "to out", 6),
        ("full", "write eval_results.json.partial", "out/eval_results.json", 6),
    ):
        run, _ = run_with(form, words, tmp_path, {"do": do, "at": at}, expect=1)
        reason = "No space left on device" if do == "full" else "Read-only file system"
        message = next(line for line in run.stderr.splitlines() if "The run failed" in line)
        assert path in message, at
        assert "could not be written" in message, at
        assert reason in message, at
        assert " bytes" in message, at
        assert "Traceback" not in run.stderr
        assert only_good(tmp_path / "out") == step, at
        assert step is None or f"Last good checkpoint: out/checkpoint-{step}" in run.stderr
        assert not list((tmp_path / "out").glob(".unfinished-*"))
    run_with(form, words, tmp_path)
    assert differences(tmp_path / "out", whole) == []


@pytest.mark.neutral
@pytest.mark.first_task
def test_vanished_output_folder_ends_the_run_and_is_not_made_anew(form, words, tmp_path):
    fault = {"do": "vanish", "at": "mkdir .unfinished-checkpoint-4"}
    run, _ = run_with(form, words, tmp_path, fault, expect=1)
    assert "out/checkpoint-4 could not be written" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.neutral
@pytest.mark.first_task
def test_full_disk_for_real(form, words, uninterrupted, tmp_path):
    """On a small disk in memory that holds two checkpoints but not three."""
    whole, _ = uninterrupted(form)
    size = sum(f.stat().st_size for f in (whole / "checkpoint-2").iterdir())
    mount = f"mkdir out && mount -t tmpfs -o size={int(2.7 * size) // 1024}k none out"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system, even of their own (unshare -rm)")
    script = f'{mount} && "$@"; code=$?; cp -a out kept; exit $code'
    shutil.rmtree(tmp_path / "out")
    command = [interpreter(form.framework), form.script, *with_needed(form, words)]
    command += flags(output_dir="out")
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *map(str, command)],
        cwd=tmp_path,
        env=script_environment(),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    message = next(line for line in ended.stderr.splitlines() if "The run failed" in line)
    assert "out/checkpoint-6 could not be written (" in message
    # torch says nothing of the disk when it fails, so the free bytes have to.
    assert int(message.partition(" or more, ")[2].split()[0].replace(",", "")) < size
    assert "Traceback" not in ended.stderr
    assert only_good(tmp_path / "kept") == 4
    copy(tmp_path / "kept", tmp_path / "out")
    run_with(form, words, tmp_path)
    assert differences(tmp_path / "out", whole) == []


@pytest.mark.first_task
def test_loss_that_is_no_number_ends_the_run_before_it_is_saved(form, words, tmp_path):
    """Nor do weights that a gradient has spoilt whose loss was still a number get saved."""
    words = [*words, *flags(learning_rate=1e30, save_steps=1, warmup_steps=0)]
    run, record = run_with(form, words, tmp_path, expect=1)
    failed = next(line for line in run.stderr.splitlines() if "The run failed" in line)
    assert " of step " in failed
    assert "Traceback" not in run.stderr
    step = int(failed.partition(" of step ")[2].split()[0])
    assert record.steps == list(range(1, step))
    assert only_good(tmp_path / "out") == (step - 1 or None)
    assert not (tmp_path / "out/model.safetensors").exists()


PICKLE = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file
folder = Path(sys.argv[1])
class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(sys.argv[2]),))
torch.save({**load_file(folder / "model.safetensors"), "bomb": Bomb()}, folder / "pytorch_model.bin")
(folder / "model.safetensors").unlink()
"""


@pytest.mark.first_task
def test_weights_in_a_pickle_are_not_loaded(form, start, words, tmp_path):
    model = copy(start(form), tmp_path / "model")
    run_python("-c", PICKLE, model, tmp_path / "exploded")
    assert (model / "pytorch_model.bin").exists()
    words = [model if word == str(start(form)) else word for word in words]
    refused = run_script(form, *words, folder=tmp_path, expect=2)
    assert "model.safetensors" in refused.problems[0]
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.first_task
def test_garbage_in_a_state_or_in_rows_is_a_refusal(form, words, uninterrupted, tmp_path):
    whole, _ = uninterrupted(form)
    output = copy(whole, tmp_path / "out")
    state = output / "checkpoint-6/training_state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"losses": ["many"]}))
    checkpoints.seal(output / "checkpoint-6")
    refused = run_script(form, *words, folder=tmp_path, expect=2)
    assert "training_state.json: cannot be read as the state of a run" in refused.problems[0]
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "a", "summary": "b"}\n{"text": \0\xff\n' + b"[" * 50_000)
    words = [*words, *flags(train_file="rows.jsonl", output_dir="other")]
    refused = run_script(form, *words, folder=tmp_path, output=None, expect=2)
    assert any("rows.jsonl, line 2" in problem for problem in refused.problems)
    assert not (tmp_path / "other").exists()
