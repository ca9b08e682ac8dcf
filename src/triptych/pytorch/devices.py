"""The processes of a run, one device each: values of all, and parameters split over them."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from triptych import launchers
from triptych.errors import InputError


class World:
    """The processes of a run; see `launchers.World`.

    Args:
        device: of this process.
        sharded: whether parameters are split over the processes.
    """

    def __init__(self, device: torch.device, process: int, processes: int, sharded: bool = False):
        self.device, self.sharded, self.description = device, sharded, device.type
        self.process = self.share = process
        self.processes = self.devices = self.shares = processes
        launchers.settle(process, processes)

    def sum(self, values: Sequence[Any]) -> list[Any]:
        """Of numbers or scalar tensors, each one's sum over the processes, as Python's numbers."""
        if self.processes == 1:
            return [value.item() if isinstance(value, torch.Tensor) else value for value in values]
        own = torch.stack([torch.as_tensor(value, device=self.device).double() for value in values])
        return accelerate.utils.reduce(own).tolist()

    def gather(self, values: list[Any]) -> list[Any]:
        """The lists of all processes as one, in their order; of numbers, texts, lists and None."""
        if self.processes == 1:
            return values
        if (
            PartialState().distributed_type == DistributedType.XLA
        ):  # for which accelerate has no gather_object
            from torch_xla.core import xla_model

            parts = xla_model.rendezvous("gather", json.dumps(values).encode())
            return [value for part in parts for value in json.loads(part)]
        return accelerate.utils.gather_object(values)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """A collated batch as tensors on this process's device."""
        return {name: torch.from_numpy(values).to(self.device) for name, values in batch.items()}


def start(args: Any) -> tuple[World, Accelerator]:
    """Finds the device and the other processes of an explicit loop.

    With `--fsdp`, or `accelerate launch --use_fsdp`, parameters will be split, if there are several
    processes. The Accelerator does not know of it: Accelerate would not split on CPUs, and cannot where
    embeddings are tied.

    Raises:
        InputError: for `--fp16` on a CPU.
    """
    by_launcher = os.environ.pop("ACCELERATE_USE_FSDP", "false") == "true"
    accelerator = Accelerator(
        cpu=args.use_cpu
        or not torch.accelerator.is_available(),  # else a launcher's CPU processes stay alone
        mixed_precision="bf16" if args.bf16 else "fp16" if args.fp16 else "no",
        dynamo_backend="inductor" if args.torch_compile else "no",
    )
    require_precision(args, accelerator.device)
    sharded = (args.fsdp or by_launcher) and accelerator.num_processes > 1
    place = accelerator.device, accelerator.process_index, accelerator.num_processes
    return World(*place, sharded), accelerator


def of_trainer(args: Any) -> World:
    """The processes that transformers' TrainingArguments found.

    Raises:
        InputError: for `--fp16` on a CPU.
    """
    require_precision(args, args.device)
    return World(args.device, args.process_index, args.world_size)


def require_precision(args: Any, device: torch.device) -> None:
    """Refuses `--fp16` where float16 is not computed."""
    if args.fp16 and device.type == "cpu":
        raise InputError("--fp16: a CPU does not compute in float16. Leave it out, or give --bf16.")


def wrap(model: nn.Module, accelerator: Accelerator, world: World) -> tuple[nn.Module, nn.Module]:
    """A model ready to be trained by all processes: what a step calls, and the plain model within."""
    wrapped = accelerator.prepare_model(model, evaluation_mode=world.sharded)  # True: not in DDP
    plain = accelerator.unwrap_model(wrapped, keep_torch_compile=False)
    if world.sharded:
        shard(plain, world.device)
    return wrapped, plain


def shard(model: nn.Module, device: torch.device) -> nn.Module:
    """Splits a model's parameters over all processes, in place: each block, then what is left."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]:
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
