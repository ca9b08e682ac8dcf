"""Texts in which tokens are hidden, for a model to find: masked language modeling (Devlin et al. 2019,
arXiv:1810.04805). Which are hidden is a pure function of (seed, draw of the row, place)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from triptych.batching.draws import Draws
from triptych.batching.padding import UNCOUNTED
from triptych.data import ROW, packing
from triptych.data.sources import CHUNK, is_stream
from triptych.errors import InputError
from triptych.models import configs

logger = logging.getLogger(__name__)

MOST = 512  # tokens of a sequence, if nothing else is said
STARTS = "starts"  # column of features: for each token 1 where it begins a word, else 0
GIVEN = "given"  # column of rows to predict: 1 where a row has mask tokens of its own, which are to be filled
BEFORE_WORDS, WITHIN_WORDS = ("▁", "Ġ"), "##"  # marks of tokens by which tokenizers tell words
CHOICE, KIND, OTHER = 1, 2, 3  # what random numbers are drawn for


class Vocabulary(NamedTuple):
    """What of a tokenizer masks need.

    Attributes:
        mask: the mask token's id.
        special: ids that are never hidden and never put in the place of others, int64 sorted.
        plain: all other ids, int64 sorted.
    """

    mask: int
    special: np.ndarray
    plain: np.ndarray


class Masked(NamedTuple):
    """Rows with hidden tokens.

    Attributes:
        input_ids: int64 (rows, length), as the model reads them.
        places: int64 (rows, hidden): where the targets are, in order; UNCOUNTED behind the last of a row.
        labels: int64 (rows, hidden): the tokens that stood there; UNCOUNTED where none is known.
    """

    input_ids: np.ndarray
    places: np.ndarray
    labels: np.ndarray


def vocabulary(tokenizer: Any) -> Vocabulary:
    """That of a tokenizer of transformers with a mask token."""
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(number for number, token in added if token.special)}
    plain = set(tokenizer.get_vocab().values()) - special
    return Vocabulary(tokenizer.mask_token_id, *(np.array(sorted(ids), np.int64) for ids in (special, plain)))


def max_length(config: Any, data_args: Any) -> int:
    """The tokens that a sequence has at most: `--max_seq_length`, else the positions of the model, at most
    MOST."""
    return data_args.max_seq_length or min(MOST, configs.positions(config) or MOST)


def tokenized(
    rows: Mapping[str, Sequence[Any]], columns: Mapping[str, str], tokenizer: Any, data_args: Any
) -> dict[str, list[list[int]]]:
    """Columns of tokens from columns of rows, without what the tokenizer puts before and behind a text.

    Args:
        columns: by role: text, or words, lists of them.
        data_args: the flags line_by_line, whole_word_mask.

    Returns:
        For each row `input_ids`, and STARTS: the words that are given; else those into which the tokenizer
        splits a text before it looks for tokens, and those that it marks in its tokens. Without
        `--whole_word_mask`, every token is a word.
    """
    words = "words" in columns
    texts = rows[columns["words" if words else "text"]]
    if not texts:
        return {"input_ids": [], STARTS: []}
    given = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    if words:
        texts = [[word for word in row if word] for row in texts]
    encoded = tokenizer(list(texts), is_split_into_words=words, **given)
    ids = encoded["input_ids"]
    if not data_args.whole_word_mask:
        starts = [[1] * len(row) for row in ids]
    else:
        of_words = [encoded.word_ids(number) if tokenizer.is_fast else None for number in range(len(ids))]
        starts = [
            word_starts(tokenizer.convert_ids_to_tokens(row), own, not words)
            for row, own in zip(ids, of_words, strict=True)
        ]
    return {"input_ids": ids, STARTS: starts}


def word_starts(
    tokens: Sequence[str], words: Sequence[int | None] | None, by_marks: bool = True
) -> list[int]:
    """For each token 1 where it begins a word, else 0.

    Args:
        words: the number of the word of each token, as the tokenizer says it; None for one in Python alone.
        by_marks: whether a token begins one, too, that has the mark of a space before it: some tokenizers
            take a whole text for a word.
    """
    if words is not None:
        changes = [place == 0 or words[place] != words[place - 1] for place in range(len(tokens))]
        marked = [by_marks and token.startswith(BEFORE_WORDS) for token in tokens]
        return [int(one or other) for one, other in zip(changes, marked, strict=True)]
    if any(token.startswith(BEFORE_WORDS) for token in tokens):
        return [int(place == 0 or token.startswith(BEFORE_WORDS)) for place, token in enumerate(tokens)]
    return [int(place == 0 or not token.startswith(WITHIN_WORDS)) for place, token in enumerate(tokens)]


def sequences(texts: Mapping[str, Any], tokenizer: Any, longest: int, data_args: Any) -> dict[str, Any]:
    """Features by split: sequences of at most `longest` tokens, with those that the tokenizer puts before and
    behind a text: `input_ids`, STARTS. Those without a token that could be hidden are left out; the log says
    how many.

    With `--line_by_line`, and of rows to predict, a sequence is a text, or a piece of a longer one, and
    `data.ROW` says whose; of a row to predict GIVEN says whether it has mask tokens, and then only pieces
    with these are kept. Else all texts stand one behind the other, each with a separator behind it, and are
    cut every so many tokens; a sequence may hold several (RoBERTa's FULL-SENTENCES, Liu et al. 2019,
    arXiv:1907.11692).

    Args:
        texts: by split, what `tokenized` makes of the rows.
        data_args: the flag line_by_line.

    Raises:
        InputError: for splits of which no sequence is left.
    """
    before, behind = _around(tokenizer)
    known, room = vocabulary(tokenizer), longest - len(before) - len(behind)
    about = {"before": before, "behind": behind, "special": frozenset(known.special.tolist())}
    features, problems = {}, []
    for split, rows in texts.items():
        is_test = split.startswith("test")
        lines = data_args.line_by_line or is_test
        given: dict[str, Any] = {"room": room, "mask": known.mask if is_test else None} if lines else {}
        if not lines:
            separator = {"separator": _separator(tokenizer)}
            rows = rows.map(
                _separated, batched=True, batch_size=CHUNK, fn_kwargs=separator, remove_columns=[STARTS]
            )
            rows = packing.of_split(rows, split, room, "blocks")
        made = rows.map(
            _pieces if lines else _blocks,
            batched=True,
            batch_size=CHUNK,
            with_indices=True,
            remove_columns=["input_ids", STARTS] if lines else ["input_ids", "labels", packing.PIECES, ROW],
            fn_kwargs=about | given,
        )
        features[split] = made
        if is_stream(made):
            logger.info("%s: sequences without a token to mask are dropped as they come.", split)
            continue
        left = len({*made[ROW]}) if lines and len(made) else len(made)
        what = "rows" if lines else "sequences"
        if left < len(rows):
            logger.warning(
                "%s: %d of %d %s dropped, without a token to mask.", split, len(rows) - left, len(rows), what
            )
        if not left:
            problems.append(f"{split}: not one of {len(rows)} {what} has a token that could be masked.")
    if problems:
        raise InputError(problems)
    return features


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer puts before a text and behind it."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, own = encoded["input_ids"], encoded["special_tokens_mask"]
    first, last = own.index(0), len(own) - own[::-1].index(0)
    return ids[:first], ids[last:]


def _separator(tokenizer: Any) -> list[int]:
    found = (number for number in (tokenizer.sep_token_id, tokenizer.eos_token_id) if number is not None)
    return list(found)[:1]


def _separated(rows: dict[str, list], separator: list[int]) -> dict[str, list]:
    """Texts with a separator behind each, and the starts of words as what goes along with their tokens."""
    pairs = list(zip(rows["input_ids"], rows[STARTS], strict=True))
    return {
        "input_ids": [[*ids, *separator] if ids else [] for ids, _ in pairs],
        "labels": [[*starts, *(1 for _ in separator)] if ids else [] for ids, starts in pairs],
    }


def _blocks(
    rows: dict[str, list], numbers: list[int], before: list[int], behind: list[int], special: frozenset[int]
) -> dict[str, list]:
    """Blocks of tokens as sequences."""
    made: dict[str, list] = {"input_ids": [], STARTS: []}
    for ids, starts in zip(rows["input_ids"], rows["labels"], strict=True):
        if not special.issuperset(ids):
            _add(made, ids, starts, before, behind)
    return made


def _pieces(
    rows: dict[str, list],
    numbers: list[int],
    before: list[int],
    behind: list[int],
    special: frozenset[int],
    room: int,
    mask: int | None,
) -> dict[str, list]:
    """Texts as sequences, longer ones in pieces.

    Args:
        mask: of rows to predict, the token whose places are to be filled in the texts that have it.
    """
    made: dict[str, list] = {"input_ids": [], STARTS: [], ROW: []} | ({} if mask is None else {GIVEN: []})
    for number, ids, starts in zip(numbers, rows["input_ids"], rows[STARTS], strict=True):
        is_given = mask is not None and mask in ids
        for first in range(0, len(ids), room):
            piece = ids[first : first + room]
            if mask in piece if is_given else not special.issuperset(piece):
                _add(made, piece, starts[first : first + room], before, behind)
                made[ROW].append(number)
                if mask is not None:
                    made[GIVEN].append(int(is_given))
    return made


def _add(
    made: dict[str, list], ids: list[int], starts: list[int], before: list[int], behind: list[int]
) -> None:
    made["input_ids"].append([*before, *ids, *behind])
    made[STARTS].append([*(1 for _ in before), 1, *starts[1:], *(1 for _ in behind)])


def mask(
    input_ids: np.ndarray, rows: Mapping[str, Any], draws: Draws, known: Vocabulary, data_args: Any
) -> Masked:
    """Hides tokens of rows: each word, by itself, with the probability `--mlm_probability`. Of the hidden
    tokens `--mask_replace_prob` become the mask token, `--random_replace_prob` any that is not special, and
    the others stay as they are. Rows to predict with mask tokens of their own have only these to be filled.

    Args:
        input_ids: int64 (rows, length), padded with a special token.
        rows: features by row: STARTS, and perhaps GIVEN.
        draws: of the rows; in evaluation the seed does not count.
        data_args: those three flags.
    """
    draws = draws.comparable()
    length = input_ids.shape[1]
    starts = np.ones_like(input_ids)
    for row, own in zip(starts, rows[STARTS], strict=True):
        row[: len(own)] = own
    words = np.maximum(np.cumsum(starts, axis=1) - 1, 0)
    chosen = np.take_along_axis(draws.uniform(length, CHOICE), words, axis=1) < data_args.mlm_probability
    chosen &= ~np.isin(input_ids, known.special)
    kind, bits = draws.uniform(length, KIND), draws.bits(length, OTHER)
    other = known.plain[(bits % np.uint64(len(known.plain))).astype(np.int64)]
    becomes_mask = chosen & (kind < data_args.mask_replace_prob)
    becomes_other = chosen & ~becomes_mask
    becomes_other &= kind < data_args.mask_replace_prob + data_args.random_replace_prob
    given = np.array(rows.get(GIVEN, [0] * len(input_ids)), bool)[:, None]
    hidden = np.where(becomes_mask, known.mask, np.where(becomes_other, other, input_ids))
    targets = np.where(given, input_ids == known.mask, chosen)
    most = max(1, int(targets.sum(axis=1).max()))
    order = np.argsort(~targets, axis=1, kind="stable")[:, :most]
    is_target = np.take_along_axis(targets, order, axis=1)
    tokens = np.take_along_axis(input_ids, order, axis=1)
    return Masked(
        input_ids=np.where(given, input_ids, hidden),
        places=np.where(is_target, order, UNCOUNTED),
        labels=np.where(is_target & ~given, tokens, UNCOUNTED),
    )
