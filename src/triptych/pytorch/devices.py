"""The processes of a run, one device each: values gathered from them, parameters sharded over them."""

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
        device: the one of this process.
        sharded: whether the parameters are sharded over the processes.
    """

    def __init__(self, device: torch.device, process: int, processes: int, sharded: bool = False):
        self.device, self.sharded, self.description = device, sharded, device.type
        self.process = self.share = process
        self.processes = self.devices = self.shares = processes
        launchers.settle(process, processes)

    def sum(self, values: Sequence[Any]) -> list[Any]:
        """The sum of each number or scalar tensor over the processes, as Python's numbers: a collective."""
        if self.processes == 1:
            return [value.item() if isinstance(value, torch.Tensor) else value for value in values]
        own = torch.stack([torch.as_tensor(value, device=self.device).double() for value in values])
        return accelerate.utils.reduce(own, reduction="sum").tolist()

    def gather(self, values: list[Any]) -> list[Any]:
        """The lists of all processes joined, in the order of the processes: a collective. They may hold
        numbers, texts, lists, arrays and None."""
        if self.processes == 1:
            return values
        if PartialState().distributed_type == DistributedType.XLA:  # Accelerate cannot gather objects there.
            from torch_xla.core import xla_model

            parts = xla_model.rendezvous("gather", json.dumps(values, default=np.ndarray.tolist).encode())
            return [value for part in parts for value in json.loads(part)]
        return accelerate.utils.gather_object(values)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """A collated batch as tensors on this process's device."""
        return {name: torch.from_numpy(values).to(self.device) for name, values in batch.items()}


def start(args: Any) -> tuple[World, Accelerator]:
    """Finds the device and the other processes of an explicit loop.

    With `--fsdp`, or `accelerate launch --use_fsdp`, `wrap` shards the parameters if there are several
    processes. The Accelerator does not know of it: Accelerate does not shard on CPUs, and cannot shard a
    model with tied embeddings.

    Raises:
        InputError: for `--fp16` on a CPU.
    """
    by_launcher = os.environ.pop("ACCELERATE_USE_FSDP", "false") == "true"  # Accelerate is not to read it.
    # Without cpu=True Accelerate ignores the processes that a launcher started on CPUs.
    accelerator = Accelerator(
        cpu=args.use_cpu or not torch.accelerator.is_available(),
        mixed_precision="bf16" if args.bf16 else "fp16" if args.fp16 else "no",
        dynamo_backend="inductor" if args.torch_compile else "no",
    )
    require_precision(args, accelerator.device)
    sharded = (args.fsdp or by_launcher) and accelerator.num_processes > 1
    place = accelerator.device, accelerator.process_index, accelerator.num_processes
    return World(*place, sharded), accelerator


def of_trainer(args: Any) -> World:
    """The processes that the TrainingArguments of transformers have found.

    Raises:
        InputError: for `--fp16` on a CPU.
    """
    require_precision(args, args.device)
    return World(args.device, args.process_index, args.world_size)


def require_precision(args: Any, device: torch.device) -> None:
    """Raises InputError for `--fp16` on a CPU."""
    if args.fp16 and device.type == "cpu":
        raise InputError("--fp16: a CPU does not compute in float16. Leave it out, or give --bf16.")


def wrap(model: nn.Module, accelerator: Accelerator, world: World) -> tuple[nn.Module, nn.Module]:
    """Prepares a model to be trained by all processes.

    Returns:
        The model that a step calls, in DDP or compiled, and the plain model within it.
    """
    # In evaluation mode Accelerate does not wrap a model in DDP.
    wrapped = accelerator.prepare_model(model, evaluation_mode=world.sharded)
    plain = accelerator.unwrap_model(wrapped, keep_torch_compile=False)
    if world.sharded:
        shard(plain, world.device)
    return wrapped, plain


def shard(model: nn.Module, device: torch.device) -> nn.Module:
    """Shards a model's parameters over all processes, in place: each layer's together, then the rest."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """A block in which each process holds all parameters whole. Its forward passes need no collectives, so
    that processes need not make equally many."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:  # also if a signal stops an evaluation
        # By default the root alone keeps its parameters from the forward to the backward pass.
        for part in parts:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded: a collective, which all processes have to call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's shard of a whole tensor, placed and sharded as `like` is."""
    tensor = tensor.to(like.device)
    if not isinstance(like, DTensor):
        return tensor
    # Each process has read the whole tensor; with src_data_rank=None none is sent.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
