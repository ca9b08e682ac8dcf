"""The Trainer's batches: torch's DataLoader in the order of `triptych.batching`."""

import itertools
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from triptych import batching, data
from triptych.batching import order

Index = tuple[np.ndarray, np.ndarray, int]


class Parts(Dataset):
    """A dataset whose items are this process's parts of batches, as `batching.part` makes them. An index
    holds the batch's row numbers, those of this process, and the epoch."""

    def __init__(self, features: Any, collate: batching.Collate, targets: Collection[str], seed: int):
        self.features, self.collate, self.targets, self.seed = features, collate, targets, seed

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, index: Index) -> batching.Batch:
        batch, share, epoch = index
        first_draw = epoch * len(self.features)
        return batching.part(self.features, batch, share, self.collate, self.targets, self.seed, first_draw)


class EpochBatches:
    """A batch sampler: it gives each batch of an epoch with this process's share of it. `set_epoch` changes
    the order."""

    def __init__(self, args, rows: int, lengths: np.ndarray | None, process: int, processes: int):
        self.args, self.rows, self.lengths = args, rows, lengths
        self.process, self.processes = process, processes
        self.batch_size = args.per_device_train_batch_size * processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return order.batches_per_epoch(self.rows, self.batch_size, self.args.dataloader_drop_last)

    def __iter__(self) -> Iterator[Index]:
        batches = order.epoch_batches(
            self.args.data_seed,
            self.epoch,
            self.rows,
            self.batch_size,
            lengths=self.lengths,
            drop_last=self.args.dataloader_drop_last,
        )
        return ((batch, order.share(batch, self.process, self.processes), self.epoch) for batch in batches)


class EpochLoader(DataLoader):
    """A DataLoader with `set_epoch`, which the Trainer calls before each epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class Stream(IterableDataset):
    """A dataset of this process's parts of batches of streamed rows; it never ends."""

    def __init__(self, features: Any, collate: batching.Collate, args):
        self.features, self.collate, self.args = features, collate, args

    def __iter__(self) -> Iterator[batching.Batch]:
        size = self.args.per_device_train_batch_size * self.args.world_size
        rows = order.share(np.arange(size), self.args.process_index, self.args.world_size)
        worker = torch.utils.data.get_worker_info()
        numbered = enumerate(batching.stream(self.features, size, self.args.data_seed))
        own_first, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for number, columns in itertools.islice(numbered, own_first, None, workers):
            own = {name: [values[row] for row in rows] for name, values in columns.items()}
            yield self.collate(own, batching.Draws(self.args.data_seed, number * size + rows))


def epoch_loader(features: Any, collate: batching.Collate, targets: Collection[str], args: Any) -> DataLoader:
    """A DataLoader that gives the Trainer batches as tensors, epoch by epoch."""
    workers = {
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory and torch.cuda.is_available(),
        "persistent_workers": args.dataloader_persistent_workers,
        "prefetch_factor": args.dataloader_prefetch_factor,
        "multiprocessing_context": args.dataloader_multiprocessing_context,
    }
    if data.is_stream(features):
        stream = Stream(features, collate, args)
        return DataLoader(stream, batch_size=None, collate_fn=as_tensors, **workers)
    lengths = data.lengths(features) if args.group_by_length else None
    sampler = EpochBatches(args, len(features), lengths, args.process_index, args.world_size)
    parts = Parts(features, collate, targets, args.data_seed)
    return EpochLoader(parts, batch_sampler=sampler, collate_fn=as_tensors, **workers)


def as_tensors(batch: batching.Batch) -> dict[str, torch.Tensor]:
    """A collated batch as tensors on the CPU."""
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def parts(batch: dict[str, torch.Tensor], args) -> list[dict[str, torch.Tensor]]:
    """Cuts a padded batch into the parts of `order.passes`, each as wide as its longest row."""
    if args.max_tokens_per_batch is None:
        return [batch]
    mask = batch["attention_mask"]
    lengths = mask.sum(dim=-1).reshape(len(mask), -1).amax(dim=1).numpy(force=True)
    limits = args.per_device_train_batch_size, args.max_tokens_per_batch
    own = order.passes(np.arange(len(lengths)), lengths, *limits, sequences=mask[0, ..., 0].numel())

    def part(tensor: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        return tensor[rows][..., : lengths[rows].max()] if tensor.shape == mask.shape else tensor[rows]

    return [{name: part(tensor, rows) for name, tensor in batch.items()} for rows in own]
