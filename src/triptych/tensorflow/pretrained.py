"""A run's model, from the checkpoint that its flags name or from scratch."""

from pathlib import Path
from typing import Any

from triptych.models import configs, tensor_files
from triptych.tensorflow import conversion, devices, models


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
        folder: see `tensor_files.local_folder`.
        head: of the model, as in the names of transformers' classes: also "ForSequenceClassification", which
            is new where the checkpoint has none.
        ignore_mismatched_sizes: whether a head for another number of labels is replaced by a new one.

    Raises:
        InputError: if the checkpoint is incomplete, or its position table too short.
    """
    options = {"dtype": devices.policy(args), "gradient_checkpointing": args.gradient_checkpointing}
    positions = configs.positions(config)
    enlarge = positions is not None and configs.require_positions(positions, data_args)
    if head == "ForSequenceClassification":
        return conversion.classifier(folder, config, args.seed, ignore_mismatched_sizes, **options)
    if enlarge:
        config.max_position_embeddings = configs.longest(data_args)
    if folder is None:
        return conversion.initialise(config, args.seed, **options)
    tensors = tensor_files.read_model(folder)
    for name in [name for name in tensors if enlarge and name.endswith("embed_positions.weight")]:
        tensors[name] = configs.longer_positions(tensors[name], models.POSITION_OFFSET, data_args)
    return conversion.model_of(tensors, config, **options)
