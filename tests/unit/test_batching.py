from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from triptych import batching, data
from triptych.arguments import TrainingArguments
from triptych.batching import order, padding
from triptych.batching.draws import IN_EVALUATION, Draws, mixed

LENGTHS = np.random.default_rng(0).integers(1, 200, 1003)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_an_epoch_holds_each_row_once_in_an_order_of_its_own(lengths):
    epochs = [order.epoch_batches(7, epoch, 1003, 8, lengths=lengths) for epoch in (0, 1)]
    for batches in epochs:
        assert [len(batch) for batch in batches[:-1]] == [8] * 125
        assert sorted(np.concatenate(batches)) == list(range(1003))
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    again = order.epoch_batches(7, 0, 1003, 8, lengths=lengths)
    assert all(np.array_equal(one, other) for one, other in zip(epochs[0], again, strict=True))


def test_grouping_by_length_pads_less_starts_with_the_longest_and_stays_random():
    def padding(batches):
        return sum(len(batch) * LENGTHS[batch].max() for batch in batches) / LENGTHS.sum() - 1

    plain, grouped = (order.epoch_batches(7, 0, 1003, 8, lengths=given) for given in (None, LENGTHS))
    assert padding(grouped) < 0.2 * padding(plain)
    assert LENGTHS[grouped[0]].max() == LENGTHS.max()
    longest = [LENGTHS[batch].max() for batch in grouped]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


@pytest.mark.parametrize("start", [1, 13, 15, 32])
def test_starting_late_gives_the_steps_that_would_have_come(start):
    def first(count, start):
        steps = order.steps(3, 101, 4, 2, start=start)
        return [[batch.tolist() for batch in next(steps)[1]] for _ in range(count)]

    assert first(40, 0)[start:] == first(40 - start, start)


def test_no_step_reaches_across_an_epoch():
    steps = order.steps(3, 101, 4, 2)
    epoch = [next(steps)[1] for _ in range(13)]
    assert [len(step) for step in epoch] == [2] * 13
    assert [len(batch) for batch in epoch[-1]] == [4, 1]
    assert sorted(np.concatenate([batch for step in epoch for batch in step])) == list(range(101))


