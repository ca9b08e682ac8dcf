"""A run's model, from the checkpoint that its flags name or from scratch."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from triptych.flax import conversion
from triptych.flax.models.bart import POSITION_OFFSET
from triptych.models import configs, tensor_files


def load(
    folder: Path | None,
    config: Any,
    data_args: Any,
    args: Any,
    head: str = "ForConditionalGeneration",
    ignore_mismatched_sizes: bool = False,
) -> nnx.Module:
    """The model, with float32 parameters: of a folder, or new. With `--resize_position_embeddings` BART's
    tables of positions are continued where they are too short, and `config` changed accordingly.

    Args:
        folder: see `tensor_files.local_folder`.
        head: of the model, as in the names of transformers' classes: also "ForSequenceClassification", which
            is new where the checkpoint has none.
        ignore_mismatched_sizes: whether a head for another number of labels is replaced by a new one.

    Raises:
        InputError: if the checkpoint is incomplete, or its position table too short.
    """
    dtype = jnp.bfloat16 if args.bf16 else jnp.float32
    options = {"dtype": dtype, "gradient_checkpointing": args.gradient_checkpointing}
    positions = configs.positions(config)
    enlarge = positions is not None and configs.require_positions(positions, data_args)
    if head == "ForSequenceClassification":
        return conversion.classifier(folder, config, args.seed, ignore_mismatched_sizes, **options)
    if folder is None:
        model = conversion.initialise(config, args.seed, **options)
    else:
        model = conversion.load(folder, config, **options)
    if enlarge:
        for stack in (model.model.encoder, model.model.decoder):
            table = stack.embed_positions
            longer = configs.longer_positions(table.embedding[...], POSITION_OFFSET, data_args)
            table.embedding = nnx.Param(jnp.asarray(longer))
            table.num_embeddings = len(longer)
        config.max_position_embeddings = configs.longest(data_args)
    return model


def load_parameters(folder: Path, parameters: Any) -> Any:
    """The parameters of a run's checkpoint, of the structure of `parameters` and placed as they are."""
    tensors = tensor_files.read_model(folder)
    names = {name for name, _, _ in conversion.named_leaves(parameters)}
    return conversion.from_numpy({name: tensors[name] for name in names & tensors.keys()}, parameters)
