"""The Trainer's loader: the documented order of rows, shared between processes, whatever the number of
workers."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from triptych import batching
from triptych.batching import order
from triptych.pytorch import loading

ROWS, SIZE = 23, 4


def to_array(columns, draws=None):
    drawn = {} if draws is None else {"numbers": draws.numbers}
    return {"input_ids": batching.pad(columns["input_ids"], 0), **drawn}


def loader(process=0, processes=1, **settings):
    rows = Dataset.from_dict({"input_ids": [[number] * (1 + number % 7) for number in range(ROWS)]})
    args = SimpleNamespace(
        data_seed=3,
        per_device_train_batch_size=SIZE,
        dataloader_num_workers=0,
        dataloader_drop_last=False,
        dataloader_pin_memory=True,
        dataloader_persistent_workers=False,
        dataloader_prefetch_factor=None,
        dataloader_multiprocessing_context=None,
        group_by_length=False,
        process_index=process,
        world_size=processes,
    )
    vars(args).update(settings)
    return loading.epoch_loader(rows, to_array, (), args)


def row_numbers(made, epoch):
    made.set_epoch(epoch)
    return [batch["input_ids"][:, 0].tolist() for batch in made]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("grouped", [False, True])
def test_order_is_that_of_the_package(workers, grouped):
    made = loader(dataloader_num_workers=workers, group_by_length=grouped)
    lengths = [1 + number % 7 for number in range(ROWS)] if grouped else None
    for epoch in (0, 1, 0):
        expected = [batch.tolist() for batch in order.epoch_batches(3, epoch, ROWS, SIZE, lengths=lengths)]
        assert row_numbers(made, epoch) == expected
    assert len(made) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_draw_anew_in_each_epoch(workers):
    made = loader(dataloader_num_workers=workers)
    for epoch in (0, 2):
        made.set_epoch(epoch)
        for batch in made:
            assert batch["numbers"].tolist() == (batch["input_ids"][:, 0] + epoch * ROWS).tolist()


def test_processes_share_every_batch():
    shares = [row_numbers(loader(process, 3, per_device_train_batch_size=2), 1) for process in range(3)]
    whole = row_numbers(loader(per_device_train_batch_size=6), 1)
    assert [[row for part in parts for row in part] for parts in zip(*shares, strict=True)] == whole
    assert {len(part) for part in shares[0][:-1]} == {2}


def test_last_partial_batch_can_be_dropped():
    kept, dropped = row_numbers(loader(), 0), row_numbers(loader(dataloader_drop_last=True), 0)
    assert kept[:-1] == dropped
    assert sorted(np.concatenate(kept)) == list(range(ROWS))


def test_parts_of_a_batch_are_as_wide_as_their_longest_row():
    batch = loading.as_tensors(to_array({"input_ids": [[1], [2] * 50, [3] * 20]}))
    batch |= {"attention_mask": (batch["input_ids"] > 0).long(), "labels": batch["input_ids"][:, :2]}
    args = SimpleNamespace(per_device_train_batch_size=3, max_tokens_per_batch=64)
    first, last = loading.parts(batch, args)
    assert first["input_ids"].tolist() == [[2] * 50]
    assert last["input_ids"].tolist() == [[3] * 20, [1] + [0] * 19]
    assert last["attention_mask"].sum(dim=1).tolist() == [20, 1]
    assert last["labels"].tolist() == [[3, 3], [1, 0]]
    args.max_tokens_per_batch = None
    assert loading.parts(batch, args)[0] is batch
