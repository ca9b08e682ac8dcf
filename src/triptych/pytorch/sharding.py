"""Parameters split over the processes (FSDP2 of torch), and their whole values where these are needed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from triptych import launchers


def asked_for(args) -> bool:
    """Whether `--fsdp`, or `accelerate launch --use_fsdp`, asks for it; one process has nothing to split.

    To be called before an Accelerator is made, which then knows nothing of it: Accelerate would not shard on
    CPUs, and cannot where embeddings are tied.
    """
    by_launcher = os.environ.pop("ACCELERATE_USE_FSDP", "false") == "true"
    return (args.fsdp or by_launcher) and launchers.processes() > 1


def shard(model: nn.Module, device: torch.device) -> nn.Module:
    """Splits a model's parameters over all processes, in place: each block, then what is left."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    blocks = set(getattr(model, "_no_split_modules", None) or ())
    for module in [module for module in model.modules() if type(module).__name__ in blocks]:
        fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """A block in which each process holds all parameters, so that it computes without waiting for others."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:  # also where a signal stops an evaluation
        for part in parts:  # the outermost keeps its own between the forward and the backward pass
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as one process would have it; all processes have to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole tensor, placed as `like` is."""
    tensor = tensor.to(like.device)
    if not isinstance(like, DTensor):
        return tensor
    # Each process has read the whole: nothing need be sent.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
