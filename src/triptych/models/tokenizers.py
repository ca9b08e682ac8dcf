"""Tokenizers."""

from pathlib import Path
from typing import Any

from triptych.models.configs import fetch


def load(model_args: Any) -> Any:
    """The tokenizer of the run, a `transformers.PreTrainedTokenizerFast`; `configs.load` sees whether it goes
    with the model.

    Raises:
        InputError: if it cannot be had.
    """
    from transformers import AutoTokenizer

    name = model_args.tokenizer_name or model_args.model_name_or_path
    return fetch("tokenizer", name, AutoTokenizer.from_pretrained, model_args)


def save(tokenizer: Any, folder: str | Path) -> None:
    """Writes the tokenizer's files as they were loaded: without the limit and the padding of its last call,
    which a run that was continued may not have made."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)
