"""A run's model and optimizer to and from a checkpoint, as safetensors under the parameters' names."""

from pathlib import Path

import torch
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from triptych import weights


def save_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes the optimizer's state: of AdamW `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`,
    `step.<parameter>`."""
    tensors = {
        f"{key}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }
    save_file(tensors, folder / weights.OPTIMIZER)


def load_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fills the optimizer's state from the file that `save_optimizer`, or another form, wrote."""
    parameters = dict(model.named_parameters())
    for key, value in load_file(folder / weights.OPTIMIZER).items():
        kind, _, name = key.partition(".")
        parameter = parameters[name]
        # torch keeps the number of steps on the CPU unless the optimizer is fused.
        on_device = value.dim() > 0 or optimizer.defaults.get("fused")
        optimizer.state[parameter][kind] = value.to(parameter.device if on_device else "cpu")


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fills a model from a checkpoint's `model.safetensors`; tied weights are stored once."""
    load_model(model, folder / "model.safetensors")
