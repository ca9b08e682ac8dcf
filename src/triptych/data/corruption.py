"""Texts that a model with encoder and decoder learns to restore: as tokens, in blocks, corrupted batch by
batch, and with their holes filled."""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from triptych.batching.draws import Draws
from triptych.data import ROW, noise, packing
from triptych.data import lengths as lengths_of
from triptych.data.sources import CHUNK, is_stream
from triptych.errors import InputError
from triptych.models import configs

logger = logging.getLogger(__name__)

USUAL = 512  # tokens of a corrupted text, if nothing else is said
STARTS = "sentence starts"  # column of features: 1 for the first token of a sentence, else 0
SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")  # T5's; with ▁, as pieces of its vocabulary, mT5's
# A sentence ends with such a sign, and white space where words have it between them, or with its line.
SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]]*\s+|[。！？]["'”’」』）\]]*\s*|\s*\n\s*""")  # noqa: RUF001
# What the numbers of a row are for, see `Draws`
NOISE, KEPT, LENGTHS, PLACES, MOVED, ORDER = range(1, 7)


class Corruption(NamedTuple):
    """What a run does to its texts.

    Attributes:
        objective: one of `noise.OBJECTIVES`.
        values: of the objective's flags, by name.
        sentinels: token ids in their order, int64 (sentinels,); the mask alone for infilling.
        begin, end: tokens that the tokenizer puts before and behind a text.
        separator: the token behind each text of a block.
        text_length: most tokens of a text, without those of the tokenizer.
        input_length, target_length: most tokens that are read and that are to be written, with those.
    """

    objective: str
    values: dict[str, float]
    sentinels: np.ndarray
    begin: list[int]
    end: list[int]
    separator: int
    text_length: int
    input_length: int
    target_length: int


def of_run(config: Any, tokenizer: Any, data_args: Any) -> Corruption:
    """What a run does to its texts, checked to go with its model and tokenizer.

    Args:
        config: of the model.
        data_args: the flags objective, max_seq_length, max_new_tokens, and those of the
            objective.

    Raises:
        InputError: for a model without encoder or decoder, a tokenizer without sentinels or mask, or with too
            few, and for lengths that the model has no positions for.
    """
    if not config.is_encoder_decoder:
        raise InputError(
            f"A {config.model_type} model cannot be used here: one part has to read the corrupted text, "
            "another to write. Take a model with encoder and decoder, such as T5, mT5, BART or mBART."
        )
    objective, problems = data_args.objective, []
    usual = noise.OBJECTIVES[objective]
    values = {
        name: value if (own := getattr(data_args, name)) is None else own for name, value in usual.items()
    }
    begin, end = _own_tokens(tokenizer)
    positions = configs.positions(config)
    length = data_args.max_seq_length or min(USUAL, positions or USUAL)
    own = len(begin) + len(end)
    if objective == "spans":
        shares = values["noise_density"], values["mean_noise_span_length"]
        text_length = noise.text_length(length - own, *shares)
        target_length = noise.corrupted_lengths(max(text_length, 2), *shares)[1] + own
        sentinels = _sentinels(tokenizer)
        problems += _sentinel_problems(sentinels, tokenizer, text_length, own, shares)
    else:
        text_length, target_length = length - own, length
        sentinels = [tokenizer.mask_token_id]
        if tokenizer.mask_token_id is None:
            problems.append(
                f"The tokenizer of {tokenizer.name_or_path} has no mask token, which --objective infilling "
                "puts in the place of spans. Take BART's or mBART's, or --objective spans for one with "
                "sentinels."
            )
    if text_length < 2:
        problems.append(
            f"--max_seq_length {length}: holds no text of two tokens, since {own} are the tokenizer's own."
        )
    longest = {"--max_seq_length": length, "--max_new_tokens": (data_args.max_new_tokens or 0) + 1}
    longest |= {"what is to be written": target_length} if objective == "spans" else {}
    problems += [
        f"{name} {value}: the model has only {positions} positions. Give less."
        for name, value in longest.items()
        if positions and value > positions
    ]
    if problems:
        raise InputError(problems)
    ids = np.array(sentinels, np.int64)
    found = objective, values, ids, begin, end, tokenizer.eos_token_id
    return Corruption(*found, text_length, length, target_length)


def _own_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    bare, whole = (tokenizer("a", add_special_tokens=own)["input_ids"] for own in (False, True))
    places = range(len(whole) - len(bare) + 1)
    at = next(place for place in places if whole[place : place + len(bare)] == bare)
    return whole[:at], whole[at + len(bare) :]


def _sentinels(tokenizer: Any) -> list[int]:
    """Token ids of the sentinels from 0 on, as far as there is one of each number. Of two with the same the
    first in the vocabulary counts: the other was added later."""
    named = ((SENTINEL.fullmatch(token), number) for token, number in tokenizer.get_vocab().items())
    by_number: dict[int, int] = {}
    for match, number in named:
        if match:
            by_number[int(match[1])] = min(number, by_number.get(int(match[1]), number))
    found: list[int] = []
    while len(found) in by_number:
        found.append(by_number[len(found)])
    return found


