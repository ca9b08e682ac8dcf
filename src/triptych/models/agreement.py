"""What training and generation assume of tokenizer, configuration and weights together, before any work.

A tokenizer and a model that do not go together train and answer all the same, only wrongly: from another
start, without an end, with numbers that no row of the table of tokens has.
"""

import logging
from typing import Any

from triptych.arguments import LENGTHS
from triptych.errors import InputError
from triptych.models import encoders, languages, tensor_files

logger = logging.getLogger(__name__)

TOKENS_TO_MAKE = "tokens_to_make"  # a configuration's attribute until its model is loaded
SPECIAL = ("pad_token_id", "eos_token_id", "bos_token_id")


def settle(config: Any, tokenizer: Any, model_args: Any, data_args: Any, written: dict[str, Any]) -> None:
    """Gives a configuration the tokenizer's special tokens and the start of the decoder, and the tokenizer
    its language.

    Args:
        config: of transformers, of a checkpoint or of a new model.
        data_args: the task's flags: `writes` says whether it needs ends and starts; for the languages see
            `languages.use_flags`.
        written: what the checkpoint's `generation_config.json` holds.

    Raises:
        InputError: with all that keeps them from going together, and what to do about each.
    """
    source = model_args.tokenizer_name or model_args.model_name_or_path
    problems = _tokens_problems(tokenizer, source, data_args)
    problems += _lengths_problems(tokenizer, data_args)
    if model_args.model_name_or_path:
        problems += _table_problems(config, tokenizer, source, data_args)
        problems += tensor_files.format_problems(model_args.model_name_or_path)
    language: dict[str, int] = {}
    if data_args.writes:
        try:
            language = languages.use_flags(tokenizer, data_args)
        except InputError as error:
            problems += error.problems
    if getattr(data_args, "needs_mask", False) and getattr(config, "is_encoder_decoder", False):
        problems.append(
            f"A {config.model_type} model writes what is missing, and has no head for masks: "
            "run_denoising.py trains it."
        )
    if problems:
        raise InputError(problems)
    if model_args.model_name_or_path:
        _align(config, tokenizer)
    if getattr(config, "is_encoder_decoder", False):
        config.decoder_start_token_id = _start(config, language, written)


def take_over(config: Any, tokenizer: Any) -> None:
    """Gives the configuration of a new model the tokenizer's special tokens. What the architecture begins and
    ends targets with stays the same one of them: Marian begins with padding, BART with the end."""
    before = {name: getattr(config, name, None) for name in SPECIAL}
    roles = {
        role: name
        for role in ("decoder_start_token_id", "forced_eos_token_id")
        for name in SPECIAL
        if before[name] is not None and getattr(config, role, None) == before[name]
    }
    for name in SPECIAL:
        if getattr(tokenizer, name) is not None:
            setattr(config, name, getattr(tokenizer, name))
        elif isinstance(before[name], int) and before[name] >= config.vocab_size:
            setattr(config, name, None)  # as GPT-2's, of another tokenizer
    for role, name in roles.items():
        setattr(config, role, getattr(config, name))
    for name in ("cls_token_id", "sep_token_id"):  # as ModernBERT's, of another tokenizer
        if hasattr(config, name):
            setattr(config, name, getattr(tokenizer, name))


def _tokens_problems(tokenizer: Any, source: str, data_args: Any) -> list[str]:
    """Special tokens that work needs and the tokenizer lacks."""
    save = "tokenizer.save_pretrained(FOLDER), then give --tokenizer_name FOLDER"
    problems = []
    if tokenizer.pad_token_id is None and data_args.needs_padding:
        has_end = tokenizer.eos_token is not None
        name = "tokenizer.eos_token" if has_end else "one of its tokens that no text holds"
        problems.append(
            f"The tokenizer of {source} has no padding token to fill batches with. Give it one once in "
            f"Python: tokenizer.pad_token = {name}; {save}."
        )
    if getattr(data_args, "needs_mask", False) and tokenizer.mask_token_id is None:
        problems.append(
            f"The tokenizer of {source} has no mask token to hide others behind. Take one of a model that "
            "was trained with masks, such as a BERT, RoBERTa, DistilBERT, XLM-R, ModernBERT or DeBERTa; for "
            "a model from scratch `python -m triptych.samples tokenizer --mask_token` makes one that has."
        )
    if getattr(data_args, "messages_column", None) and not tokenizer.chat_template:
        problems.append(
            f"The tokenizer of {source} has no chat template, which --messages_column needs. "
            "Take one of a model that was trained on dialogues, or give it a template once in Python: "
            f"tokenizer.chat_template = ...; {save}."
        )
    ends = getattr(data_args, "add_eos", False)
    if (data_args.writes or ends) and tokenizer.eos_token_id is None:
        other = " Or give --add_eos false." if ends else ""
        problems.append(
            f"The tokenizer of {source} has no end token, so no text could end. Give it the one that the "
            f"model was trained with, once in Python: tokenizer.eos_token = ...; {save}.{other}"
        )
    return problems


