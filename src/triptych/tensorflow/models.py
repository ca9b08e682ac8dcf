"""A run's model."""

import math
from typing import Any

from triptych.models import agreement, configs, encoders, initial_weights, resnet, tensor_files, vision
from triptych.tensorflow import architectures, conversion
from triptych.tensorflow.devices import World


def load(
    model_args: Any, data_args: Any, args: Any, config: Any, head: str, world: World
) -> architectures.Model:
    """A model with float32 variables, from the checkpoint that `model_args` names or seeded from scratch.

    A head that does not generate, such as a classifier's, starts anew if the checkpoint has none, or, with
    `--ignore_mismatched_sizes`, one of another shape. Position tables must reach the lengths that the flags
    state; `--resize_position_embeddings` enlarges them. `--resize_token_embeddings` enlarges those of tokens,
    `--image_size` fits those of patches. With `--freeze_backbone` the head alone is trained.

    Args:
        config: from `configs.load`; changed if a table of positions is enlarged, and for a head for
            questions, see `encoders.settle_labels`.
        head: what transformers' class is called after the architecture's name: `ForConditionalGeneration`.
        world: the devices, which mirror the variables.

    Raises:
        InputError: if the checkpoint cannot be had, is incomplete, or has too few positions.
    """
    policy = "mixed_bfloat16" if args.bf16 else "mixed_float16" if args.fp16 else "float32"
    with world.strategy.scope():
        model = conversion.load(
            tensor_files.local_folder(model_args),
            config,
            head,
            seed=args.seed,
            ignore_mismatched_sizes=getattr(data_args, "ignore_mismatched_sizes", False),
            positions=configs.positions_to_make(config, data_args),
            tokens=agreement.tokens_to_make(config),
            image_size=getattr(data_args, "image_size", None),
            dtype=policy,
            gradient_checkpointing=args.gradient_checkpointing,
        )
    if config.model_type == vision.RESNET:
        resnet.announce_frozen_statistics(trained=model_args.model_name_or_path is not None)
    if getattr(data_args, "freeze_backbone", False):
        for place in conversion.places(model):
            if not initial_weights.of_head(place.name, encoders.base(config)):
                place.variable.trainable = False
    return model


def count_parameters(model: architectures.Model) -> int:
    """How many numbers the model's parameters hold; the statistics of batches are none."""
    places = conversion.places(model)
    return sum(math.prod(place.shape) for place in places if not place.name.endswith(vision.STATISTICS))
