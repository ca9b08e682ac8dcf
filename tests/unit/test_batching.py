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


def test_evaluation_takes_every_row_once_longest_first():
    batches = batching.evaluation_batches(LENGTHS, 16)
    assert sorted(np.concatenate(batches)) == list(range(1003))
    assert np.all(np.diff(LENGTHS[np.concatenate(batches)]) <= 0)


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
    assert {name: array.shape for name, array in grown.items()} == {"labels": (3, 10), "input_ids": (3, 24)}
    for name, array in grown.items():
        rows, columns = batch[name].shape
        assert np.array_equal(array[:rows, :columns], batch[name])
        assert (array[rows:] == fill[name]).all()
        assert (array[:, columns:] == fill[name]).all()


def test_buckets_are_few_and_never_too_small():
    buckets = [batching.bucket(length) for length in range(1, 1025)]
    assert all(bucket >= length for length, bucket in enumerate(buckets, start=1))
    assert sorted(set(buckets)) == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
