"""Tokenizers."""

import json
import warnings
from pathlib import Path
from typing import Any

from triptych.errors import InputError
from triptych.models.configs import fetch


def load(model_args: Any, words: bool = False, offsets: bool = False) -> Any:
    """The tokenizer of the run, a `transformers.PreTrainedTokenizerFast`; `configs.load` sees whether it goes
    with the model.

    Args:
        words: whether it is given texts as lists of words. One of bytes, as of GPT-2 and RoBERTa, then takes
            each word as it is behind a space. It is saved so too, except where a class makes it anew, as
            Qwen's does: that has to be loaded by this function again.
        offsets: whether it is asked for the characters that tokens stand for.

    Raises:
        InputError: if it cannot be had, or cannot say what of a text a token stands for.
    """
    from transformers import AutoTokenizer

    name, get = model_args.tokenizer_name or model_args.model_name_or_path, AutoTokenizer.from_pretrained
    with warnings.catch_warnings():
        # Marian's recommends a package for a method that nothing calls.
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        tokenizer = fetch("tokenizer", name, get, model_args)
    if hasattr(tokenizer, "get_lang_id"):
        # M2M100's languages, which transformers 5 takes for tokens of a text unless the folder says otherwise
        languages = map(tokenizer.get_lang_token, tokenizer.lang_code_to_token)
        tokenizer.add_special_tokens({"extra_special_tokens": list(languages)})
    if (words or offsets) and not tokenizer.is_fast:
        said = "which token is of which word" if words else "which characters a token stands for"
        raise InputError(
            f"The tokenizer of {name}, a {type(tokenizer).__name__}, is in Python alone and does not say "
            f"{said}. Take a model that has a tokenizer.json, such as a BERT, RoBERTa, DistilBERT or XLM-R."
        )
    if not words:
        return tokenizer
    if _split(tokenizer) == AT_THE_START:
        spaced = fetch("tokenizer", name, get, model_args, add_prefix_space=True)
        if _split(spaced) == BEHIND_A_SPACE:
            return spaced
        # It has no such setting, or puts a space before each part of a word.
        from tokenizers import normalizers

        backend = tokenizer.backend_tokenizer
        before = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([*before, normalizers.Prepend(" ")])
    return tokenizer


# What tokenizers of bytes make of "ł,", where they tell the beginning of a text from what stands in it
AT_THE_START, BEHIND_A_SPACE = "ÅĤ,", "ĠÅĤ,"


def _split(tokenizer: Any) -> str:
    backend, text = tokenizer.backend_tokenizer, "ł,"
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    pieces = backend.pre_tokenizer.pre_tokenize_str(text) if backend.pre_tokenizer is not None else []
    return "".join(piece for piece, _ in pieces)


def save(tokenizer: Any, folder: str | Path) -> None:
    """Writes the tokenizer's files as they were loaded: without the limit and the padding of its last call,
    which a run that was continued may not have made; and a class that other readers know, too."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)
    path = Path(folder, "tokenizer_config.json")
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if settings.get("tokenizer_class") == "TokenizersBackend":
        # Its name until transformers 5, which reads it still; version 4 and others do not know the new one.
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