def test_processes_share_every_row_of_a_batch():
    batch = np.arange(11)
    shares = [order.share(batch, process, 3) for process in range(3)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    assert [len(share) for share in shares] == [4, 4, 3]


@pytest.mark.parametrize("max_tokens", [None, 300])
def test_evaluation_takes_every_row_once_longest_first(max_tokens):
    args = TrainingArguments(per_device_eval_batch_size=8, max_tokens_per_batch=max_tokens)
    batches = order.evaluation_batches(LENGTHS, 1003, args, devices=2)
    assert sorted(np.concatenate(batches)) == list(range(1003))
    assert np.all(np.diff(LENGTHS[np.concatenate(batches)]) <= 0)
    sizes = [len(batch) for batch in batches]
    assert max(sizes) == 16
    if max_tokens is None:
        assert set(sizes[:-1]) == {16}
    else:
        assert all(len(batch) // 2 * LENGTHS[batch].max() <= 300 for batch in batches)
        assert min(sizes[:-1]) < 16


def test_batch_is_computed_in_parts_within_the_tokens():
    batch = np.array([4, 1, 3, 0, 2])
    lengths = np.array([100, 16, 60, 30, 8])
    parts = order.passes(batch, lengths, 5, 128)
    assert [part.tolist() for part in parts] == [[0], [2, 3], [1, 4]]  # of 128, 64 and 32 tokens
    assert order.passes(batch, lengths, 3, 128, devices=2)[0].tolist() == [0, 2]
    assert order.passes(batch, lengths, 5, 5)[0].tolist() == [0]  # alone, though it has more
    for whole in (None, 5 * 128):
        assert [part.tolist() for part in order.passes(batch, lengths, 5, whole)] == [batch.tolist()]


@pytest.mark.parametrize("rows", range(1, 9))
def test_no_part_of_a_smaller_batch_has_more_rows_than_a_full_batchs_would(rows):
    """JAX fills parts up to that many."""
    for length in (30, 60, 90, 120, 180, 500):
        for part in order.passes(np.arange(rows), np.full(rows, length), 8, 480):
            assert len(part) <= order.rows_at_once(length, 8, 480)


@pytest.mark.parametrize("streaming", [False, True])
def test_parts_of_a_batch_hold_its_rows(streaming):
    dataset = Dataset.from_dict({"input_ids": [[row] * (1 + 7 * (row % 5)) for row in range(45)]})
    dataset = dataset.to_iterable_dataset() if streaming else dataset
    whole, parts = (
        rows_of(dataset, TrainingArguments(per_device_train_batch_size=9, max_tokens_per_batch=most), 5)
        for most in (None, 64)
    )
    for one, several in zip(whole, parts, strict=True):
        assert len(several) > len(one) == 1
        assert sorted(row for part in several for row in part) == sorted(one[0])


def test_rows_of_several_sequences_count_all_of_them_as_long_as_the_longest():
    rows = [[[1] * 3, [1] * 40], [[1] * 7], [[1] * 9, [1] * 2, [1] * 5]]
    features = Dataset.from_dict({"input_ids": rows})
    assert data.lengths(features).tolist() == [40, 7, 9]
    assert data.sequences(features) == 3
    assert data.sequences(Dataset.from_dict({"input_ids": rows[0]})) == 1
    for limit, at_once in ((64 * 3 * 8, 8), (64 * 3 * 8 - 1, 4), (1, 1)):
        assert order.rows_at_once(40, 8, limit, sequences=3) == at_once


def collate(columns, draws):
    return {"input_ids": padding.pad(columns["input_ids"], 0), "draws": draws.numbers}


def world(share=0, shares=1):
    return SimpleNamespace(devices=shares, share=share, shares=shares)


def batches_of(dataset, args, count, start=0, **place):
    steps = batching.step_batches(dataset, collate, (), args, world(**place), start)
    return [next(steps) for _ in range(count)]


def rows_of(*arguments, **options):
    steps = batches_of(*arguments, **options)
    return [[batch["input_ids"][:, 0].tolist() for batch in step] for step in steps]


@pytest.mark.parametrize("streaming", [False, True])
def test_worker_threads_and_a_late_start_change_no_batch(streaming):
    dataset = Dataset.from_dict({"input_ids": [[row] * (1 + row % 5) for row in range(45)]})
    dataset = dataset.to_iterable_dataset() if streaming else dataset
    plain = TrainingArguments(per_device_train_batch_size=4, gradient_accumulation_steps=3)
    threaded = TrainingArguments(
        per_device_train_batch_size=4, gradient_accumulation_steps=3, dataloader_num_workers=2
    )
    expected = rows_of(dataset, plain, 9)
    assert rows_of(dataset, threaded, 9) == expected
    assert rows_of(dataset, threaded, 4, start=5) == expected[5:]
    seen = [row for step in expected for batch in step for row in batch]
    assert sorted(seen[:45]) == list(range(45))


def test_padding_fills_on_the_right():
    padded = padding.pad([[1, 2, 3], [4]], -100)
    assert padded.tolist() == [[1, 2, 3], [4, -100, -100]]
    assert padding.pad([[1]], 0, 3).tolist() == [[1, 0, 0]]
    assert padding.pad([], 0).shape == (0, 1)  # a process may have no share of a small batch


def test_batch_grows_to_the_next_bucket_of_its_last_axis_but_not_beyond_the_longest():
    batch = {
        "labels": np.full((2, 3), 7),
        "input_ids": np.full((2, 4, 17), 7),  # of four choices
        "attention_mask": np.full((2, 4, 17), 1),
        "pixels": np.ones((2, 3, 5), np.float32),
        "is_choice": np.ones((2, 4), np.float32),
        "starts": np.full(2, 7),
    }
    # Another process has five choices, and 18 tokens.
    widest = {"labels": (3,), "input_ids": (5, 18), "attention_mask": (5, 18), "pixels": (3, 5)}
    widest |= {"is_choice": (5,), "starts": ()}
    grown = padding.in_few_shapes(batch, 3, widest, ("labels", "starts"), 9, longest=30)
    shapes = {"labels": (3, 30), "input_ids": (3, 5, 30), "attention_mask": (3, 5, 30)}
    shapes |= {"pixels": (3, 3, 5), "is_choice": (3, 5), "starts": (3,)}
    assert {name: array.shape for name, array in grown.items()} == shapes
    fill = {"labels": -100, "input_ids": 9, "attention_mask": 0, "pixels": 0, "is_choice": 0, "starts": -100}
    for name, array in grown.items():
        own = tuple(map(slice, batch[name].shape))
        assert np.array_equal(array[own], batch[name])
        assert (array[2:] == fill[name]).all()
        if array.shape[-1] > batch[name].shape[-1]:
            assert (array[..., batch[name].shape[-1] :] == fill[name]).all()
    for name in ("input_ids", "attention_mask", "is_choice"):
        assert (grown[name][:, 4] == fill[name]).all()
    assert padding.in_few_shapes(batch, 3, widest, (), 9)["labels"].shape == (3, 32)


def test_buckets_are_few_and_never_too_small():
    buckets = [padding.bucket(length) for length in range(1, 1025)]
    assert all(bucket >= length for length, bucket in enumerate(buckets, start=1))
    assert sorted(set(buckets)) == [32, 64, 96, 128, 192, 256, 384, 512, 768, 1024]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_work_ahead_loses_no_item(workers):
    assert list(batching.ahead(lambda item: item + 1, iter(range(10)), workers)) == list(range(1, 11))
    assert list(batching.ahead(lambda item: item, iter(()), workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shares", [1, 2, 5])
def test_evaluation_gives_every_row_to_one_process(workers, shares):
    features = Dataset.from_dict({"input_ids": [[row] * (1 + row % 3) for row in range(7)]})
    args = TrainingArguments(per_device_eval_batch_size=2, dataloader_num_workers=workers)
    seen = []
    for share in range(shares):
        for rows, batch in batching.evaluation(features, collate, (), args, world(share, shares)):
            seen += rows
            assert batch["input_ids"][: len(rows), 0].tolist() == rows
            assert (batch["draws"][: len(rows)] - IN_EVALUATION).tolist() == rows
            assert len(batch["input_ids"]) == max(1, len(rows))  # one that counts for nothing
    assert sorted(seen) == list(range(7))


def test_rows_without_a_length_keep_their_order_in_evaluation():
    features = Dataset.from_dict({"pixels": [[0.0]] * 7})
    args = TrainingArguments(per_device_eval_batch_size=3)
    shares = batching.evaluation(features, lambda rows, draws: {}, (), args, world())
    assert [rows for rows, _ in shares] == [[0, 1, 2], [3, 4, 5], [6]]


def test_targets_of_a_process_without_rows_do_not_count():
    features = Dataset.from_dict({"input_ids": [[1, 2]]})

    def with_targets(rows, draws):
        ids = padding.pad(rows["input_ids"], 0)
        return {"input_ids": ids, "starts": ids[:, 0], "ends": ids[:, 1]}

    batch = batching.part(features, np.arange(1), np.arange(0), with_targets, ("starts", "ends"), 0, 0)
    assert (batch["starts"].tolist(), batch["ends"].tolist()) == ([-100], [-100])
    assert batch["input_ids"].tolist() == [[1, 2]]


def drawn(dataset, args, steps, start=0, shares=1):
    """What each row draws in each step, by whichever process has it: {(step, number): bits}."""
    found = {}
    for share in range(shares):
        for step, batches in enumerate(
            batches_of(dataset, args, steps, start=start, share=share, shares=shares)
        ):
            for batch in batches:
                bits = Draws(args.data_seed, batch["draws"]).bits(4)
                found |= {
                    (start + step, int(n)): row.tolist() for n, row in zip(batch["draws"], bits, strict=True)
                }
    return found


@pytest.mark.parametrize("streaming", [False, True])
def test_draws_depend_on_seed_and_draw_alone(streaming):
    """Not on batch size, accumulation, processes, workers, or where a run was stopped."""
    dataset = Dataset.from_dict({"input_ids": [[row] for row in range(24)]})
    dataset = dataset.to_iterable_dataset() if streaming else dataset

    def arguments(size, accumulation, workers=0):
        return TrainingArguments(
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            dataloader_num_workers=workers,
        )

    expected = drawn(dataset, arguments(8, 1), 6)
    assert sorted(number for _, number in expected) == list(range(48)), "each row draws anew in each epoch"
    for other in (
        drawn(dataset, arguments(4, 2), 6),
        drawn(dataset, arguments(2, 4, workers=2), 6),
        drawn(dataset, arguments(4, 1), 6, shares=2),
    ):
        assert other == expected
    assert drawn(dataset, arguments(8, 1), 2, start=4) == {
        key: bits for key, bits in expected.items() if key[0] >= 4
    }


def test_draws_are_splitmix64s_and_look_random():
    # The first numbers of the generator seeded with 1234567, as its authors' code in C prints them
    state, gamma = np.uint64(1234567), np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        states = np.array([state + np.uint64(n) * gamma for n in range(3)], np.uint64)
    assert mixed(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]

    draws = Draws(7, np.arange(2000))
    values = draws.uniform(50)
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / values.size) ** 0.5)
    for other in (Draws(8, np.arange(2000)).uniform(50), draws.uniform(50, purpose=1), np.roll(values, 1, 0)):
        correlation = np.corrcoef(values.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 4 / values.size**0.5
    assert np.array_equal(Draws(7, np.array([5, 3])).bits(4), Draws(7, np.arange(9)).bits(4)[[5, 3]])
    assert np.array_equal(draws.bits(3), draws.bits(9)[:, :3]), "places count, not their number"
