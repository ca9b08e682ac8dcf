"""Tokenizers and configurations: the part of a checkpoint that needs no tensor library."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from triptych.errors import InputError

logger = logging.getLogger(__name__)


def load_tokenizer(model_args, ends: bool = True) -> Any:
    """The tokenizer of the run, a `transformers.PreTrainedTokenizerFast`.

    Args:
        ends: whether it needs a token for the end, as what is generated does.

    Raises:
        InputError: if it cannot be had or lacks a padding or end token.
    """
    from transformers import AutoTokenizer

    name = model_args.tokenizer_name or model_args.model_name_or_path
    tokenizer = fetch("tokenizer", name, AutoTokenizer.from_pretrained, model_args)
    if tokenizer.pad_token_id is None or (ends and tokenizer.eos_token_id is None):
        raise InputError(f"The tokenizer of {name} has no padding{' or no end' * ends} token.")
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Writes the tokenizer's files as they were loaded: without the limit and the padding of its last call,
    which a run that was continued may not have made."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)


def load_config(model_args, tokenizer: Any) -> Any:
    """The model's configuration, with `decoder_start_token_id` set if the model has a decoder.

    A model from scratch takes the vocabulary's size and special tokens from the tokenizer.

    Raises:
        InputError: if the configuration cannot be had, or an override does not fit it.
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
    if not model_args.model_name_or_path:
        config.vocab_size = len(tokenizer)
        for token in ("pad_token_id", "eos_token_id", "bos_token_id"):
            if getattr(tokenizer, token) is not None:
                setattr(config, token, getattr(tokenizer, token))
    if (
        getattr(config, "is_encoder_decoder", False)
        and getattr(config, "decoder_start_token_id", None) is None
    ):
        start = generation_settings(model_args).get("decoder_start_token_id")
        # T5 begins with its padding token; models with a token for the beginning begin with that.
        begin = config.pad_token_id if "t5" in config.model_type else getattr(config, "bos_token_id", None)
        config.decoder_start_token_id = (
            start if start is not None else begin if begin is not None else config.pad_token_id
        )
    return config


def generation_settings(model_args) -> dict[str, Any]:
    """What the checkpoint's `generation_config.json` holds; empty if it has none."""
    if not model_args.model_name_or_path:
        return {}
    from transformers.utils import cached_file

    path = cached_file(
        model_args.model_name_or_path,
        "generation_config.json",
        revision=model_args.model_revision,
        cache_dir=model_args.cache_dir,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return json.loads(Path(path).read_text()) if path else {}


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


def generation_arguments(tokenizer: Any, data_args: Any) -> dict[str, Any]:
    """The arguments of `generate` that the flags ask for; sets the tokenizer's language, if it has several.

    Raises:
        InputError: see `use_language`.
    """
    asked = {"max_length": data_args.val_max_target_length or data_args.max_target_length}
    if data_args.num_beams:
        asked["num_beams"] = data_args.num_beams
    return asked | use_language(tokenizer, data_args.lang, data_args.forced_bos_token)


def use_language(tokenizer: Any, lang: str | None, forced_bos_token: str | None) -> dict[str, int]:
    """Sets the language of a multilingual tokenizer.

    Returns:
        `forced_bos_token_id` for generation, or nothing for a model of one language.

    Raises:
        InputError: if a language is missing or unknown.
    """
    multilingual = hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")
    if multilingual and lang is None:
        raise InputError("This tokenizer knows several languages: give --lang, e.g. --lang en_XX.")
    if lang is not None and not multilingual:
        raise InputError(f"--lang {lang}: this tokenizer knows no languages.")
    token = forced_bos_token or lang
    if token is None:
        return {}
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id in (None, tokenizer.unk_token_id):
        name = "--forced_bos_token" if forced_bos_token else "--lang"
        raise InputError(f"{name} {token}: not a token of the tokenizer.")
    if multilingual:
        tokenizer.src_lang = tokenizer.tgt_lang = lang
    return {"forced_bos_token_id": token_id}


def longest(data_args: Any) -> int:
    """The most tokens that a source or a target can have."""
    target = max(data_args.max_target_length, data_args.val_max_target_length or 0)
    return max(data_args.max_source_length, target)


class EncoderSettings(NamedTuple):
    """What the configurations of BERT, RoBERTa and DistilBERT say under different names."""

    width: int
    inner: int  # width between the two dense layers
    layers: int
    heads: int
    activation: str
    dropout: float
    attention_dropout: float  # of its weights
    attended_dropout: float  # of what comes of it
    head_dropout: float
    norm_epsilon: float
    token_types: int  # 0: none
    padding: int | None  # the position of padding, where the first token's is the next, as in RoBERTa


def encoder_settings(config: Any) -> EncoderSettings:
    """Those of a configuration of transformers."""
    if config.model_type == "distilbert":
        sizes = config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.activation
        dropouts = config.dropout, config.attention_dropout, 0.0, config.seq_classif_dropout
        return EncoderSettings(*sizes, *dropouts, norm_epsilon=1e-12, token_types=0, padding=None)
    dropout, head_dropout = config.hidden_dropout_prob, config.classifier_dropout
    return EncoderSettings(
        width=config.hidden_size,
        inner=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        activation=config.hidden_act,
        dropout=dropout,
        attention_dropout=config.attention_probs_dropout_prob,
        attended_dropout=dropout,
        head_dropout=dropout if head_dropout is None else head_dropout,
        norm_epsilon=config.layer_norm_eps,
        token_types=config.type_vocab_size,
        padding=config.pad_token_id if config.model_type == "roberta" else None,
    )


def input_names(config: Any) -> tuple[str, ...]:
    """What an encoder reads of each token: some tell the tokens of a second text by `token_type_ids`."""
    types = ("token_type_ids",) if getattr(config, "type_vocab_size", 0) > 1 else ()
    return ("input_ids", "attention_mask", *types)


def positions(config: Any) -> int | None:
    """The tokens that a table of positions has room for; None for a model without one."""
    table = getattr(config, "max_position_embeddings", None)
    return table - config.pad_token_id - 1 if config.model_type == "roberta" else table


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
        longer = ", or --resize_position_embeddings to continue its table by repeating it"
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


def longer_positions(table: Any, offset: int, data_args: Any) -> Any:
    """A table (offset + positions, width) made to reach `longest(data_args)` by repeating its positions."""
    import numpy as np

    repeated = np.resize(table[offset:], (longest(data_args), table.shape[1]))
    return np.concatenate([table[:offset], repeated])
