"""The names of a model's parameters in files, which for some architectures, as ViT, differ from those in its
modules, and which the other forms know."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers.core_model_loading import revert_weight_conversion


def in_files(model: nn.Module) -> dict[str, list[str]]:
    """By the name of each tensor in a file, those that are joined to make it, along the first axis; almost
    always one. Parameters and buffers; what has two names under the one that files have, which is not always
    the first that the module gives."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    names = [name for name in model.state_dict(keep_vars=True) if name not in tied]
    numbers = {name: torch.tensor([number]) for number, name in enumerate(names)}
    reverted = revert_weight_conversion(model, numbers)
    return {name: [names[number] for number in found.tolist()] for name, found in reverted.items()}


def parts(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A file's tensors under the names of modules; those that the model does not know keep theirs."""
    found: dict[str, torch.Tensor] = {}
    known = in_files(model)
    for name, value in tensors.items():
        own = known.get(name, [name])
        found |= dict(zip(own, value.chunk(len(own)) if value.dim() else [value] * len(own), strict=True))
    return found
