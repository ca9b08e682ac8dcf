"""Which rows are in which batch: a function of seed and epoch, the same in every form, whatever the number of
workers."""

import json

import numpy as np
import pytest
from harness import flags
from tokenizers import Tokenizer

ROWS, SIZE, SEED = 37, 4, 7
BATCHES = 10  # an epoch, the last of one row


@pytest.fixture(scope="session")
def short_run(shared_run, start, files):
    """Two epochs with dropout, in steps of two batches, every batch recorded."""

    def run(form, grouped, workers=0):
        words = flags(
            model_name_or_path=start(form),
            config_overrides=form.tests["dropout"],
            **{form.tests["length"]: 250},
            train_file=files["train_file"],
            do_train=True,
            max_train_samples=ROWS,
            per_device_train_batch_size=SIZE,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            learning_rate=1e-2,
            logging_steps=1,
            seed=SEED,
            group_by_length=grouped or None,
            dataloader_num_workers=workers or None,
        )
        return shared_run(form, f"batches-{grouped}-{workers}", *words, record="batches.jsonl")

    return run


@pytest.fixture(scope="session")
def row_of(samples):
    """The number of a training row by its token ids."""
    tokenizer = Tokenizer.from_file(str(samples / "tokenizer/tokenizer.json"))
    lines = (samples / "train.jsonl").read_text().splitlines()[:ROWS]
    return {
        tuple(tokenizer.encode(json.loads(line)["text"]).ids): number for number, line in enumerate(lines)
    }


def recorded(run):
    """The batches of both epochs; workers may have begun a third."""
    lines = (run.output.parent / "batches.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[: 2 * BATCHES]]


def batches(run, row_of):
    """Row numbers, batch by batch."""
    return [[row_of[tuple(ids)] for ids in batch["input_ids"]] for batch in recorded(run)]


@pytest.mark.first_task
def test_order_is_that_of_seed_and_epoch(form, short_run, row_of):
    orders = [np.random.default_rng([SEED, epoch]).permutation(ROWS).tolist() for epoch in (0, 1)]
    expected = [order[start : start + SIZE] for order in orders for start in range(0, ROWS, SIZE)]
    assert batches(short_run(form, False), row_of) == expected


@pytest.mark.first_task
def test_groups_of_similar_length_hold_every_row_once(form, short_run, row_of):
    length = {row: len(ids) for ids, row in row_of.items()}
    padding = {}
    for grouped in (False, True):
        found = batches(short_run(form, grouped), row_of)
        for epoch in (found[:BATCHES], found[BATCHES:]):
            assert sorted(row for batch in epoch for row in batch) == list(range(ROWS))
        assert found[:BATCHES] != found[BATCHES:]
        padding[grouped] = sum(
            max(length[r] for r in batch) - length[row] for batch in found for row in batch
        )
    assert padding[True] < 0.4 * padding[False]


@pytest.mark.parametrize("grouped", [False, True])
def test_batches_equal_the_first_forms(first_form, other_form, grouped, short_run, row_of):
    """Ids, masks and labels, bit for bit."""
    first, other = short_run(first_form, grouped), short_run(other_form, grouped)
    assert batches(other, row_of) == batches(first, row_of)
    for number, (expected, found) in enumerate(zip(recorded(first), recorded(other), strict=True)):
        assert {"input_ids", "attention_mask", "labels"} <= set(expected["arrays"])
        assert found["arrays"] == expected["arrays"], f"batch {number}"
    if first_form.framework == other_form.framework:  # elsewhere dropout draws other numbers
        for expected, found in zip(first.log(), other.log(), strict=True):
            assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.first_task
@pytest.mark.parametrize("grouped", [False, True])
def test_workers_change_nothing(form, grouped, short_run):
    alone, helped = short_run(form, grouped), short_run(form, grouped, workers=2)
    assert helped.log() == alone.log()
    assert (helped.output / "model.safetensors").read_bytes() == (
        alone.output / "model.safetensors"
    ).read_bytes()


@pytest.mark.first_task
def test_training_alone_leaves_no_other_results(form, short_run):
    output = short_run(form, False).output
    assert (
        json.loads((output / "all_results.json").read_text()).keys()
        == json.loads((output / "train_results.json").read_text()).keys()
    )
    assert not (output / "eval_results.json").exists()
    assert not (output / "predict_results.json").exists()
    assert not (output / form.settings["predictions"]).exists()
