"""Tokenizers that know several languages, and where in a text each writes its language."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from triptych.errors import InputError


def use_flags(tokenizer: Any, data_args: Any) -> dict[str, int]:
    """Sets the languages that the flags name, see `use`: `--lang` for both sides, or `--source_lang` and
    `--target_lang` of a task that has these. There they may name columns alone, so that a tokenizer need not
    know them; only, they may not be the same. Rows with target languages of their own are trained on with
    these, and generated in that of the flag."""
    if not hasattr(data_args, "source_lang"):
        return _use(tokenizer, {"--lang": data_args.lang}, data_args.forced_bos_token)
    sides = {f"--{side}_lang": getattr(data_args, f"{side}_lang") for side in ("source", "target")}
    if sides["--source_lang"] is not None and len(set(sides.values())) == 1:
        raise InputError(f"--source_lang and --target_lang are both {data_args.source_lang}: give two.")
    if not is_multilingual(tokenizer):
        sides = dict.fromkeys(sides)
    elif data_args.source_lang_column:
        del sides["--source_lang"]  # Each row has its own.
    return _use(tokenizer, sides, data_args.forced_bos_token)


def use(
    tokenizer: Any, source: str | None, target: str | None, forced_bos_token: str | None = None
) -> dict[str, int]:
    """Sets the languages of a multilingual tokenizer: of its sources, and of what it gets as `text_target`.

    Most begin a text with the token of its language, which generation is then made to begin with as well.
    mBART of 2020 (cc25), PLBart, and NLLB with `legacy_behaviour` end a text with it, and their decoder reads
    it first: transformers' own shift of mBART's labels takes it from the end to the beginning. There nothing
    need be forced.

    Args:
        source, target: as the tokenizer calls them; None for one that knows no languages.

    Returns:
        Of `forced_bos_token_id` and `decoder_start_token_id` what generation must do; nothing for a model of
        one language.

    Raises:
        InputError: if a language is missing or unknown, which names those that are like it, or if a first
            token is forced where none stands.
    """
    return _use(tokenizer, {"--source_lang": source, "--target_lang": target}, forced_bos_token)


@contextmanager
def both(tokenizer: Any, source: str | None, target: str | None) -> Iterator[None]:
    """A block in which a multilingual tokenizer writes these languages, see `use`; one that knows none stays
    as it is. Behind it the tokenizer is what it was: what is saved must not depend on the rows that it read
    last."""
    if not is_multilingual(tokenizer):
        yield
        return
    before = tokenizer.src_lang, tokenizer.tgt_lang
    use(tokenizer, source, target)
    try:
        yield
    finally:
        tokenizer.src_lang, tokenizer.tgt_lang = before


def is_multilingual(tokenizer: Any) -> bool:
    """Whether a tokenizer writes the language of a text into it."""
    return hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")


def known(tokenizer: Any) -> list[str]:
    """The languages of a multilingual tokenizer, as `use` takes them."""
    if hasattr(tokenizer, "get_lang_id"):  # M2M100, whose token of `fr` is `__fr__`
        return sorted(tokenizer.lang_code_to_token)
    return sorted({*getattr(tokenizer, "lang_code_to_id", ()), *map(str, tokenizer.extra_special_tokens)})


def token_id(tokenizer: Any, language: str) -> int | None:
    """The token that stands for a language, or the token of that spelling. For M2M100 the language `fr` is
    `__fr__`: `fr` itself is a piece of its vocabulary."""
    if hasattr(tokenizer, "get_lang_id"):
        try:
            return tokenizer.get_lang_id(language)
        except KeyError:
            pass
    return tokenizer.convert_tokens_to_ids(language)


def _use(tokenizer: Any, languages: dict[str, str | None], forced_bos_token: str | None) -> dict[str, int]:
    """See `use`; `languages` are those of sources and of targets, or one for both, by the flag of each."""
    problems = []
    given = {flag: language for flag, language in languages.items() if language is not None}
    if is_multilingual(tokenizer):
        names = known(tokenizer)
        for flag in languages:
            if flag not in given:
                some = ", ".join(names[:3])
                problems.append(f"This tokenizer knows several languages: give {flag}, one of {some}, ….")
            elif given[flag] not in names:
                problems.append(f"{flag} {given[flag]}: {_unknown(given[flag], names)}")
    else:
        problems += [
            f"{flag} {language}: this tokenizer knows no languages." for flag, language in given.items()
        ]
    first = None if forced_bos_token is None else token_id(tokenizer, forced_bos_token)
    if forced_bos_token is not None and first in (None, tokenizer.unk_token_id):
        problems.append(f"--forced_bos_token {forced_bos_token}: not a token of the tokenizer.")
    if problems:
        raise InputError(problems)
    if is_multilingual(tokenizer):
        sides = list(given.values())
        tokenizer.src_lang, tokenizer.tgt_lang = sides[0], sides[-1]
        language: Any = token_id(tokenizer, sides[-1])
        if tokenizer(text_target="")["input_ids"][-1:] == [language]:
            if first not in (None, language):
                raise InputError(
                    f"--forced_bos_token {forced_bos_token}: this tokenizer ends texts with their language, "
                    "so that the decoder begins with it and no first token is to be forced. Leave it out."
                )
            return {"decoder_start_token_id": language}
        first = language if first is None else first
    return {} if first is None else {"forced_bos_token_id": first}


def _unknown(language: str, names: list[str]) -> str:
    """What to say of a language that is not among `names`."""
    begin = language.strip("_")[:2].lower()
    alike = [name for name in names if name[:2].lower() == begin]
    near = difflib.get_close_matches(language, alike or names, n=5, cutoff=0.0 if alike else 0.6)
    hint = f"near it: {', '.join(near)}" if near else f"they are called like {names[0]}"
    return f"not one of the tokenizer's {len(names)} languages; {hint}."