def _sentinel_problems(
    sentinels: list[int], tokenizer: Any, length: int, own: int, shares: tuple[float, float]
) -> list[str]:
    name = tokenizer.name_or_path
    if not sentinels:
        return [
            f"The tokenizer of {name} has no sentinels <extra_id_0>, <extra_id_1>, …, which --objective "
            "spans puts in the place of spans. Take T5's or mT5's, a new one of `python -m triptych.samples "
            "tokenizer --extra_ids 100`, or --objective infilling for one with a mask token."
        ]
    if length < 2 or (needed := noise.span_counts(length, *shares)[1]) <= len(sentinels):
        return []
    while noise.span_counts(length, *shares)[1] > len(sentinels):
        length -= 1
    most = noise.corrupted_lengths(length, *shares)[0] + own
    return [
        f"The tokenizer of {name} has {len(sentinels)} sentinels, the longest texts have {needed} spans of "
        f"noise: give --max_seq_length {most} or less, or longer spans by --mean_noise_span_length."
    ]


def tokenized(
    rows: Mapping[str, Sequence[str]], columns: Mapping[str, str], tokenizer: Any, data_args: Any
) -> dict[str, list[Any]]:
    """Columns of tokens from columns of rows, for `blocks`.

    Args:
        columns: by role: text.
        tokenizer: of transformers; a fast one if sentences change places.

    Returns:
        For each text `input_ids`, without what the tokenizer puts around it, but with its end token behind
        it unless a text is a row; `labels`, as many: 1 for the first token of a sentence, if sentences change
        places, else 0.
    """
    texts = list(rows[columns["text"]])
    if not texts:
        return {"input_ids": [], "labels": []}
    offsets = data_args.permutes()
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_offsets_mapping=offsets,
        verbose=False,
    )
    between = [] if data_args.line_by_line else [tokenizer.eos_token_id]
    ids = [[*row, *between] for row in encoded["input_ids"]]
    marks = [[0] * len(row) for row in ids]
    for text, row, spans in zip(texts, marks, encoded["offset_mapping"] if offsets else (), strict=offsets):
        starts = [0, *(match.end() for match in SENTENCE_END.finditer(text))]
        ends = [end for _, end in spans]
        # A token may begin with the space before its word.
        for place in np.searchsorted(ends, starts, side="right"):
            if place < len(spans):
                row[place] = 1
        row[:1] = [1] * bool(row)
    return {"input_ids": ids, "labels": marks}


def blocks(whole: dict[str, Any], corruption: Corruption, data_args: Any) -> dict[str, Any]:
    """Features by split: texts with the tokens that the tokenizer puts around them in `input_ids`; STARTS, as
    many; and `data.ROW`, the raw row that each is of, or begins with. What is too short to be corrupted is
    left out.

    Rows to train on and to evaluate stand one behind the other, an end token between them, and are cut every
    `text_length` tokens. With `--line_by_line`, and always of rows to predict, a row is a text, or several if
    it is longer. Rows whose holes are to be filled have `input_ids` alone.

    Args:
        whole: by split, what `tokenized` makes of the rows.

    Raises:
        InputError: if nothing of a split can be corrupted, or a row with holes is too long.
    """
    features, problems = {}, []
    for split, rows in whole.items():
        is_test = split.startswith("test")
        if is_test and not data_args.line_by_line:
            rows = rows.map(_without_end, batched=True, batch_size=CHUNK)
        if is_test and data_args.max_new_tokens is not None:
            features[split] = rows.map(
                _with_own, batched=True, remove_columns=["labels"], fn_kwargs={"corruption": corruption}
            )
            longest = int(lengths_of(features[split]).max())
            if longest > corruption.input_length:
                problems.append(
                    f"{split}: a row has {longest} tokens, more than --max_seq_length "
                    f"{corruption.input_length}: what is to be filled is not cut."
                )
            continue
        kind = "none" if is_test or data_args.line_by_line else "blocks"
        packed = packing.of_split(rows, split, corruption.text_length, kind)
        names = ["labels", packing.PIECES]
        features[split] = packed.map(
            _as_features,
            batched=True,
            batch_size=CHUNK,
            remove_columns=names,
            fn_kwargs={"corruption": corruption},
        )
        if is_stream(rows):
            continue
        dropped = len(packed) - len(features[split])
        if not len(features[split]):
            problems.append(f"{split}: none of {len(rows)} rows has two tokens, of which one could be noise.")
        elif dropped:
            logger.warning(
                "%s: %d texts, or ends of texts, of fewer than two tokens left out.", split, dropped
            )
    if problems:
        raise InputError(problems)
    return features


