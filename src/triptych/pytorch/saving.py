"""A run's model and optimizer to and from a checkpoint, as safetensors under the parameters' names.

Where parameters are split over processes, all of them have to call what gathers.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from triptych.errors import RunError
from triptych.models import tensor_files
from triptych.pytorch.sharding import part_of, whole


def gather_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state that `save_pretrained` takes, of whole tensors; tied ones stay the same tensor."""
    state = model.state_dict(keep_vars=True)
    wholes = {id(tensor): whole(tensor.detach()).cpu() for tensor in state.values()}
    return {name: wholes[id(tensor)] for name, tensor in state.items()}


def gather_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state: of AdamW `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`, `step.<parameter>`."""
    return {
        f"{key}.{name}": whole(torch.as_tensor(value).detach()).cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def save_optimizer(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes what `gather_optimizer` gave."""
    save_file(tensors, folder / tensor_files.OPTIMIZER)


def load_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fills the optimizer's state from the file that `save_optimizer`, or another form, wrote."""
    parameters = dict(model.named_parameters())
    for key, value in load_file(folder / tensor_files.OPTIMIZER).items():
        kind, _, name = key.partition(".")
        parameter = parameters[name]
        # torch keeps the number of steps on the CPU unless the optimizer is fused.
        if value.dim() == 0:
            value = value.to(parameter.device if optimizer.defaults.get("fused") else "cpu")
        optimizer.state[parameter][kind] = part_of(value, parameter) if value.dim() else value


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fills a model from a checkpoint's `model.safetensors`, in which tied weights are stored once.

    Raises:
        RunError: if the file has other names than the model.
    """
    stored, own, filled = load_file(folder / "model.safetensors"), model.state_dict(keep_vars=True), set()
    with torch.no_grad():
        for name in own.keys() & stored.keys():
            own[name].copy_(part_of(stored[name], own[name]))
            filled.add(id(own[name]))
    strange = {name for name, tensor in own.items() if id(tensor) not in filled} | stored.keys() - own.keys()
    if strange:
        raise RunError(f"{folder}: is not of this model, to judge by {', '.join(sorted(strange)[:5])}.")
