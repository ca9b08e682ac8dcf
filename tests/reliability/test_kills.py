"""A run that was killed is continued by the same command, and ends as if nothing had happened."""

import signal

import pytest
from harness import SECRET, flags
from interruption import differences, leaks, replayed, run_with, unsound

KILLED = -signal.SIGKILL
LIMIT = flags(save_total_limit=1)


@pytest.mark.sampled
def test_killed_at_a_write_and_continued_the_run_is_the_uninterrupted_one(
    form, words, uninterrupted, tmp_path
):
    """One run, killed seven times and stopped once: each process continues what the one before it left."""
    whole, _ = uninterrupted(form)
    rotated, reference = uninterrupted(form, "rotated", *LIMIT)
    model = reference.first(r"write \.unfinished-checkpoint-2/.*model\.safetensors")
    in_evaluation = {"at": "collate 5", "skip": 1, "do": "SIGTERM"}
    records = []
    points = (
        ("write arguments.json.partial", 0),  # there is no checkpoint yet
        (model, 0),  # half of it is there
        ("rename .unfinished-checkpoint-2", 1),  # with its name, which is not flushed to disk
        ("write .unfinished-checkpoint-4/manifest.json", 0),
        ("rename checkpoint-2", 3),  # in the midst of the removal of an old one
        (None, in_evaluation),  # whose checkpoint is replaced when the evaluation is made up for
        ("rename checkpoint-6", 1),  # the old one is aside, the new one without its name
        ("rename .unfinished-model/model.safetensors", 1),  # some of the files are the new ones
    )
    for at, number in points:
        if at:
            fault, code = {"at": at, "number": number, "do": "kill"}, KILLED
        else:
            fault, code = number, 128 + signal.SIGTERM
        _, record = run_with(form, [*words, *LIMIT], tmp_path, fault, expect=code)
        if at:
            assert record.entries[-1]["faults"] == ["kill"]
            assert unsound(tmp_path / "out", whole) == []
        records.append(record)
    _, record = run_with(form, [*words, *LIMIT], tmp_path)
    assert differences(tmp_path / "out", rotated) == []
    assert replayed([*records, record], reference, 2, batches_per_epoch=5) == []
    assert leaks(tmp_path / "out", SECRET) == []
    assert not (tmp_path / "out/runs").exists(), "a log for TensorBoard, without --report_to"


@pytest.mark.first_task
def test_killed_in_its_last_save_a_run_without_checkpoints_begins_again(form, words, uninterrupted, tmp_path):
    words = [*words, *flags(save_strategy="no")]
    whole, _ = uninterrupted(form, "unsaved", *flags(save_strategy="no"))
    fault = {"do": "kill", "at": "rename .unfinished-model/config.json", "number": 1}
    run_with(form, words, tmp_path, fault, expect=KILLED)
    assert (tmp_path / "out/config.json").exists()
    run_with(form, words, tmp_path)
    assert differences(tmp_path / "out", whole) == []


@pytest.mark.first_task
def test_processes_with_an_interpreter_of_their_own_end_as_the_forked_ones(
    form, words, uninterrupted, tmp_path
):
    """Most scripts are forked from a process that has the libraries, see `zygote.py`: killed and continued as
    a user's shell starts it, a run comes to the same end."""
    if form.name == "pytorch-trainer":
        pytest.skip("one form stands for a framework")
    rotated, reference = uninterrupted(form, "rotated", *LIMIT)
    model = reference.first(r"write \.unfinished-checkpoint-2/.*model\.safetensors")
    records = []
    for at, number in ((model, 0), ("rename checkpoint-2", 3)):
        fault = {"at": at, "number": number, "do": "kill"}
        records.append(run_with(form, [*words, *LIMIT], tmp_path, fault, expect=KILLED, anew=True)[1])
    records.append(run_with(form, [*words, *LIMIT], tmp_path, anew=True)[1])
    assert differences(tmp_path / "out", rotated) == []
    assert replayed(records, reference, 2, batches_per_epoch=5) == []