def _without_end(rows: dict[str, list]) -> dict[str, list]:
    return {name: [values[:-1] for values in rows[name]] for name in ("input_ids", "labels")}


def _with_own(rows: dict[str, list], corruption: Corruption) -> dict[str, list]:
    return {"input_ids": [[*corruption.begin, *ids, *corruption.end] for ids in rows["input_ids"]]}


def _as_features(rows: dict[str, list], corruption: Corruption) -> dict[str, list]:
    """Texts that can be corrupted, without the end token behind the last."""
    made: dict[str, list] = {"input_ids": [], STARTS: [], ROW: []}
    before, behind = [0] * len(corruption.begin), [0] * len(corruption.end)
    for ids, marks, numbers in zip(rows["input_ids"], rows["labels"], rows[ROW], strict=True):
        count = len(ids) - (ids[-1] == corruption.separator)
        if count < 2:
            continue
        made["input_ids"].append([*corruption.begin, *ids[:count], *corruption.end])
        made[STARTS].append([*before, *marks[:count], *behind])
        made[ROW].append(numbers[0])
    return made


def corrupted(
    rows: Mapping[str, Sequence], draws: Draws, corruption: Corruption
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What is read of each text, and what is to be written, int64 (length,) each, with the tokens that the
    tokenizer puts around a text. A pure function of (seed, draw of the row), see `Draws`; in evaluation of
    the latter alone.

    Args:
        rows: the columns of `blocks`.
    """
    draws = draws.comparable()
    first, behind = len(corruption.begin), len(corruption.end)
    texts = [np.array(ids[first : len(ids) - behind], np.int64) for ids in rows["input_ids"]]
    corrupt = _spans if corruption.objective == "spans" else _infilled
    starts = [np.flatnonzero(marks[first : len(marks) - behind]) for marks in rows[STARTS]]
    pairs = corrupt(texts, starts, draws, corruption)

    def with_own(ids: np.ndarray) -> np.ndarray:
        return np.concatenate([np.array(corruption.begin, np.int64), ids, np.array(corruption.end, np.int64)])

    return [with_own(read) for read, _ in pairs], [with_own(written) for _, written in pairs]


def _spans(
    texts: list[np.ndarray], starts: list[np.ndarray], draws: Draws, corruption: Corruption
) -> list[tuple[np.ndarray, np.ndarray]]:
    longest = max(map(len, texts))
    of_noise, of_kept = (draws.bits(longest, purpose) for purpose in (NOISE, KEPT))
    found = []
    for text, numbers, others in zip(texts, of_noise, of_kept, strict=True):
        tokens, count = noise.span_counts(len(text), *corruption.values.values())
        lengths = noise.segments(tokens, count, numbers), noise.segments(len(text) - tokens, count, others)
        found.append(noise.spans(text, *lengths, corruption.sentinels))
    return found


def _infilled(
    texts: list[np.ndarray], starts: list[np.ndarray], draws: Draws, corruption: Corruption
) -> list[tuple[np.ndarray, np.ndarray]]:
    ratio, mean, moved = corruption.values.values()
    longest = max(map(len, texts))
    places, choosing, ordering = (draws.bits(longest, purpose) for purpose in (PLACES, MOVED, ORDER))
    found = []
    for row, (text, sentences) in enumerate(zip(texts, starts, strict=True)):
        own = Draws(draws.seed, draws.numbers[row : row + 1])
        budget = min(max(round(ratio * len(text)), 1), len(text))
        lengths = noise.poisson_lengths(budget, mean, partial(_uniform, own))
        sentences = np.union1d([0], sentences)  # a block may begin in the midst of one
        other = noise.permuted(text, sentences, moved, choosing[row], ordering[row])
        mask = int(corruption.sentinels[0])
        found.append((noise.infilled(other, lengths, mask, places[row]), text))
    return found


def _uniform(draws: Draws, count: int) -> np.ndarray:
    return draws.uniform(count, LENGTHS)[0]


def filled(
    answers: Sequence[Sequence[int]], texts: Sequence[str], tokenizer: Any, corruption: Corruption
) -> list[str]:
    """Texts with what a model has written into their holes. After infilling it has written all of the text;
    after spans each sentinel is followed by what it stands for, and one that is not written stays empty.

    Args:
        answers: generated token ids, of as many rows.
    """
    if corruption.objective == "infilling":
        return tokenizer.batch_decode(answers, skip_special_tokens=True)
    found, sentinels = [], {*corruption.sentinels.tolist()}
    for answer, text in zip(answers, texts, strict=True):
        parts: dict[int, list[int]] = {}
        own: list[int] = []  # what is written before the first sentinel belongs nowhere
        for token in map(int, answer):
            if token in sentinels:
                own = []
                parts.setdefault(token, own)  # the first time that it is written
            else:
                own.append(token)
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        found.append([token for one in ids for token in parts.get(one, [one])])
    return tokenizer.batch_decode(found, skip_special_tokens=True)
