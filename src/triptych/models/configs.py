"""Configurations of models."""

import json
import logging
from pathlib import Path
from typing import Any

from triptych.errors import InputError
from triptych.models import agreement, barts, deberta, decoders, encoders, modernbert, tensor_files

logger = logging.getLogger(__name__)


def load(model_args: Any, data_args: Any, tokenizer: Any = None) -> Any:
    """The model's configuration, made to agree with the tokenizer, whose language it sets; see
    `agreement.settle`. A model from scratch has as many tokens as the tokenizer, or as an override says.
    Without a tokenizer it is that of a model that reads none.

    Raises:
        InputError: if the configuration cannot be had, an override does not fit it, or it does not go with
            the tokenizer.
    """
    from transformers import AutoConfig

    if model_args.model_type:
        try:
            config = AutoConfig.for_model(model_args.model_type)
        except ValueError:
            raise InputError(
                f"--model_type {model_args.model_type}: transformers knows no such architecture."
            ) from None
    else:
        name = model_args.model_name_or_path or model_args.config_name
        config = fetch("configuration", name, AutoConfig.from_pretrained, model_args)
    overrides = _overrides(config, model_args.config_overrides or "")
    if (
        model_args.model_type
    ):  # built anew, because some settings follow from others, as T5's decoder layers do
        config = AutoConfig.for_model(model_args.model_type, **overrides)
    else:
        config.update(overrides)
    if tokenizer is None:
        if model_args.model_name_or_path and (
            problems := tensor_files.format_problems(model_args.model_name_or_path)
        ):
            raise InputError(problems)
        return config
    if not model_args.model_name_or_path:
        tokens = max(tokenizer.get_vocab().values()) + 1
        config.vocab_size = overrides.get("vocab_size", tokens)
        if config.vocab_size < tokens:
            raise InputError(
                f"--config_overrides vocab_size={config.vocab_size}: the tokenizer has {tokens} tokens. Give "
                "as many or more, or leave it out."
            )
        agreement.take_over(config, tokenizer)
    agreement.settle(config, tokenizer, model_args, data_args, generation_settings(model_args))
    return config


def generation_settings(model_args: Any) -> dict[str, Any]:
    """What the checkpoint's `generation_config.json` holds; empty if it has none."""
    name, file = model_args.model_name_or_path, "generation_config.json"
    if not name:
        return {}
    path = Path(name, file)
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

        place = {"revision": model_args.model_revision, "cache_dir": model_args.cache_dir}
        try:
            path = Path(hf_hub_download(name, file, **place))
        except (EntryNotFoundError, HfHubHTTPError, OSError):  # of the hub, or of a cache without it
            return {}
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def fetch(what: str, name: str, load: Any, model_args, **keywords: Any) -> Any:
    """Calls a `from_pretrained` of transformers.

    Raises:
        InputError: in one line, if a folder is not what it should be or the hub cannot be reached.
    """
    from safetensors import SafetensorError

    try:
        return load(
            name,
            cache_dir=model_args.cache_dir,
            revision=model_args.model_revision,
            trust_remote_code=model_args.trust_remote_code,
            **keywords,
        )
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        if Path(name).is_dir():
            raise InputError(f"The {what} in the folder {name} cannot be read: {reason}") from error
        raise InputError(
            f"The {what} of {name} cannot be had from the hub. Give a local folder, or fetch it once while "
            f"online and set HF_HUB_OFFLINE=1. ({reason})"
        ) from error


def _overrides(config: Any, pairs: str) -> dict[str, Any]:
    """`name=value,name=value` as a dictionary, each value of the type that it has in the configuration."""
    values, problems = {}, []
    for pair in filter(None, pairs.split(",")):
        name, _, text = (part.strip() for part in pair.partition("="))
        if not hasattr(config, name):
            problems.append(f"--config_overrides: {config.model_type} has no setting {name!r}.")
            continue
        before = getattr(config, name)
        try:
            value = text if isinstance(before, str) else json.loads(text.lower())
        except ValueError:
            value = text
        value = float(value) if isinstance(before, float) and isinstance(value, int) else value
        if before is not None and type(value) is not type(before):
            problems.append(f"--config_overrides: {pair.strip()!r}: expected {type(before).__name__}.")
        values[name] = value
    if problems:
        raise InputError(problems)
    return values


def longest(data_args: Any) -> int:
    """The most tokens that a source or a target can have."""
    target = max(data_args.max_target_length, data_args.val_max_target_length or 0)
    return max(data_args.max_source_length, target)


def positions(config: Any) -> int | None:
    """The tokens that a table of positions has room for; None for a model without one, as M2M100, Llama,
    ModernBERT, DeBERTa of version 3."""
    if config.model_type == deberta.MODEL_TYPE and not config.position_biased_input:
        return None
    if barts.kind(config).from_padding or config.model_type in (*decoders.KINDS, modernbert.MODEL_TYPE):
        return None
    table = getattr(config, "max_position_embeddings", None)
    return table - config.pad_token_id - 1 if encoders.counts_from_padding(config) else table


def require_positions(available: int, data_args: Any) -> bool:
    """Whether a model's table of `available` positions must be enlarged, as `--resize_position_embeddings`
    allows. The lengths are those of the flags that a task has.

    Raises:
        InputError: if it is too short and may not be enlarged.
    """
    names = ("max_seq_length", "max_source_length", "max_target_length", "val_max_target_length")
    lengths = {f"--{name}": getattr(data_args, name, None) or 0 for name in names}
    beyond = {name: length for name, length in lengths.items() if length > available}
    resize = getattr(data_args, "resize_position_embeddings", None)
    if beyond and not resize:
        longer = ", or --resize_position_embeddings to enlarge its table"
        other = "" if resize is None else longer
        raise InputError(
            [
                f"{name} {length}: the model has only {available} positions. Give {name} {available}{other}."
                for name, length in beyond.items()
            ]
        )
    if beyond:
        logger.warning("Position table enlarged from %d to %d positions.", available, max(beyond.values()))
    return bool(beyond)


def positions_to_make(config: Any, data_args: Any) -> int | None:
    """How many positions a model's table must be made to have; None if it has none, or enough.

    Raises:
        InputError: see `require_positions`.
    """
    available = positions(config)
    enlarge = available is not None and require_positions(available, data_args)
    return longest(data_args) if enlarge else None