def _lengths_problems(tokenizer: Any, data_args: Any) -> list[str]:
    """Limits that hold nothing of a text: tokenizers answer them by not cutting at all."""
    pair = "text_pair" in data_args.wanted_columns()
    own = tokenizer.num_special_tokens_to_add(pair=pair)
    lengths = {name: value for name in LENGTHS if (value := getattr(data_args, name, None))}
    return [
        f"--{name} {value}: holds no text, since the tokenizer adds {own} tokens of its own."
        for name, value in lengths.items()
        if value <= own
    ]


def tokens_to_make(config: Any) -> int | None:
    """How many rows a model's tables of tokens must be made to have, which `settle` has noted in its
    configuration; None if they have enough. To be asked once: it is no setting to be saved."""
    return vars(config).pop(TOKENS_TO_MAKE, None)


def _table_problems(config: Any, tokenizer: Any, source: str, data_args: Any) -> list[str]:
    """Tokens that the model has no row for, and padding that it would take for text."""
    problems = []
    rows = getattr(config, "vocab_size", None)
    beyond = [token for token, number in tokenizer.get_vocab().items() if rows and number >= rows]
    resizes = getattr(data_args, "resize_token_embeddings", None)
    if beyond and resizes:
        wanted = max(tokenizer.get_vocab().values()) + 1
        setattr(config, TOKENS_TO_MAKE, wanted)
        logger.warning("Tables of tokens enlarged from %d to %d rows.", rows, wanted)
    elif beyond:
        other = "" if resizes is None else ", or give --resize_token_embeddings"
        shown = ", ".join(map(repr, sorted(beyond)[:3])) + (", …" if len(beyond) > 3 else "")
        problems.append(
            f"The tokenizer of {source} has tokens beyond the model's table, which has {rows} rows: "
            f"{shown}. Take the tokenizer that the model was trained with, or enlarge the table "
            "once in PyTorch: model.resize_token_embeddings(len(tokenizer)), and save both with "
            f"save_pretrained(FOLDER){other}."
        )
    ours, theirs = tokenizer.pad_token_id, config.pad_token_id
    if encoders.counts_from_padding(config) and None not in (ours, theirs) and ours != theirs:
        problems.append(
            f"The tokenizer of {source} pads with token {ours}, the model with {theirs}, from which it "
            "counts positions. Take the tokenizer that the model was trained with."
        )
    return problems


def _align(config: Any, tokenizer: Any) -> None:
    """Takes over what the tokenizer defines, as the Trainer of transformers does for its own form; of several
    ends none is lost."""
    for name in SPECIAL:
        token, known = getattr(tokenizer, name), getattr(config, name, None)
        if token is None or token in (known if isinstance(known, list) else [known]):
            continue
        if known is not None:
            logger.warning(
                "%s is %s in the tokenizer and %s in the model: taking %s", name, token, known, token
            )
        setattr(config, name, [token, *known] if isinstance(known, list) else token)


def _start(config: Any, language: dict[str, int], written: dict[str, Any]) -> int:
    """The token that the decoder reads first, in training and in generation."""
    ours, theirs = getattr(config, "decoder_start_token_id", None), written.get("decoder_start_token_id")
    if "decoder_start_token_id" in language:
        return language["decoder_start_token_id"]
    if ours is None:
        # T5 begins with its padding token; models with a token for the beginning begin with that.
        begin = config.pad_token_id if "t5" in config.model_type else getattr(config, "bos_token_id", None)
        return next(start for start in (theirs, begin, config.pad_token_id) if start is not None)
    if theirs not in (None, ours):
        logger.warning(
            "generation_config.json lets the decoder begin with token %s, config.json with %s: %s is taken.",
            *(theirs, ours, ours),
        )
    return ours


def settle_generation(generation_config: Any, config: Any) -> None:
    """Lets generation begin, end and pad as training does: as `config`, see `settle`. Other ends stay. Marian
    begins with padding, and answers with none, as its published checkpoints say."""
    generation_config.decoder_start_token_id = getattr(config, "decoder_start_token_id", None)
    if config.model_type == "marian" and not generation_config.bad_words_ids:
        generation_config.bad_words_ids = [[config.pad_token_id]]
    for name in ("pad_token_id", "bos_token_id"):
        if (token := getattr(config, name, None)) is not None:
            setattr(generation_config, name, token)
    ends, known = (
        value if isinstance(value, list) else [] if value is None else [value]
        for value in (getattr(config, "eos_token_id", None), generation_config.eos_token_id)
    )
    if set(ends) - set(known):
        every = [*ends, *(end for end in known if end not in ends)]
        generation_config.eos_token_id = every if len(every) > 1 else every[0]
