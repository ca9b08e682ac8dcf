"""Optimizers by name, which decay the same parameters in every form; the seed of a step's dropout."""

from typing import Any

import torch
from torch import nn

from triptych.schedule import decays


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of trainable parameters: those that decay, and biases and norms, which do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if decays(p.shape)], "weight_decay": weight_decay},
        {"params": [p for p in trainable if not decays(p.shape)], "weight_decay": 0.0},
    ]


def optimizer(model: nn.Module, args) -> torch.optim.Optimizer:
    """The optimizer that `--optim` names, one of `arguments.OPTIMIZERS`, as the Trainer would build it."""
    groups = parameter_groups(model, args.weight_decay)
    if args.optim in ("adamw_torch", "adamw_torch_fused"):
        betas = (args.adam_beta1, args.adam_beta2)
        fused = args.optim == "adamw_torch_fused"
        return torch.optim.AdamW(
            groups, lr=args.learning_rate, betas=betas, eps=args.adam_epsilon, fused=fused
        )
    if args.optim == "sgd":
        return torch.optim.SGD(groups, lr=args.learning_rate)
    if args.optim == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=args.learning_rate, scale_parameter=False, relative_step=False)
    raise ValueError(f"no optimizer {args.optim}")


def begin_step(
    optimizer: torch.optim.Optimizer, learning_rate: float, seed: int, step: int, process: int = 0
) -> None:
    """Sets the learning rate of a step, and seeds its dropout by (seed, step, process), so that a checkpoint
    need not hold the state of a generator."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    seed_step(seed, step, process)


def seed_step(seed: int, step: int, process: int = 0) -> None:
    """Seeds the generator that the dropout of a step draws from."""
    torch.manual_seed(seed + 1_000_003 * step + 7919 * process)
