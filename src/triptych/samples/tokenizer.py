"""A tokenizer for a model from scratch, trained on the files that the model will be trained on."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from triptych.data.readers import find_files, peek, read_rows
from triptych.errors import InputError
from triptych.models.tokenizers import save

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # ids 0, 1, 2, as in T5
MASK_TOKEN = "<mask>"  # the last, so that all others have the same ids with it and without
LEAST_VOCAB_SIZE = len(SPECIAL_TOKENS) + 256


def train_tokenizer(
    files: list[str],
    columns: list[str],
    out_dir: str | Path,
    vocab_size: int = 4000,
    mask_token: bool = False,
    extra_ids: int = 0,
) -> int:
    """Trains a byte-level BPE tokenizer and saves it for `AutoTokenizer.from_pretrained(out_dir)`.

    No token of any text is unknown, and decoding gives back all its characters. No token holds both digits
    and other characters; frequent numbers are one token, which a small model copies more easily than digits.
    Encoding ends with the end-of-sequence token. Byte pairs (Sennrich et al. 2016, arXiv:1508.07909) rather
    than a unigram model, because their sequences are shorter: by a tenth on docstrings, by half on bulletins.

    Args:
        files: paths, comma-separated lists or globs, in any format that the training scripts read.
        columns: those to learn from: texts, lists of words, or texts by language; a row where one is null or
            empty adds nothing for it.
        out_dir: created where it is missing.
        vocab_size: entries at most; at least 259, for three special tokens and all bytes.
        mask_token: whether one more entry is MASK_TOKEN, which stands for a token that is to be found.
        extra_ids: so many more entries are sentinels, <extra_id_0> and so on, as T5's.

    Returns:
        The number of entries: fewer than `vocab_size` where the text has no more pairs to merge.

    Raises:
        InputError: a file that is missing or wrong, a column that a file does not have or that holds no text,
            too small a `vocab_size`, a folder that cannot be written to.
    """
    problems = []
    if vocab_size < LEAST_VOCAB_SIZE:
        problems.append(f"vocab_size {vocab_size} is too small; {LEAST_VOCAB_SIZE} is the least.")
    if extra_ids < 0:
        problems.append(f"extra_ids {extra_ids}: must be at least 0.")
    if Path(out_dir).exists() and not Path(out_dir).is_dir():
        problems.append(f"{out_dir} is a file; name a folder.")
    for name in files:
        known, wrong = peek(name)
        problems += wrong
        lacking = [column for column in columns if known and column not in known]
        problems += [f"{name} has no column {column!r}; it has: {', '.join(known)}." for column in lacking]
    if problems:
        raise InputError(problems)
    texts = _texts(files, columns, problems)
    first = next(texts, None)
    if first is None:
        raise InputError(problems or f"{', '.join(files)}: no text in {', '.join(columns)}.")

    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS["unk_token"]))
    # A word at the beginning gets the same token as elsewhere, namely the one with a space before it.
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain([first], texts), trainer)
    if problems:
        raise InputError(problems)
    eos = SPECIAL_TOKENS["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", pair=f"$A {eos} $B {eos}", special_tokens=[(eos, tokenizer.token_to_id(eos))]
    )
    saved = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS
    )
    # White space around holes is theirs, so that words beside them are the tokens that they are elsewhere.
    hole = partial(AddedToken, lstrip=True, rstrip=True)
    saved.add_tokens([hole(f"<extra_id_{number}>") for number in range(extra_ids)], special_tokens=True)
    if mask_token:
        saved.add_special_tokens({"mask_token": hole(MASK_TOKEN)})
    try:
        save(saved, out_dir)
    except OSError as error:
        raise InputError(f"{out_dir} cannot be written to: {error}") from error
    return len(saved)


def _texts(files: list[str], columns: list[str], problems: list[str]) -> Iterator[str]:
    for path in itertools.chain.from_iterable(find_files(name)[0] for name in files):
        for where, row in read_rows(path, problems, columns):
            for column, value in row.items():
                if isinstance(value, list) and all(isinstance(word, str) for word in value):
                    value = " ".join(value)
                if isinstance(value, dict) and all(isinstance(text, str | None) for text in value.values()):
                    yield from filter(None, value.values())
                elif isinstance(value, str):
                    yield value
                elif value is not None:
                    problems.append(f"{where}: {column} is {value!r}, which is no text.")
                    return
