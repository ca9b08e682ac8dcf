"""Tokenizers that know several languages, and where in a text each writes its language."""

from typing import Any

from triptych.errors import InputError


def use(tokenizer: Any, lang: str | None, forced_bos_token: str | None) -> dict[str, Any]:
    """Sets the language of a multilingual tokenizer.

    Most begin a text with the token of its language, which generation is then made to begin with as well.
    mBART of 2020 (cc25) and PLBart end a text with it, and their decoder reads it first: transformers' own
    shift of the labels takes it from the end to the beginning. There nothing need be forced.

    Returns:
        Of `forced_bos_token_id` and `decoder_start_token_id` what generation must do; nothing for a model of
        one language.

    Raises:
        InputError: if a language is missing or unknown, or forced where it does not stand.
    """
    multilingual = hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")
    if multilingual and lang is None:
        raise InputError("This tokenizer knows several languages: give --lang, e.g. --lang en_XX.")
    if lang is not None and not multilingual:
        raise InputError(f"--lang {lang}: this tokenizer knows no languages.")
    tokens = {"--lang": lang, "--forced_bos_token": forced_bos_token}
    ids = {name: token_id(tokenizer, token) for name, token in tokens.items() if token is not None}
    unknown = [name for name, number in ids.items() if number in (None, tokenizer.unk_token_id)]
    if unknown:
        raise InputError([f"{name} {tokens[name]}: not a token of the tokenizer." for name in unknown])
    if multilingual:
        tokenizer.src_lang = tokenizer.tgt_lang = lang
        if tokenizer(text_target="")["input_ids"][-1:] == [ids["--lang"]]:
            if ids.get("--forced_bos_token", ids["--lang"]) != ids["--lang"]:
                raise InputError(
                    f"--forced_bos_token {forced_bos_token}: this tokenizer ends texts with their language, "
                    "so that the decoder begins with it and no first token is to be forced. Leave it out."
                )
            return {"decoder_start_token_id": ids["--lang"]}
    forced = ids.get("--forced_bos_token", ids.get("--lang"))
    return {} if forced is None else {"forced_bos_token_id": forced}


def token_id(tokenizer: Any, language: str) -> int | None:
    """The token that stands for a language, or the token of that spelling. For M2M100 the language `fr` is
    `__fr__`: `fr` itself is a piece of its vocabulary."""
    if hasattr(tokenizer, "get_lang_id"):
        try:
            return tokenizer.get_lang_id(language)
        except KeyError:
            pass
    return tokenizer.convert_tokens_to_ids(language)
