"""Which rows are in which batch: a function of seed and epoch, the same in every form, whatever the number of
workers."""

import json

import numpy as np
import pytest
from harness import STEPS, flags

from triptych.batching.draws import IN_EVALUATION

ROWS, SIZE, SEED = 37, 4, 7
BATCHES = 10  # an epoch, the last of one row


@pytest.fixture(scope="session")
def short_run(shared_run, start, files):
    """Two epochs with dropout, in steps of two batches, every batch recorded."""

    def run(form, grouped, workers=0):
        words = flags(
            model_name_or_path=start(form),
            config_overrides=form.tests["dropout"],
            **form.longest(250),
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


def recorded(run):
    """The training batches, in order."""
    lines = map(json.loads, (run.output.parent / "batches.jsonl").read_text().splitlines())
    return [line for line in lines if max(line["numbers"]) < IN_EVALUATION]


def batches(run):
    """Row numbers, batch by batch, of both epochs; workers may have begun a third."""
    return [[number % ROWS for number in line["numbers"]] for line in recorded(run)[: 2 * BATCHES]]


@pytest.mark.first_task
def test_order_is_that_of_seed_and_epoch(form, short_run):
    orders = [np.random.default_rng([SEED, epoch]).permutation(ROWS).tolist() for epoch in (0, 1)]
    expected = [order[start : start + SIZE] for order in orders for start in range(0, ROWS, SIZE)]
    assert batches(short_run(form, False)) == expected


@pytest.mark.first_task
def test_groups_of_similar_length_hold_every_row_once(form, short_run):
    padding = {}
    for grouped in (False, True):
        run = short_run(form, grouped)
        found, lines = batches(run), recorded(run)[: 2 * BATCHES]
        for epoch in (found[:BATCHES], found[BATCHES:]):
            assert sorted(row for batch in epoch for row in batch) == list(range(ROWS))
        assert found[:BATCHES] != found[BATCHES:]
        masks = [line["arrays"]["attention_mask"] for line in lines]
        padding[grouped] = sum(np.size(mask) - np.sum(mask) for mask in masks)
    assert padding[True] < 0.4 * padding[False]


def require_same_batches(first, other, count):
    """Rows, masks, targets, bit for bit."""
    expected, found = recorded(first)[:count], recorded(other)[:count]
    assert len(expected) == len(found) == count
    for number, (one, two) in enumerate(zip(expected, found, strict=True)):
        assert one["numbers"] == two["numbers"], f"batch {number}"
        assert {"labels", "start_positions"} & set(one["arrays"])
        assert one["arrays"] == two["arrays"], f"batch {number}"


def test_batches_of_the_standard_run_equal_the_first_forms(first_form, other_form, standard):
    epochs, rest = divmod(STEPS, 3)  # of three steps, six batches
    require_same_batches(standard(first_form), standard(other_form), 6 * epochs + 2 * rest)


@pytest.mark.sampled
@pytest.mark.parametrize("grouped", [False, pytest.param(True, marks=pytest.mark.needs("length"))])
def test_batches_equal_the_first_forms(first_form, other_form, grouped, short_run):
    first, other = short_run(first_form, grouped), short_run(other_form, grouped)
    require_same_batches(first, other, 2 * BATCHES)
    if first_form.framework == other_form.framework:  # elsewhere dropout draws other numbers
        for expected, found in zip(first.log(), other.log(), strict=True):
            assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.neutral
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
