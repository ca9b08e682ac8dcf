"""Several processes, started as each framework's users start them: the same run as one process with the same
batches, and none that waits for another in vain."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import (
    OBSERVE,
    SECONDS_PER_RUN,
    Run,
    alike,
    all_forms,
    answers,
    approximately,
    finish_script,
    flags,
    interpreter,
    remember,
    script_environment,
    start_script,
    with_needed,
    without_times,
)
from safetensors import safe_open

from triptych.output import checkpoints

SECONDS_TO_END = 60  # for the others, when one has died


def free_ports(count):
    """Ports of the loopback interface on which nobody listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def commands(form, processes, launcher):
    """For each process to be started the words before the script's own, and its environment variables."""
    python, script, ports = interpreter(form.framework), str(form.script), free_ports(processes)
    if launcher == "accelerate":
        # With --cpu it would start one process only.
        command = [python, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        ports = ["--multi_gpu", "--main_process_port", str(ports[0])]
        return [([*command, *ports, script], {"ACCELERATE_USE_CPU": "true"})]
    if launcher == "two nodes":
        place = ["--master_addr", "127.0.0.1", "--master_port", str(ports[0]), "--nnodes", "2"]
        node = [python, "-m", "torch.distributed.run", *place, "--nproc_per_node", "1", "--node_rank"]
        return [([*node, str(number), script], {}) for number in range(2)]
    if form.framework == "pytorch":
        command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        return [([*command, script], {})]
    if form.framework == "tensorflow":
        workers = [f"127.0.0.1:{port}" for port in ports]
        tasks = [{"type": "worker", "index": number} for number in range(processes)]
        configs = [json.dumps({"cluster": {"worker": workers}, "task": task}) for task in tasks]
        return [([python, script], {"TF_CONFIG": config}) for config in configs]
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{ports[0]}", "JAX_NUM_PROCESSES": str(processes)}
    return [([python, script], address | {"JAX_PROCESS_ID": str(number)}) for number in range(processes)]


def launch(form, words, folder, launcher="", processes=2, record=None):
    """The processes started; all write to one log, and their batches to the file `record`, if given."""
    observed = [str(OBSERVE), str(record)] if record else []
    with open(folder / "log", "a") as log:
        return [
            subprocess.Popen(
                [*command[:-1], *observed, command[-1], *with_needed(form, words), *flags(output_dir="out")],
                cwd=folder,
                env=script_environment() | variables,
                stdout=log,
                stderr=log,
            )
            for command, variables in commands(form, processes, launcher)
        ]


def codes(started, seconds=SECONDS_PER_RUN):
    """The exit codes of processes, none of which may take longer."""
    try:
        return [process.wait(seconds) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.fixture
def words(trained, files, form):
    """41 rows in batches of 8: the last batch has one row, none for the second process."""

    def words(processes, **changes):
        values = {
            "model_name_or_path": trained(form),
            **files,
            "do_train": True,
            "do_eval": True,
            "do_predict": True,
            "max_train_samples": 41,
            "max_eval_samples": 11,
            "max_predict_samples": 13,
            "per_device_train_batch_size": 8 // processes,
            "per_device_eval_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_steps": 8,
            "learning_rate": 1e-4,
            "logging_steps": 1,
            "save_steps": 4,
        }
        return [*flags(**values | changes), *form.settings["flags"]]

    return words


# The launchers beside a framework's usual one, and the flags to shard with
OTHERS = {
    "pytorch-trainer": [("two nodes", {})],
    "pytorch-accelerate": [("accelerate", {}), ("", {"fsdp": True})],
    "flax": [("", {"fsdp": True})],
}


def result(folder, name):
    return json.loads((folder / name).read_text())


def shapes(path):
    with safe_open(path, "np") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@pytest.mark.sampled
@pytest.mark.parametrize("number", [0, 1, 2])
def test_two_processes_give_what_one_gives(number, form, words, shared_run, tmp_path):
    """The same losses, metrics, predictions in order, and ordinary checkpoints, by each launcher."""
    ways = [("", {}), *(OTHERS.get(form.name, []) if form.is_of_first_task else [])]
    if number >= len(ways):
        pytest.skip("no other launcher")
    launcher, changes = ways[number]
    one = shared_run(form, "one process", *words(1)).output
    two = tmp_path / "out"
    started = launch(form, words(2, **changes), tmp_path, launcher=launcher)
    log = tmp_path / "log"
    assert set(codes(started)) == {0}, log.read_text()[-3000:]
    remember(form, Run(0, "", "", two), "")
    assert result(two, "run.json")["processes"] == 2
    assert log.read_text().count("2 processes on ") == 1
    logs = (result(folder, "trainer_state.json")["log_history"] for folder in (one, two))
    for expected, found in zip(*logs, strict=True):
        assert found == pytest.approx(expected, rel=3e-6)
    for split in ("eval", "predict"):
        expected, found = (without_times(result(folder, f"{split}_results.json")) for folder in (one, two))
        assert found == approximately(expected, rel=3e-6)
    expected, found = (answers(folder / form.settings["predictions"]) for folder in (one, two))
    assert len(found) == len(expected)
    assert all(map(alike, found, expected))
    for path in sorted(one.glob("**/*.safetensors")):
        assert shapes(two / path.relative_to(one)) == shapes(path)


def by_one_and_by_two(form, words, folder, **changes):
    """The output folders of a run by one process and by two, whose losses and metrics are found equal."""
    outputs = []
    for processes in (1, 2):
        own = folder / str(processes)
        own.mkdir()
        started = launch(form, words(processes, save_strategy="no", **changes), own, processes=processes)
        assert set(codes(started)) == {0}, (own / "log").read_text()[-3000:]
        outputs.append(own / "out")
        remember(form, Run(0, "", "", outputs[-1]), "")
    assert result(outputs[1], "run.json")["processes"] == 2
    logs = (result(output, "trainer_state.json")["log_history"] for output in outputs)
    for expected, found in zip(*logs, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    for split in ("eval", "predict"):
        expected, found = (without_times(result(output, f"{split}_results.json")) for output in outputs)
        assert found == approximately(expected, rel=1e-5)
    return outputs


@pytest.mark.first_with("questions")
def test_windows_that_processes_do_not_share_evenly_are_all_answered(form, words, tmp_path):
    """More windows than rows, in numbers that two do not divide: answers of a row come from both."""
    one, two = by_one_and_by_two(form, words, tmp_path, max_seq_length=48, doc_stride=12, max_steps=2)
    for split in ("eval", "predict"):
        name = f"{split}_nbest_predictions.json"
        for expected, found in zip(result(one, name).values(), result(two, name).values(), strict=True):
            assert found[0]["text"] == expected[0]["text"]
            assert found[0]["probability"] == pytest.approx(expected[0]["probability"], rel=1e-4)


@pytest.mark.first_with("causal")
def test_texts_that_processes_do_not_share_evenly_are_packed_and_scored_alike(form, words, tmp_path):
    """Blocks that hold pieces of texts which other processes have, too; and prompts that are sampled."""
    of_blocks = {"packing": "blocks", "block_size": 60, "max_steps": 3, "max_train_samples": 11}
    sampled = {"max_new_tokens": 6, "do_sample": True}
    one, two = by_one_and_by_two(form, words, tmp_path, **of_blocks, **sampled)
    assert result(two, "run.json")["packed"] == result(one, "run.json")["packed"]
    name = "generated_predictions.txt"
    assert (two / name).read_text() == (one / name).read_text()


@pytest.mark.first_with("masks")
def test_processes_hide_and_fill_the_same_tokens(form, words, tmp_path):
    """Rows of which a process has none, and others that have no token in common with its own."""
    of_masks = {"max_steps": 4, "whole_word_mask": True, "mlm_probability": 0.1}
    outputs = by_one_and_by_two(form, words, tmp_path, **of_masks)
    one, two = ((output / "predictions.tsv").read_text().splitlines() for output in outputs)
    assert len(one) > 20
    for expected, found in zip(one, two, strict=True):
        assert alike(found.split("\t"), expected.split("\t"))


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.first_with("masks")
def test_processes_that_split_a_model_hide_and_fill_the_same_tokens(form, words, tmp_path):
    """The head reads some places alone, and shares a table that stands in parts in each process."""
    if {"fsdp": True} not in [changes for _, changes in OTHERS.get(form.name, [])]:
        pytest.skip("splits no model")
    of_masks = {"max_steps": 4, "whole_word_mask": True, "mlm_probability": 0.1, "fsdp": True}
    outputs = by_one_and_by_two(form, words, tmp_path, **of_masks)
    one, two = ((output / "predictions.tsv").read_text().splitlines() for output in outputs)
    assert len(one) > 20
    for expected, found in zip(one, two, strict=True):
        assert alike(found.split("\t"), expected.split("\t"))


@pytest.mark.nightly
@pytest.mark.first_with("denoises")
def test_processes_corrupt_and_restore_the_same_texts(form, words, tmp_path):
    """Blocks of which a process has none, in numbers that two do not divide."""
    of_noise = {"max_steps": 4, "line_by_line": False, "max_seq_length": 100}
    one, two = by_one_and_by_two(form, words, tmp_path, **of_noise)
    found, expected = (answers(folder / "predictions.tsv") for folder in (two, one))
    assert len(found) == len(expected) > 10
    assert all(map(alike, found, expected))


SAVED = 5  # in the midst of the second epoch


@pytest.fixture(scope="session")
def drawn_words(start, files):
    """Three epochs of blocks in which tokens are hidden, or spans are noise."""

    def words(form, processes):
        return flags(
            model_name_or_path=start(form),
            train_file=files["train_file"],
            line_by_line=False,
            max_seq_length=100,
            do_train=True,
            max_train_samples=20,
            per_device_train_batch_size=4 // processes,
            num_train_epochs=3,
            logging_steps=1,
            save_steps=SAVED,
            dataloader_num_workers=2 if processes > 1 else None,
            **{"whole_word_mask": True} if form.tests.get("masks") else {},
        )

    return words


def drawn(path):
    """By the draw of each row that is trained on, a digest of what is read of it and what is to be
    predicted, without padding, which depends on the rows beside it."""
    found = {}
    for batch in map(json.loads, path.read_text().splitlines()):
        arrays = batch["arrays"]
        for place, number in enumerate(batch["numbers"]):
            row = {name: arrays[name][place] for name in ("input_ids", "labels", "places") if name in arrays}
            row["input_ids"] = row["input_ids"][: sum(arrays["attention_mask"][place])]
            kept = {name: [value for value in values if value != -100] for name, values in row.items()}
            digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
            assert found.setdefault(number, digest) == digest
    return found


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.needs("self_supervised")
def test_processes_with_workers_draw_what_one_draws_also_after_a_stop(
    form, drawn_words, shared_run, tmp_path
):
    if not (form.tests.get("masks") or form.tests.get("denoises")):
        pytest.skip("nothing is drawn")
    first = next(one for one in all_forms() if one.task == form.task)
    alone = shared_run(first, "drawn by one", *drawn_words(first, 1), record="batches.jsonl")
    expected = drawn(alone.output.parent / "batches.jsonl")
    assert len(expected) > 3 * 8
    steps = alone.json("trainer_state.json")["global_step"]
    assert SAVED % (steps // 3)
    assert steps // 3 < SAVED < steps
    for part in ("whole", "after a stop"):
        record = tmp_path / f"{part}.jsonl"
        assert set(codes(launch(form, drawn_words(form, 2), tmp_path, record=record))) == {0}, (
            tmp_path / "log"
        ).read_text()[-3000:]
        found = drawn(record)
        assert {number: found[number] for number in found if number in expected}.items() <= expected.items()
        if part == "whole":
            remember(form, Run(0, "", "", tmp_path / "out"), "")
            assert result(tmp_path / "out", "run.json")["processes"] == 2
            assert expected.keys() <= found.keys()
            for path in (tmp_path / "out").glob("checkpoint-*"):
                if path.name != f"checkpoint-{SAVED}":
                    shutil.rmtree(path)
    assert f"Continuing after step {SAVED}" in (tmp_path / "log").read_text()
    later = [*expected][4 * SAVED :]  # by one process alone in the order of the steps
    assert {*later} <= found.keys()
    assert len(found.keys() & expected.keys()) < len(expected)


def wait_for_checkpoint(started, output):
    """Until there is one; a second one may come before the caller can act."""
    deadline = time.monotonic() + SECONDS_PER_RUN
    while not checkpoints.found(output) and time.monotonic() < deadline:
        assert [process.poll() for process in started] == [None] * len(started)
        time.sleep(0.01)


def workers(started):
    """The processes that run the script: what has been started, or what torchrun's agent has started."""
    agents = ",".join(str(process.pid) for process in started)
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", agents], capture_output=True, text=True).stdout
    return [int(pid) for pid in listing.split()] or [process.pid for process in started]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux lists them")
@pytest.mark.first_with("generates")
def test_one_process_signalled_in_an_evaluation_stops_both_within_seconds(form, words, samples, tmp_path):
    """The evaluation after step 4 would take minutes."""
    of_length = {"validation_file": samples / "train.jsonl", "max_eval_samples": None, "num_beams": 8}
    often = {"save_steps": 3, "eval_strategy": "steps", "eval_steps": 4, "max_steps": 4000}
    # Splitting has most to lose: an evaluation gathers what the checkpoint has to find in parts.
    sharded = {"fsdp": True} if form.name == "pytorch-accelerate" else {}
    started = launch(form, words(2, **of_length, **often, **sharded), tmp_path)
    wait_for_checkpoint(started, tmp_path / "out")
    time.sleep(3)
    running = workers(started)
    os.kill(running[-1], signal.SIGTERM)
    if running != [process.pid for process in started]:  # an agent passes on what it is sent as well
        os.kill(started[0].pid, signal.SIGTERM)
    found = codes(started, SECONDS_TO_END)
    log = (tmp_path / "log").read_text()
    assert log.count("Stopped by SIGTERM") == 2, log[-3000:]
    assert form.framework == "pytorch" or set(found) == {128 + signal.SIGTERM}
    newest, skipped = checkpoints.newest(tmp_path / "out")
    assert skipped == []
    assert checkpoints.step_of(newest) == 4
    assert "eval_loss" not in (newest / checkpoints.STATE).read_text(), "the evaluation came to its end"
    if form.is_loop:
        first = checkpoints.of_step(tmp_path / "out", 3) / "optimizer.safetensors"
        assert shapes(newest / "optimizer.safetensors") == shapes(first)


@pytest.mark.neutral
@pytest.mark.first_task
def test_processes_that_do_not_know_of_one_another_are_refused(form, words, tmp_path):
    """As `srun python script` would start them; else each would write its run to the one folder."""
    if form.framework == "flax":
        pytest.skip("jax finds the others by Slurm's variables, and waits for them")
    alone = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    process = start_script(form, [*words(1), *flags(output_dir="out")], tmp_path, **alone)
    run = finish_script(process, form, tmp_path / "out", 2)
    assert "2 processes were started, but not so that they know of one another" in run.problems[0]
    assert not run.output.exists()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="agents take their processes along on Linux only")
@pytest.mark.first_task
def test_others_end_when_one_dies(form, words, tmp_path):
    """Killed: a process, or for the Trainer form the agent of one of two nodes."""
    nodes = form.name == "pytorch-trainer"
    started = launch(form, words(2, max_steps=40_000), tmp_path, launcher="two nodes" if nodes else "")
    wait_for_checkpoint(started, tmp_path / "out")
    running = workers(started)
    os.kill(started[-1].pid if nodes else running[-1], signal.SIGKILL)
    deadline = time.monotonic() + SECONDS_TO_END
    assert 0 not in codes(started, SECONDS_TO_END)
    while any(map(is_running, running)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, running)), "a process goes on alone"
    assert checkpoints.newest(tmp_path / "out")[1] == []
