"""A run's model, from the checkpoint that its flags name or from scratch."""

from pathlib import Path
from typing import Any

from triptych import pretrained, weights
from triptych.tensorflow import checkpoint, devices, models


def load(
    folder: Path | None,
    config: Any,
    data_args: Any,
    args: Any,
    head: str = "ForConditionalGeneration",
    ignore_mismatched_sizes: bool = False,
) -> models.Model:
    """The model, with float32 variables: of a folder, or new. With `--resize_position_embeddings` BART's
    tables of positions are continued where they are too short, and `config` changed accordingly.

    Args:
        folder: see `weights.local_folder`.
        head: of the model, as in the names of transformers' classes: also "ForSequenceClassification", which
            is new where the checkpoint has none.
        ignore_mismatched_sizes: whether a head for another number of labels is replaced by a new one.

    Raises:
        InputError: if the checkpoint is incomplete, or its position table too short.
    """
    options = {"dtype": devices.policy(args), "gradient_checkpointing": args.gradient_checkpointing}
    positions = pretrained.positions(config)
    enlarge = positions is not None and pretrained.require_positions(positions, data_args)
    if head == "ForSequenceClassification":
        return checkpoint.classifier(folder, config, args.seed, ignore_mismatched_sizes, **options)
    if enlarge:
        config.max_position_embeddings = pretrained.longest(data_args)
    if folder is None:
        return checkpoint.initialise(config, args.seed, **options)
    tensors = weights.read_model(folder)
    for name in [name for name in tensors if enlarge and name.endswith("embed_positions.weight")]:
        tensors[name] = pretrained.longer_positions(tensors[name], models.POSITION_OFFSET, data_args)
    return checkpoint.model_of(tensors, config, **options)
