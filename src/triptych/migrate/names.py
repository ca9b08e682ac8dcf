"""PyTorch's names and axes for the tensors of transformers 4's classes in TensorFlow and Flax.

Both frameworks put the inputs of a linear layer first and the channels of an image last; only the leaf of a
name differs, and in TensorFlow what its scopes add.
"""

import re
from collections.abc import Callable, Mapping

from triptych.errors import InputError, shown, some
from triptych.migrate.tensors import Tensor

# Where each axis of a kernel goes: of linear layers, of convolutions in one and in two dimensions
KERNELS = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}
FLAX = {"scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}
TENSORFLOW = {
    **{"gamma": "weight", "embeddings": "weight", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}


def of_flax(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """
    Args:
        name: with dots, as `encoder.block.0.layer.0.SelfAttention.q.kernel`.
    """
    name = re.sub(r"\blayer\.layer_(\d+)\b", r"layer.\1", name)  # of ResNet
    parents, dot, leaf = name.rpartition(".")
    if leaf == "kernel" and len(tensor.shape) in KERNELS:
        return f"{parents}{dot}weight", tensor.moved(KERNELS[len(tensor.shape)])
    return f"{parents}{dot}{FLAX.get(leaf, leaf)}", tensor


def of_tensorflow(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """
    Args:
        name: of a variable without that of its model, as `bert/encoder/layer_._0/output/dense/kernel:0`.
    """
    # `layer_._0` is number 0 of the list `layer`; what stands before `___` only makes a scope unique.
    scopes = name.removesuffix(":0").replace("_._", "/").split("/")
    *parents, leaf = [scope.rpartition("___")[2] for scope in scopes if scope]
    axes = len(tensor.shape)
    if leaf == "kernel" and axes in KERNELS:
        leaf, tensor = "weight", tensor.moved(KERNELS[axes])
    elif leaf == "depthwise_kernel" and axes == 4:
        leaf, tensor = "weight", tensor.moved((2, 3, 0, 1))
    elif leaf == "weight_g" and axes == 3:
        tensor = tensor.moved((2, 1, 0))
    elif leaf == "bias" and axes == 2 and tensor.shape[0] == 1:  # GPT-2's
        tensor = tensor.flat()
    return ".".join([*parents, TENSORFLOW.get(leaf, leaf)]), tensor


def of_pytorch(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Norms of the first releases had the names of TensorFlow 1."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name, tensor


RULES: dict[str, Callable[[str, Tensor], tuple[str, Tensor]]] = {
    **{"flax": of_flax, "tf": of_tensorflow, "pt": of_pytorch}
}


def renamed(tensors: Mapping[str, Tensor], rule: str) -> dict[str, Tensor]:
    """The tensors under PyTorch's names, with PyTorch's axes.

    Args:
        rule: of RULES.

    Raises:
        InputError: for names that no file of safetensors can have, and for two that become one.
    """
    found: dict[str, Tensor] = {}
    problems = []
    if strange := [name for name in tensors if not name.isprintable()]:
        problems.append(f"No tensor of a model is called {some(map(shown, strange), 3)}.")
    for name, tensor in tensors.items():
        new, moved = RULES[rule](name, tensor)
        if new in found:
            problems.append(f"Two tensors would be called {new}; one is {name}.")
        found[new] = moved
    if problems:
        raise InputError(problems)
    return found
