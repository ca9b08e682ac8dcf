"""A run's model: of transformers, from a checkpoint or from scratch, checked to be complete."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from triptych.errors import InputError
from triptych.models import (
    agreement,
    barts,
    configs,
    decoders,
    encoders,
    initial_weights,
    resnet,
    tensor_files,
    vision,
)
from triptych.pytorch import names


def load(model_args: Any, data_args: Any, args: Any, config: Any, auto_class: Any) -> nn.Module:
    """A model with float32 weights, from the checkpoint that `model_args` names or seeded from scratch.

    A head that does not generate, such as a classifier's, starts anew if the checkpoint has none, or, with
    `--ignore_mismatched_sizes`, one of another shape. Position tables must reach the lengths that the flags
    state; `--resize_position_embeddings` enlarges them. `--resize_token_embeddings` enlarges those of tokens,
    `--image_size` fits those of patches. With `--freeze_backbone` the head alone is trained.

    Args:
        config: from `configs.load`; changed for a head for questions, see `encoders.settle_labels`.
        auto_class: of transformers, e.g. `AutoModelForSeq2SeqLM`.

    Raises:
        InputError: if the checkpoint cannot be had, lacks weights or a head that generates, or has too few
            positions.
    """
    encoders.settle_labels(config, auto_class.__name__.removeprefix("AutoModel"))
    vision.settle_class(config)
    tokens = agreement.tokens_to_make(config)
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers.modeling_utils").addFilter(_is_no_advice_to_mask)
    torch.manual_seed(args.seed)
    name = model_args.model_name_or_path
    image_size = getattr(data_args, "image_size", None)
    grid = vision.set_image_size(config, image_size, trained=name is not None)
    try:
        if name is None:
            model = auto_class.from_config(config, trust_remote_code=model_args.trust_remote_code)
            alike = config.model_type in initial_weights.ALL
            new = [name for name, _ in model.named_parameters(remove_duplicate=False)] if alike else []
        else:
            # Without a dtype, transformers keeps the precision of the file, and would train in it.
            model, loading = configs.fetch(
                "model",
                name,
                auto_class.from_pretrained,
                model_args,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,  # A pickle could run code.
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # new_parameters judges them.
            )
            base = None if model.can_generate() else model.base_model_prefix
            differing = loading["mismatched_keys"]
            if grid and (folder := tensor_files.local_folder(model_args)):
                fit_positions(model, folder, grid)
                differing = [each for each in differing if not each[0].endswith(vision.POSITIONS)]
            replaces = getattr(data_args, "ignore_mismatched_sizes", False)
            new = initial_weights.new_parameters(loading["missing_keys"], differing, base, replaces)
    except ValueError as error:
        raise InputError(
            f"A {config.model_type} model cannot be used here: {str(error).splitlines()[0]}"
        ) from error
    initialise(model, new, args.seed)
    if tokens:
        resize_tables(model, tokens)
        config.vocab_size = tokens
    if args.gradient_checkpointing or getattr(args, "activation_checkpointing", False):
        if not model.supports_gradient_checkpointing:
            raise InputError(f"--gradient_checkpointing: transformers has it not for a {config.model_type}.")
        model.gradient_checkpointing_enable()
    model.config.use_cache = True
    if model.can_generate():
        agreement.settle_generation(model.generation_config, config)
    require_positions(model, data_args)
    for name, parameter in model.named_parameters():
        if barts.kind(config).sinusoids and "embed_positions" in name:
            # Loading makes them trainable in transformers 5, and processes would wait for their gradients.
            parameter.requires_grad = False
    freeze_statistics(model, trained=model_args.model_name_or_path is not None)
    frozen = getattr(data_args, "freeze_backbone", False)
    for name, parameter in model.named_parameters():
        if vision.is_fixed(name) or (frozen and not initial_weights.of_head(name, model.base_model_prefix)):
            parameter.requires_grad = False
    return model


class FrozenNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics stay what they are, in training as well."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        return super().train(False)


def freeze_statistics(model: nn.Module, trained: bool) -> None:
    """Makes batch normalisation that of `FrozenNorm`; see `resnet.announce_frozen_statistics`."""
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    for module in norms:
        module.__class__ = FrozenNorm
        module.train(False)
    if norms:
        resnet.announce_frozen_statistics(trained)


def initialise(model: nn.Module, new: Collection[str], seed: int) -> None:
    """Draws new parameters as the other forms do, by the names that they have in files."""
    config = model.config
    if not hasattr(config, "initializer_range") and config.model_type not in vision.MODEL_TYPES:
        return
    for name, parts in names.in_files(model).items():
        parameters = [model.get_parameter(part) for part in parts if part in new]
        if parameters:
            shape = (len(parameters) * parameters[0].shape[0], *parameters[0].shape[1:])
            values = torch.from_numpy(initial_weights.initial(name, shape, config, seed))
            for parameter, part in zip(parameters, values.chunk(len(parameters)), strict=True):
                parameter.data = part.clone()


def fit_positions(model: nn.Module, folder: Path, grid: vision.Size) -> None:
    """Fills a table of positions with that of a checkpoint, which is for the patches of such a grid."""
    stored = tensor_files.read_model(folder)
    (table,) = (value for name, value in stored.items() if name.endswith(vision.POSITIONS))
    (own,) = (value for name, value in model.named_parameters() if name.endswith(vision.POSITIONS))
    own.data = torch.from_numpy(vision.fit_positions(table, grid, model.config))


def resize_tables(model: nn.Module, tokens: int) -> None:
    """Gives the tables of tokens that many rows, see `decoders.grown`."""
    modules = model.get_input_embeddings(), model.get_output_embeddings()
    before = [module.weight.detach().numpy() for module in modules]
    model.resize_token_embeddings(tokens, mean_resizing=False)
    modules = model.get_input_embeddings(), model.get_output_embeddings()
    for module, table in zip(modules, before, strict=True):
        module.weight.data.copy_(torch.from_numpy(decoders.grown(table, tokens)))


def _is_no_advice_to_mask(record: logging.LogRecord) -> bool:
    """Not so of the advice to give decoders a mask: with padding on the right they need none, and with one
    transformers would let packed documents see one another."""
    return "passing in an `attention_mask`" not in record.getMessage()


def require_positions(model: nn.Module, data_args: Any) -> None:
    """Makes sure that a model's position tables reach the longest source and target. Relative positions have
    no table.

    `--resize_position_embeddings` enlarges a table that is too short: one that is learnt by repeating it, one
    of sines by its rule.

    Raises:
        InputError: if a table is too short and may not be enlarged.
    """
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and name.endswith(("position_embeddings", "wpe")):
            reserved = 0 if table.padding_idx is None else table.padding_idx + 1
            configs.require_positions(table.num_embeddings - reserved, data_args)
    config, fixed = model.config, barts.kind(model.config).sinusoids
    tables = [
        table
        for name, table in model.named_modules()
        if isinstance(table, nn.Embedding)
        and (hasattr(table, "offset") or (fixed and name.endswith("embed_positions")))
    ]
    if not tables or not configs.require_positions(config.max_position_embeddings, data_args):
        return
    wanted = configs.longest(data_args)
    for table in tables:
        if fixed:
            longer = barts.sinusoids(wanted, config.d_model, from_padding=False)
        else:
            longer = barts.longer_positions(table.weight.detach().numpy(), wanted, table.offset)
        table.weight = nn.Parameter(torch.from_numpy(longer), requires_grad=not fixed)
        table.num_embeddings = len(longer)
    config.max_position_embeddings = wanted
