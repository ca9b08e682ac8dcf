"""A run's model and optimizer to and from a checkpoint, as safetensors under the parameters' names."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from triptych import weights

ADAPTIVE = "adaptive_schedule.json"


def save_optimizer(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, adaptive: Any = None
) -> None:
    """Writes the optimizer's state: of AdamW `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`,
    `step.<parameter>`.

    Args:
        adaptive: the schedule that follows evaluations, if there is one; its state goes into a JSON file.
    """
    tensors = {
        f"{key}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }
    save_file(tensors, folder / weights.OPTIMIZER)
    if adaptive is not None:
        (folder / ADAPTIVE).write_text(json.dumps(adaptive.state_dict()))


def load_optimizer(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, adaptive: Any = None
) -> None:
    """Fills the optimizer's state from the files that `save_optimizer` wrote."""
    parameters = dict(model.named_parameters())
    for key, value in load_file(folder / weights.OPTIMIZER).items():
        kind, _, name = key.partition(".")
        parameter = parameters[name]
        # torch keeps the number of steps on the CPU unless the optimizer is fused.
        on_device = value.dim() > 0 or optimizer.defaults.get("fused")
        optimizer.state[parameter][kind] = value.to(parameter.device if on_device else "cpu")
    if adaptive is not None:
        adaptive.load_state_dict(json.loads((folder / ADAPTIVE).read_text()))
        for group, rate in zip(optimizer.param_groups, adaptive.get_last_lr(), strict=True):
            group["lr"] = rate


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fills a model from a checkpoint's `model.safetensors`; tied weights are stored once."""
    load_model(model, folder / "model.safetensors")
