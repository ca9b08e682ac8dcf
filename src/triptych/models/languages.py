"""Tokenizers that know several languages, and where in a text each writes its language."""

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from triptych.errors import InputError


def use_flags(tokenizer: Any, data_args: Any) -> dict[str, int]:
    """Sets the languages that the flags name, see `use`: `--lang` for both sides, or `--source_lang` and
    `--target_lang` of a task that has these. There they may name columns alone, so that a tokenizer need not
    know them; only, they may not be the same. Of a side whose language each row has for itself, nothing is
    set here: see `both`."""
    if not hasattr(data_args, "source_lang"):
        return use(tokenizer, {"--lang": data_args.lang}, data_args.forced_bos_token)
    sides = {f"--{side}_lang": getattr(data_args, f"{side}_lang") for side in ("source", "target")}
    if sides["--source_lang"] is not None and len(set(sides.values())) == 1:
        raise InputError(f"--source_lang and --target_lang are both {data_args.source_lang}: give two.")
    if not is_multilingual(tokenizer):
        sides = dict.fromkeys(sides)
    by_row = [flag for flag in sides if getattr(data_args, f"{flag.removeprefix('--')}_column")]
    return use(tokenizer, sides, data_args.forced_bos_token, by_row)


def use(
    tokenizer: Any,
    languages: dict[str, str | None],
    forced_bos_token: str | None = None,
    by_row: Collection[str] = (),
) -> dict[str, int]:
    """Sets the languages of a multilingual tokenizer: of its sources, and of what it gets as `text_target`.

    Most begin a text with the token of its language, which generation is then made to begin with as well.
    mBART of 2020 (cc25), PLBart, and NLLB with `legacy_behaviour` end a text with it, and their decoder reads
    it first: transformers' own shift of mBART's labels takes it from the end to the beginning. There nothing
    need be forced.

    Args:
        languages: those of sources and of targets, or one for both, by the flag of each, as the tokenizer
            calls them; None for one that knows no languages.
        by_row: flags whose languages each row has for itself: they are not known here.

    Returns:
        Of `forced_bos_token_id` and `decoder_start_token_id` what generation must do; nothing for a model of
        one language.

    Raises:
        InputError: if a language is missing or unknown, which names those that are like it, or if a first
            token is forced where none stands.
    """
    problems = []
    names = known(tokenizer) if is_multilingual(tokenizer) else []
    for flag, language in languages.items():
        if not names:
            problems += [f"{flag} {language}: this tokenizer knows no languages."] if language else []
        elif language is None and flag not in by_row:
            some = ", ".join(names[:3])
            problems.append(f"This tokenizer knows several languages: give {flag}, one of {some}, ….")
        elif language is not None and language not in names:
            problems.append(f"{flag} {language}: {_unknown(language, names)}")
    first = None if forced_bos_token is None else token_id(tokenizer, forced_bos_token)
    if forced_bos_token is not None and first in (None, tokenizer.unk_token_id):
        problems.append(f"--forced_bos_token {forced_bos_token}: not a token of the tokenizer.")
    if problems:
        raise InputError(problems)
    sides = tuple(languages.values())  # one for both, or one for each
    source, target = sides[0], sides[-1]
    if names and source is not None:
        tokenizer.src_lang = source
    if names and target is not None:
        tokenizer.tgt_lang = target
        own: Any = token_id(tokenizer, target)
        if tokenizer(text_target="")["input_ids"][-1:] == [own]:
            if first not in (None, own):
                raise InputError(
                    f"--forced_bos_token {forced_bos_token}: this tokenizer ends texts with their language, "
                    "so that the decoder begins with it and no first token is to be forced. Leave it out."
                )
            return {"decoder_start_token_id": own}
        first = own if first is None else first
    return {} if first is None else {"forced_bos_token_id": first}


@contextmanager
def both(tokenizer: Any, source: str | None, target: str | None, data_args: Any) -> Iterator[dict[str, int]]:
    """A block in which a multilingual tokenizer writes these languages, see `use`; one that knows none stays
    as it is. Behind it the tokenizer is what it was: what is saved must not depend on the rows that it read
    last.

    Args:
        data_args: source_lang_column, target_lang_column, forced_bos_token.

    Yields:
        Where each row has a target language of its own, what `use` returns for it. Nothing where it is that
        of the flags, which all rows have: see `use_flags`.

    Raises:
        InputError: see `use`.
    """
    if not is_multilingual(tokenizer):
        yield {}
        return
    sides = {}
    for side, language in (("source", source), ("target", target)):
        column = getattr(data_args, f"{side}_lang_column")
        sides[f"--{side}_lang_column {column} holds" if column else f"--{side}_lang"] = language
    before = tokenizer.src_lang, tokenizer.tgt_lang
    try:
        begins = use(tokenizer, sides, data_args.forced_bos_token)
        yield begins if data_args.target_lang_column else {}
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


def _unknown(language: str, names: list[str]) -> str:
    """What to say of a language that is not among `names`."""
    begin = language.strip("_")[:2].lower()
    alike = [name for name in names if name[:2].lower() == begin]
    near = difflib.get_close_matches(language, alike or names, n=5, cutoff=0.0 if alike else 0.6)
    hint = f"near it: {', '.join(near)}" if near else f"they are called like {names[0]}"
    return f"not one of the tokenizer's {len(names)} languages; {hint}."
