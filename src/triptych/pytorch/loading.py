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


class Parts(Dataset):
    """Parts of batches: an index is a pair of a batch's row numbers and those of this process, an item what
    `batching.part` makes of them."""

    def __init__(self, dataset: Any, collate: Collate):
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, index: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        return batching.part(self.dataset, *index, self.collate)


class EpochBatches:
    """A batch sampler of each batch of an epoch and this process's share of it; `set_epoch` changes the
    order."""

    def __init__(self, args, rows: int, lengths: np.ndarray | None, process: int, processes: int):
        self.args, self.rows, self.lengths = args, rows, lengths
        self.process, self.processes = process, processes
        self.batch_size = args.per_device_train_batch_size * processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return batching.batches_per_epoch(self.rows, self.batch_size, self.args.dataloader_drop_last)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        batches = batching.epoch_batches(
            self.args.data_seed,
            self.epoch,
            self.rows,
            self.batch_size,
            lengths=self.lengths,
            drop_last=self.args.dataloader_drop_last,
        )
        return ((batch, batching.share(batch, self.process, self.processes)) for batch in batches)


class EpochLoader(DataLoader):
    """A DataLoader whose epoch can be set, as the Trainer expects."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class Stream(IterableDataset):
    """This process's part of batches of streamed rows without end."""

    def __init__(self, dataset: Any, collate: Collate, args):
        self.dataset, self.collate, self.args = dataset, collate, args

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        size = self.args.per_device_train_batch_size * self.args.world_size
        rows = batching.share(np.arange(size), self.args.process_index, self.args.world_size)
        worker = torch.utils.data.get_worker_info()
        batches = batching.stream(self.dataset, size, self.args.data_seed)
        if worker is not None:
            batches = itertools.islice(batches, worker.id, None, worker.num_workers)
        for columns in batches:
            yield self.collate({name: [values[row] for row in rows] for name, values in columns.items()})


def epoch_loader(dataset: Any, collate: Collate, args) -> DataLoader:
    """Batches as tensors, epoch by epoch, for the Trainer."""
    workers = {"num_workers": args.dataloader_num_workers, "pin_memory": torch.cuda.is_available()}
    if data.is_stream(dataset):
        stream = Stream(dataset, collate, args)
        return DataLoader(stream, batch_size=None, collate_fn=as_tensors, **workers)
    lengths = data.lengths(dataset) if args.group_by_length else None
    sampler = EpochBatches(args, len(dataset), lengths, args.process_index, args.world_size)
    return EpochLoader(Parts(dataset, collate), batch_sampler=sampler, collate_fn=as_tensors, **workers)


def as_tensors(batch: dict[str, np.ndarray], device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """A collated batch on a device, by default the CPU."""
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


def parts(batch: dict[str, torch.Tensor], args) -> list[dict[str, torch.Tensor]]:
    """A padded batch in the parts of `batching.passes`, each as wide as its longest row."""
    if args.max_tokens_per_batch is None:
        return [batch]
    lengths = batch["attention_mask"].sum(dim=1).numpy(force=True)
    limits = args.per_device_train_batch_size, args.max_tokens_per_batch
    own = batching.passes(np.arange(len(lengths)), lengths, *limits)

    def part(tensor: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        of_source = tensor.shape == batch["attention_mask"].shape
        return tensor[rows, : lengths[rows].max()] if of_source else tensor[rows]

    return [{name: part(tensor, rows) for name, tensor in batch.items()} for rows in own]
