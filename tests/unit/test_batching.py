import numpy as np
import pytest
from datasets import Dataset

from triptych import batching
from triptych.arguments import TrainingArguments

LENGTHS = np.random.default_rng(0).integers(1, 200, 1003)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_an_epoch_holds_each_row_once_in_an_order_of_its_own(lengths):
    epochs = [batching.epoch_batches(7, epoch, 1003, 8, lengths=lengths) for epoch in (0, 1)]
    for batches in epochs:
        assert [len(batch) for batch in batches[:-1]] == [8] * 125
        assert sorted(np.concatenate(batches)) == list(range(1003))
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    again = batching.epoch_batches(7, 0, 1003, 8, lengths=lengths)
    assert all(np.array_equal(one, other) for one, other in zip(epochs[0], again, strict=True))


def test_grouping_by_length_pads_less_starts_with_the_longest_and_stays_random():
    def padding(batches):
        return sum(len(batch) * LENGTHS[batch].max() for batch in batches) / LENGTHS.sum() - 1

    plain, grouped = (batching.epoch_batches(7, 0, 1003, 8, lengths=given) for given in (None, LENGTHS))
    assert padding(grouped) < 0.2 * padding(plain)
    assert LENGTHS[grouped[0]].max() == LENGTHS.max()
    longest = [LENGTHS[batch].max() for batch in grouped]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


@pytest.mark.parametrize("start", [1, 13, 15, 32])
def test_starting_late_gives_the_steps_that_would_have_come(start):
    def first(count, start):
        steps = batching.steps(3, 101, 4, 2, start=start)
        return [[batch.tolist() for batch in next(steps)] for _ in range(count)]

    assert first(40, 0)[start:] == first(40 - start, start)


def test_no_step_reaches_across_an_epoch():
    steps = batching.steps(3, 101, 4, 2)
    epoch = [next(steps) for _ in range(13)]
    assert [len(step) for step in epoch] == [2] * 13
    assert [len(batch) for batch in epoch[-1]] == [4, 1]
    assert sorted(np.concatenate([batch for step in epoch for batch in step])) == list(range(101))


def test_processes_share_every_row_of_a_batch():
    batch = np.arange(11)
    shares = [batching.share(batch, process, 3) for process in range(3)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    assert [len(share) for share in shares] == [4, 4, 3]


@pytest.mark.parametrize("max_tokens", [None, 300])
def test_evaluation_takes_every_row_once_longest_first(max_tokens):
    args = TrainingArguments(per_device_eval_batch_size=8, max_tokens_per_batch=max_tokens)
    batches = batching.evaluation_batches(LENGTHS, args, devices=2)
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
    parts = batching.passes(batch, lengths, 5, 128)
    assert [part.tolist() for part in parts] == [[0], [2, 3], [1, 4]]  # of 128, 64 and 32 tokens
    assert batching.passes(batch, lengths, 3, 128, devices=2)[0].tolist() == [0, 2]
    assert batching.passes(batch, lengths, 5, 5)[0].tolist() == [0]  # alone, though it has more
    for whole in (None, 5 * 128):
        assert [part.tolist() for part in batching.passes(batch, lengths, 5, whole)] == [batch.tolist()]


@pytest.mark.parametrize("rows", range(1, 9))
def test_no_part_of_a_smaller_batch_has_more_rows_than_a_full_batchs_would(rows):
    """JAX fills parts up to that many."""
    for length in (30, 60, 90, 120, 180, 500):
        for part in batching.passes(np.arange(rows), np.full(rows, length), 8, 480):
            assert len(part) <= batching.rows_at_once(length, 8, 480)


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


def collate(columns):
    return {"input_ids": batching.pad(columns["input_ids"], 0)}


def rows_of(dataset, args, count, **options):
    steps = batching.step_batches(dataset, collate, args, **options)
    return [[batch["input_ids"][:, 0].tolist() for batch in next(steps)] for _ in range(count)]


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
    padded = batching.pad([[1, 2, 3], [4]], -100)
    assert padded.tolist() == [[1, 2, 3], [4, -100, -100]]
    assert batching.pad([[1]], 0, 3).tolist() == [[1, 0, 0]]
    assert batching.pad([], 0).shape == (0, 1)  # a process may have no share of a small batch


def test_batch_grows_to_the_next_bucket_but_not_beyond_the_longest():
    batch = {"labels": np.full((2, 3), 7), "input_ids": np.full((2, 17), 7)}
    longest, fill = {"labels": 10, "input_ids": 99}, {"labels": -100, "input_ids": 0}
    columns = {"labels": 3, "input_ids": 18}  # of another process, 18
    grown = batching.in_few_shapes(batch, 3, columns, longest, fill)
    assert {name: array.shape for name, array in grown.items()} == {"labels": (3, 10), "input_ids": (3, 32)}
    for name, array in grown.items():
        rows, columns = batch[name].shape
        assert np.array_equal(array[:rows, :columns], batch[name])
        assert (array[rows:] == fill[name]).all()
        assert (array[:, columns:] == fill[name]).all()


def test_buckets_are_few_and_never_too_small():
    buckets = [batching.bucket(length) for length in range(1, 1025)]
    assert all(bucket >= length for length, bucket in enumerate(buckets, start=1))
    assert sorted(set(buckets)) == [32, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
