"""A run that is told to stop saves wherever it is, and the same command finishes it exactly."""

import signal

import pytest
from harness import flags
from interruption import differences, replayed, run_with, unsound

from triptych.output import checkpoints

TERMINATED, INTERRUPTED = 128 + signal.SIGTERM, 128 + signal.SIGINT


def newest_step(folder):
    checkpoint, skipped = checkpoints.newest(folder / "out")
    assert skipped == []
    return checkpoint and checkpoints.step_of(checkpoint)


@pytest.mark.first_task
def test_stopped_anywhere_the_run_continues_exactly(form, words, uninterrupted, tmp_path):
    """One run, stopped seven times: in preprocessing, within an accumulation window and twice within an
    epoch, at an epoch's edge, while saving, in an evaluation, after the last step."""
    whole, reference = uninterrupted(form)
    records = []
    # Two batches a step: an epoch has three steps, the last of one batch of one row.
    for signal_name, at, skip, steps in (
        ("SIGTERM", "preprocess", 1, (None, None)),
        ("SIGINT", "collate 2", 2, (1, 2)),  # the first batch of the second step
        ("SIGTERM", "collate 1", 0, (2, 3)),  # the last of the epoch, which the Trainer loads ahead
        ("SIGINT", "collate 5", 1, (3, 3)),  # the second of the evaluation
        ("SIGTERM", "mkdir .unfinished-checkpoint-4", 0, (4, 5)),
        ("SIGTERM", "step 6", 0, (6, 6)),
        ("SIGTERM", "collate 5", 1, (6, 6)),  # in the evaluation that is due after it
    ):
        fault = {"do": signal_name, "at": at, "skip": skip}
        run, record = run_with(form, words, tmp_path, fault, expect=128 + getattr(signal, signal_name))
        assert f"Stopped by {signal_name}" in run.stderr, at
        low, high = steps
        found = newest_step(tmp_path)
        assert found == low or low <= found <= high, (at, found)
        assert unsound(tmp_path / "out", whole) == [], at
        assert at != "collate 5" or record.names.count(at) == 2, "the evaluation was not cut short"
        records.append(record)
    # The evaluation that a signal cut short is made up for before any other step.
    made_up = records[4].names
    assert made_up.index("collate 5") < made_up.index("step 4")
    _, record = run_with(form, words, tmp_path)
    assert record.steps == []
    assert record.names.count("collate 5") == 6, "the evaluation due after the last step, and the last one"
    assert differences(tmp_path / "out", whole, stops=True) == []
    assert replayed([*records, record], reference, 2, batches_per_epoch=5) == []


@pytest.mark.first_task
def test_second_signal_ends_the_process_at_once(form, words, uninterrupted, tmp_path):
    """In the midst of saving; what was saved before verifies, and the run continues from there."""
    whole, reference = uninterrupted(form)
    model = reference.first(r"write \.unfinished-checkpoint-4/.*model\.safetensors")
    first, second = {"do": "SIGTERM", "at": "step 4"}, {"do": "SIGTERM", "at": model}
    _, record = run_with(form, words, tmp_path, first, second, expect=-signal.SIGTERM)
    assert record.struck == ["step 4", model]
    assert record.names[-1] == model, "it went on"
    assert newest_step(tmp_path) == 2
    run_with(form, words, tmp_path)
    assert differences(tmp_path / "out", whole, stops=True) == []


@pytest.mark.neutral
@pytest.mark.first_with("generates")
def test_stopped_with_workers_groups_of_length_and_early_stopping(form, words, uninterrupted, tmp_path):
    words = [
        *words,
        *flags(
            max_steps=12,
            dataloader_num_workers=2,
            group_by_length=True,
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_strategy="epoch",
            load_best_model_at_end=True,
            early_stopping_patience=1,
            metric_for_best_model=form.tests["best"],
        ),
    ]
    whole, reference = uninterrupted(form, "early", *words)
    assert reference.steps[-1] == 6, "the second evaluation, as the first, finds no word of the summaries"
    for at, skip, step in (
        ("step 2", 0, 2),
        ("collate 5", 4, 6),
        ("rename .unfinished-model/config.json", 0, 6),
    ):
        fault = {"do": "SIGTERM", "at": at, "skip": skip}
        _, record = run_with(form, words, tmp_path, fault, expect=TERMINATED)
        assert newest_step(tmp_path) == step, at
    assert record.steps == []
    _, record = run_with(form, words, tmp_path)
    assert record.steps == []
    assert differences(tmp_path / "out", whole, stops=True) == []


@pytest.mark.neutral
@pytest.mark.first_task
def test_stopped_while_streaming(form, words, uninterrupted, tmp_path):
    whole, reference = uninterrupted(form, "streaming", "--streaming")
    fault = {"do": "SIGINT", "at": "step 3"}
    _, first = run_with(form, [*words, "--streaming"], tmp_path, fault, expect=INTERRUPTED)
    assert newest_step(tmp_path) == 3
    _, second = run_with(form, [*words, "--streaming"], tmp_path)
    assert second.steps == [4, 5, 6]
    assert differences(tmp_path / "out", whole, stops=True) == []
    assert replayed([first, second], reference, 2, batches_per_epoch=None) == []
