"""Between flax.nnx and Hugging Face: models in and out of folders, and any tree of their parameters' shape.

A leaf's path, but for Flax's name of the leaf, is the name of its tensor; kernels have their axes moved:

    encoder.block[0].layer[0].SelfAttention.q.kernel [in, out]
    encoder.block.0.layer.0.SelfAttention.q.weight   [out, in]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from triptych.errors import InputError
from triptych.flax.models.bart import BartForConditionalGeneration
from triptych.flax.models.bert import (
    BertForSequenceClassification,
    Classifier,
    DistilBertForSequenceClassification,
    RobertaForSequenceClassification,
)
from triptych.flax.models.t5 import T5ForConditionalGeneration
from triptych.models import initial_weights, tensor_files

MODELS: dict[str, dict[str, Any]] = {
    "ForConditionalGeneration": {
        "t5": T5ForConditionalGeneration,
        "mt5": T5ForConditionalGeneration,
        "bart": BartForConditionalGeneration,
        "mbart": BartForConditionalGeneration,
    },
    "ForSequenceClassification": {
        "bert": BertForSequenceClassification,
        "roberta": RobertaForSequenceClassification,
        "distilbert": DistilBertForSequenceClassification,
    },
}
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def load(
    folder: str | Path, config: Any, *, dtype: Any = jnp.float32, gradient_checkpointing: bool = False
) -> Any:
    """The model of a folder; its parameters are float32, whatever the files hold.

    Nothing is drawn at random: InputError names each parameter without a tensor, each tensor without a use,
    and each whose shape differs.

    Args:
        folder: see `tensor_files.read_model`.
        config: the folder's configuration, of transformers.AutoConfig.
        dtype, gradient_checkpointing: see T5ForConditionalGeneration.
    """
    cls, tensors = model_class(config), tensor_files.read_model(folder)
    if not any(name.startswith(cls.prefix) for name in tensors):
        tensors = {cls.prefix + name: value for name, value in tensors.items()}
    own_tables = tensor_files.settle_tables(tensors, cls.tables, config.tie_word_embeddings)
    for name in cls.unused:
        tensors.pop(name, None)

    def build():
        options = {"dtype": dtype, "gradient_checkpointing": gradient_checkpointing}
        return cls(config, own_tables, **options, rngs=nnx.Rngs(0))

    graphdef, shapes = nnx.split(nnx.eval_shape(build))
    for name, _, leaf in named_leaves(shapes):
        if name in cls.buffers:
            tensors.setdefault(name, np.zeros(leaf.shape))
    return nnx.merge(graphdef, from_numpy(tensors, shapes))


def initialise(
    config: Any, seed: int, *, dtype: Any = jnp.float32, gradient_checkpointing: bool = False
) -> Any:
    """A new model with parameters from transformers' distributions; for the arguments see `load`."""
    cls = model_class(config)
    own_tables = () if config.tie_word_embeddings else cls.tables[1:]
    options = {"dtype": dtype, "gradient_checkpointing": gradient_checkpointing}
    return cls(config, own_tables, **options, rngs=nnx.Rngs(params=seed))


def classifier(
    folder: Path | None, config: Any, seed: int, ignore_mismatched_sizes: bool = False, **options: Any
) -> Classifier:
    """A classifier of texts, of a checkpoint with its head or another one, or new; see
    `initial_weights.complete`. For `options` see Classifier."""
    cls = model_class(config, "ForSequenceClassification")
    graphdef, like = nnx.split(nnx.eval_shape(lambda: cls(config, **options, rngs=nnx.Rngs(0))))
    shapes = {name: leaf.shape[::-1] if kernel else leaf.shape for name, kernel, leaf in named_leaves(like)}
    tensors = initial_weights.complete(folder, shapes, config, seed, ignore_mismatched_sizes)
    return nnx.merge(graphdef, from_numpy(tensors, like))


def save(model: nnx.Module, config: Any, folder: str | Path, generation_config: Any = None) -> None:
    """Writes a folder that `from_pretrained` of transformers opens; see `tensor_files.write_model`."""
    head = "For" + type(model).__name__.partition("For")[2]
    tensor_files.write_model(folder, to_numpy(nnx.state(model)), config, generation_config, head)


def to_numpy(tree: Any) -> dict[str, np.ndarray]:
    """A tree of the shape of a model's state (its parameters, a moment of Adam) as contiguous arrays with
    Hugging Face's names and PyTorch's layout."""
    return {
        name: np.ascontiguousarray(np.moveaxis(np.asarray(value), (-1, -2), (0, 1)) if kernel else value)
        for name, kernel, value in named_leaves(tree)
    }


def from_numpy(tensors: Mapping[str, np.ndarray], like: Any) -> Any:
    """The inverse of `to_numpy`: a tree of the structure, types and, if it has arrays, placement of `like`.
    InputError names each leaf without a tensor, each tensor without a leaf, and each whose shape differs."""
    leaves, values = named_leaves(like), []
    names = {name for name, _, _ in leaves}
    problems = [f"The tensor {name} is missing." for name in sorted(names - tensors.keys())]
    problems += [f"There is no place for the tensor {name}." for name in sorted(tensors.keys() - names)]
    for name, kernel, leaf in leaves:
        if name in tensors:
            value = np.moveaxis(tensors[name], (0, 1), (-1, -2)) if kernel else tensors[name]
            if value.shape != leaf.shape:
                problems.append(
                    f"The tensor {name} has, in Flax's layout, shape {value.shape}, not {leaf.shape}."
                )
                continue
            array = jnp.array(value, leaf.dtype)
            values.append(jax.device_put(array, leaf.sharding) if isinstance(leaf, jax.Array) else array)
    if problems:
        raise InputError(problems)
    return jax.tree.unflatten(jax.tree.structure(like), values)


def named_leaves(tree: Any) -> list[tuple[str, bool, Any]]:
    """Of each leaf, in order: Hugging Face's name, whether it is a kernel (its axes are moved), its value."""
    found = []
    for path, value in jax.tree.leaves_with_path(tree):
        *parents, leaf = (str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey))
        found.append((".".join([*parents, LEAVES.get(leaf, leaf)]), leaf == "kernel", value))
    return found


def model_class(config: Any, head: str = "ForConditionalGeneration") -> Any:
    """The class for a configuration of transformers, with a head of those in MODELS; if there is none,
    InputError lists the architectures that work."""
    known = MODELS[head]
    if config.model_type not in known:
        raise InputError(
            f"The architecture {config.model_type!r} is not supported in this form; there are: "
            f"{', '.join(known)}."
        )
    return known[config.model_type]
