"""Tokenizers."""

from pathlib import Path
from typing import Any

from triptych.errors import InputError
from triptych.models.configs import fetch


def load(model_args: Any, data_args: Any) -> Any:
    """The tokenizer of the run, a `transformers.PreTrainedTokenizerFast`.

    Raises:
        InputError: if it cannot be had, or lacks a padding token or, where text is generated, an end token.
    """
    ends = data_args.generates
    from transformers import AutoTokenizer

    name = model_args.tokenizer_name or model_args.model_name_or_path
    tokenizer = fetch("tokenizer", name, AutoTokenizer.from_pretrained, model_args)
    if tokenizer.pad_token_id is None or (ends and tokenizer.eos_token_id is None):
        raise InputError(f"The tokenizer of {name} has no padding{' or no end' if ends else ''} token.")
    return tokenizer


def save(tokenizer: Any, folder: str | Path) -> None:
    """Writes the tokenizer's files as they were loaded: without the limit and the padding of its last call,
    which a run that was continued may not have made."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)
