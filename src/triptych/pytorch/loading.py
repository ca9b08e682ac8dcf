"""Batches as tensors: for the Trainer from torch's DataLoader, in the order of `triptych.batching`."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from triptych import batching, data

Columns = dict[str, list]
Collate = Callable[[Columns], dict[str, np.ndarray]]


class Rows(Dataset):
    """Tokenized rows by batch: an index is an array of row numbers, an item their columns."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, rows: np.ndarray) -> Columns:
        return self.dataset[rows]


class EpochBatches:
    """A batch sampler of this process's share of each batch of an epoch; `set_epoch` changes the order."""

    def __init__(self, args, rows: int, lengths: np.ndarray | None, process: int, processes: int):
        self.args, self.rows, self.lengths = args, rows, lengths
        self.process, self.processes = process, processes
        self.batch_size = args.per_device_train_batch_size * processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return batching.batches_per_epoch(self.rows, self.batch_size, self.args.dataloader_drop_last)

    def __iter__(self) -> Iterator[np.ndarray]:
        batches = batching.epoch_batches(
            self.args.data_seed,
            self.epoch,
            self.rows,
            self.batch_size,
            lengths=self.lengths,
            drop_last=self.args.dataloader_drop_last,
        )
        return (batching.share(batch, self.process, self.processes) for batch in batches)


class EpochLoader(DataLoader):
    """A DataLoader whose epoch can be set, as the Trainer expects."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class Stream(IterableDataset):
    """Batches of streamed rows without end."""

    def __init__(self, dataset: Any, args, process: int, processes: int):
        self.dataset, self.args = dataset, args
        self.process, self.processes = process, processes

    def __iter__(self) -> Iterator[Columns]:
        size = self.args.per_device_train_batch_size * self.processes
        worker = torch.utils.data.get_worker_info()
        batches = batching.stream(self.dataset, size, self.args.data_seed)
        if worker is not None:
            batches = itertools.islice(batches, worker.id, None, worker.num_workers)
        for columns in batches:
            rows = batching.share(np.arange(size), self.process, self.processes)
            yield {name: [values[row] for row in rows] for name, values in columns.items()}


def epoch_loader(dataset: Any, collate: Collate, args) -> DataLoader:
    """Batches as tensors, epoch by epoch, for the Trainer."""
    workers = {"num_workers": args.dataloader_num_workers, "pin_memory": torch.cuda.is_available()}
    if data.is_stream(dataset):
        stream = Stream(dataset, args, args.process_index, args.world_size)
        return DataLoader(stream, batch_size=None, collate_fn=_Tensors(collate), **workers)
    lengths = data.lengths(dataset) if args.group_by_length else None
    sampler = EpochBatches(args, len(dataset), lengths, args.process_index, args.world_size)
    return EpochLoader(Rows(dataset), batch_sampler=sampler, collate_fn=_Tensors(collate), **workers)


def as_tensors(batch: dict[str, np.ndarray], device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """A collated batch on a device, by default the CPU."""
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


class _Tensors:
    """A collate function of the script's, its arrays made tensors; a class because workers pickle it."""

    def __init__(self, collate: Collate):
        self.collate = collate

    def __call__(self, columns: Columns) -> dict[str, torch.Tensor]:
        return as_tensors(self.collate(columns))
