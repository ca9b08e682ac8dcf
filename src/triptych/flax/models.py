"""A run's model."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import conversion
from triptych.flax.architectures.layers import Fixed
from triptych.models import agreement, configs, encoders, initial_weights, resnet, tensor_files, vision


def load(model_args: Any, data_args: Any, args: Any, config: Any, head: str) -> nnx.Module:
    """A model with float32 parameters, from the checkpoint that `model_args` names or seeded from scratch.

    A head that does not generate, such as a classifier's, starts anew if the checkpoint has none, or, with
    `--ignore_mismatched_sizes`, one of another shape. Position tables must reach the lengths that the flags
    state; `--resize_position_embeddings` enlarges them. `--resize_token_embeddings` enlarges those of tokens,
    `--image_size` fits those of patches. With `--freeze_backbone` the head alone is trained.

    Args:
        config: from `configs.load`; changed if a table of positions is enlarged, and for a head for
            questions, see `encoders.settle_labels`.
        head: what transformers' class is called after the architecture's name: `ForConditionalGeneration`.

    Raises:
        InputError: if the checkpoint cannot be had, is incomplete, or has too few positions.
    """
    model = conversion.load(
        tensor_files.local_folder(model_args),
        config,
        head,
        seed=args.seed,
        ignore_mismatched_sizes=getattr(data_args, "ignore_mismatched_sizes", False),
        positions=configs.positions_to_make(config, data_args),
        tokens=agreement.tokens_to_make(config),
        image_size=getattr(data_args, "image_size", None),
        dtype=jnp.bfloat16 if args.bf16 else jnp.float32,
        gradient_checkpointing=args.gradient_checkpointing,
    )
    if config.model_type == vision.RESNET:
        resnet.announce_frozen_statistics(trained=model_args.model_name_or_path is not None)
    if getattr(data_args, "freeze_backbone", False):
        freeze_backbone(model, encoders.base(config))
    return model


def freeze_backbone(model: nnx.Module, base: str) -> None:
    """Has training leave the parameters alone whose names begin with `base`, all but those of the head."""
    modules = [(path, node) for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Module)]
    for path, module in modules:
        for name, value in [*vars(module).items()]:
            full = ".".join(map(str, (*path, name)))
            if isinstance(value, nnx.Param) and not initial_weights.of_head(full, base):
                setattr(module, name, Fixed(value[...]))


def count_parameters(model: nnx.Module) -> int:
    """How many numbers the model's parameters hold."""
    return sum(parameter.size for parameter in jax.tree.leaves(nnx.state(model, nnx.Any(nnx.Param, Fixed))))
