"""Documents as tokens: whole texts; prompts with completions, of which the latter alone are learnt;
dialogues, of which what an assistant says is; texts with a hole, and what fills it behind them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from triptych.batching.draws import Draws
from triptych.batching.padding import UNCOUNTED
from triptych.data import ROW, dialogues
from triptych.data.sources import CHUNK, is_stream
from triptych.errors import InputError

BYTES = "bytes of the tokens to predict"  # column of raw rows
PROMPT, COMPLETION = "prompt", "completion"
# Tokens that say what part of a text follows: before the hole, behind it, in it
HOLES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001
)


class Document(NamedTuple):
    """One document.

    Attributes:
        ids: its tokens.
        learnt: by token whether it is to be predicted; the first never is.
        bytes: of the text that the learnt tokens stand for, in UTF-8.
        prompt: how many tokens stand before what would be generated.
    """

    ids: list[int]
    learnt: Sequence[bool]
    bytes: int
    prompt: int


def tokenized(
    rows: Mapping[str, Sequence[Any]], columns: Mapping[str, str], tokenizer: Any, data_args: Any
) -> dict[str, list[Any]]:
    """Columns of tokens from columns of rows: a document a row.

    Prompt and completion are tokenized apart, as in generation, where the completion is not there yet.

    Args:
        rows: by column; completions may be missing.
        columns: by role: text, or prompt and completion, or messages as `dialogues.prepare` makes them.
        tokenizer: of transformers; what it puts before and behind a text stays.
        data_args: the flag add_eos: each document ends with the tokenizer's end token.

    Returns:
        For each document `input_ids`, all its tokens; `labels`, as many: behind each token the one that
        follows it, UNCOUNTED where that is not learnt, as behind the last; BYTES; and `prompt`, the number of
        tokens that stand before what would be generated. Of dialogues also `data.ROW`, the place of the row
        that each is of: some are several documents.

    Raises:
        InputError: see `dialogues.written`.
    """
    of_rows = {}
    if dialogues.MESSAGES in columns:
        made, places = _dialogues(rows[columns[dialogues.MESSAGES]], tokenizer, data_args.add_eos)
        of_rows = {ROW: places}
    elif COMPLETION in columns and columns[COMPLETION] in rows:
        made = _pairs(rows[columns[PROMPT]], rows[columns[COMPLETION]], tokenizer, data_args.add_eos)
    elif PROMPT in columns:
        made = _texts(rows[columns[PROMPT]], tokenizer, False)
    else:
        made = _texts(rows[columns["text"]], tokenizer, data_args.add_eos)
    return {
        "input_ids": [document.ids for document in made],
        "labels": [_labels(document) for document in made],
        BYTES: [document.bytes for document in made],
        "prompt": [document.prompt for document in made],
        **of_rows,
    }


def _labels(document: Document) -> list[int]:
    following = zip(document.ids[1:], document.learnt[1:], strict=True)
    labels = [token if learnt else UNCOUNTED for token, learnt in following]
    return labels + [UNCOUNTED] * bool(document.ids)


def _texts(texts: Sequence[str], tokenizer: Any, ends: bool) -> list[Document]:
    given = {"return_attention_mask": False, "verbose": False}
    offsets: list[Any] = [None] * len(texts)
    if tokenizer.is_fast and texts:
        encoded = tokenizer(list(texts), return_offsets_mapping=True, **given)
        offsets = encoded["offset_mapping"]
    else:
        encoded = tokenizer(list(texts), **given) if texts else {"input_ids": []}
    made = []
    for text, ids, spans in zip(texts, encoded["input_ids"], offsets, strict=True):
        bare = _without_end(ids, tokenizer)
        # Characters of the first token, which nothing predicts; one that the tokenizer adds stands for none
        if spans is not None:
            first = spans[0][1] if bare else 0
        else:
            first = len(tokenizer.decode(bare[:1], skip_special_tokens=True))
        size = len(text[first:].encode())
        ids = _with_end(bare, tokenizer, ends)
        made.append(Document(ids, [True] * len(ids), size, len(bare)))
    return made


def _pairs(prompts: Sequence[str], completions: Sequence[str], tokenizer: Any, ends: bool) -> list[Document]:
    given = {"return_attention_mask": False, "verbose": False}
    if not prompts:
        return []
    before = [_without_end(ids, tokenizer) for ids in tokenizer(list(prompts), **given)["input_ids"]]
    behind = tokenizer(list(completions), add_special_tokens=False, **given)["input_ids"]
    made = []
    for prompt, completion, text in zip(before, behind, completions, strict=True):
        ids = _with_end([*prompt, *completion], tokenizer, ends)
        learnt = [number >= len(prompt) for number in range(len(ids))]
        made.append(Document(ids, learnt, len(text.encode()), len(prompt)))
    return made


def _dialogues(values: Sequence[str], tokenizer: Any, ends: bool) -> tuple[list[Document], list[int]]:
    """The documents, and the place of the row that each is of."""
    made, places = [], []
    for place, value in enumerate(values):
        for text, turns, before in dialogues.written(json.loads(value), tokenizer):
            encoded = tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
            )
            ids, starts = encoded["input_ids"], [start for start, _ in encoded["offset_mapping"]]
            learnt = [any(first <= start < last for first, last in turns) for start in starts]
            prompt = sum(start < before for start in starts)
            if ends and turns and tokenizer.eos_token_id not in ids[prompt:]:
                ids, learnt = [*ids, tokenizer.eos_token_id], [*learnt, True]
            size = sum(len(text[first:last].encode()) for first, last in turns)
            made.append(Document(ids, learnt, size, prompt))
            places.append(place)
    return made, places


def _without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Without the end token that some tokenizers add."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _with_end(ids: list[int], tokenizer: Any, ends: bool) -> list[int]:
    return [*ids, tokenizer.eos_token_id] if ends else ids


def with_bytes(raw: dict[str, Any], documents: dict[str, Any]) -> dict[str, Any]:
    """The raw rows to evaluate and to predict with the column BYTES, for bits per byte."""
    return {
        split: rows
        if split == "train" or is_stream(rows)
        else rows.add_column(BYTES, _by_row(documents[split], len(rows)))
        for split, rows in raw.items()
    }


def _by_row(documents: Any, rows: int) -> list[int]:
    sizes = np.array(documents[BYTES][:], np.int64)
    if ROW not in documents.column_names:
        return sizes.tolist()
    return np.bincount(documents[ROW][:], weights=sizes, minlength=rows).astype(np.int64).tolist()


def with_holes(documents: dict[str, Any], tokenizer: Any, data_args: Any, seed: int) -> dict[str, Any]:
    """The documents, of which `--fim_rate` of the training rows are cut in three: what stands before a hole
    and behind it comes first, what fills it last (Bavarian et al. 2022, arXiv:2207.14255); in
    `--fim_spm_rate` of them what stands behind comes before all else. Where they are cut, (seed, number of
    the row) decides.

    Raises:
        InputError: if the tokenizer lacks the tokens that say which part is which.
    """
    if not data_args.fim_rate or "train" not in documents:
        return documents
    tokens = _hole_tokens(tokenizer, data_args.fim_tokens)

    def cut(rows: dict[str, list], numbers: list[int]) -> dict[str, list]:
        drawn = Draws(seed, np.array(numbers)).uniform(4, purpose=1)
        pairs = zip(rows["input_ids"], rows["prompt"], drawn, strict=True)
        ids = [
            _with_hole(ids, length, own, tokens, tokenizer, data_args) if own[0] < data_args.fim_rate else ids
            for ids, length, own in pairs
        ]
        return {"input_ids": ids, "labels": [[*row[1:], UNCOUNTED] if row else [] for row in ids]}

    made = documents["train"].map(cut, batched=True, batch_size=CHUNK, with_indices=True)
    return documents | {"train": made}


def _with_hole(
    ids: list[int], length: int, drawn: np.ndarray, tokens: Sequence[int], tokenizer: Any, data_args: Any
) -> list[int]:
    """Tokens of a text in three parts, between what begins and ends it.

    Args:
        length: tokens before the end.
        drawn: four numbers from 0 to below 1: the last two say where the text is cut.
        tokens: see HOLES.
    """
    begin = int(bool(ids) and ids[0] == tokenizer.bos_token_id)
    first, last = sorted(begin + int(number * (length - begin + 1)) for number in drawn[2:])
    before, hole, behind = ids[begin:first], ids[first:last], ids[last:length]
    prefix, suffix, middle = tokens
    if drawn[1] < data_args.fim_spm_rate:
        parts = [prefix, suffix, *behind, middle, *before, *hole]
    else:
        parts = [prefix, *before, suffix, *behind, middle, *hole]
    return [*ids[:begin], *parts, *ids[length:]]


def _hole_tokens(tokenizer: Any, names: str) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    known = HOLES if names == "auto" else [tuple(name.strip() for name in names.split(","))]
    found = next((each for each in known if len(each) == 3 and set(each) <= vocabulary.keys()), None)
    if found is None:
        lacking = "none of the usual ones" if names == "auto" else f"not all three of {names!r}"
        raise InputError(
            f"--fim_tokens {names}: the tokenizer has {lacking}. Name its tokens for what stands before a "
            "hole, behind it, and in it: a,b,c."
        )
    return [vocabulary[name] for name in found]
