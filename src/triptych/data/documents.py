"""Documents as tokens: whole texts, or prompts with completions, of which the latter alone are learnt."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from triptych.batching.padding import UNCOUNTED
from triptych.data.sources import is_stream

BYTES = "bytes of the tokens to predict"  # column of raw rows
PROMPT, COMPLETION = "prompt", "completion"
CHUNK = 10_000


class Document(NamedTuple):
    """One document.

    Attributes:
        ids: its tokens.
        first: the first token that is learnt; all before it, and at least one, are only read.
        bytes: of the text that the learnt tokens stand for, in UTF-8.
        prompt: how many tokens stand before what would be generated.
    """

    ids: list[int]
    first: int
    bytes: int
    prompt: int


def tokenized(
    rows: Mapping[str, Sequence[Any]], columns: Mapping[str, str], tokenizer: Any, data_args: Any
) -> dict[str, list[Any]]:
    """Columns of tokens from columns of rows: a document a row.

    Prompt and completion are tokenized apart, as in generation, where the completion is not there yet.

    Args:
        rows: by column; completions may be missing.
        columns: by role: text, or prompt and completion.
        tokenizer: of transformers; what it puts before and behind a text stays.
        data_args: the flag add_eos: each document ends with the tokenizer's end token.

    Returns:
        For each document `input_ids`, all its tokens; `labels`, as many: behind each token the one that
        follows it, UNCOUNTED where that is not learnt, as behind the last; BYTES; and `prompt`, the number of
        tokens that stand before what would be generated.
    """
    if COMPLETION in columns and columns[COMPLETION] in rows:
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
    }


def _labels(document: Document) -> list[int]:
    unlearnt = min(document.first, len(document.ids)) - 1
    return [UNCOUNTED] * unlearnt + document.ids[document.first :] + [UNCOUNTED] * bool(document.ids)


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
        made.append(Document(_with_end(bare, tokenizer, ends), 1, size, len(bare)))
    return made


def _pairs(prompts: Sequence[str], completions: Sequence[str], tokenizer: Any, ends: bool) -> list[Document]:
    given = {"return_attention_mask": False, "verbose": False}
    if not prompts:
        return []
    before = [_without_end(ids, tokenizer) for ids in tokenizer(list(prompts), **given)["input_ids"]]
    behind = tokenizer(list(completions), add_special_tokens=False, **given)["input_ids"]
    return [
        Document(
            _with_end([*prompt, *completion], tokenizer, ends),
            max(1, len(prompt)),
            len(text.encode()),
            len(prompt),
        )
        for prompt, completion, text in zip(before, behind, completions, strict=True)
    ]


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
        else rows.add_column(BYTES, documents[split][BYTES][:])
        for split, rows in raw.items()
    }
