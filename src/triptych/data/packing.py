"""Documents of tokens in blocks of one size: a pure function of their order, whoever tokenized them."""

import bisect
import hashlib
import itertools
import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from triptych.batching.padding import UNCOUNTED
from triptych.data import ROW
from triptych.data import lengths as lengths_of
from triptych.data.sources import CHUNK, is_stream
from triptych.errors import InputError

logger = logging.getLogger(__name__)

KINDS = ("blocks", "documents", "none")
USUAL = 1024  # tokens of a block, if nothing else is said
WINDOW = 10_000  # documents among which those are looked for that fill a block
PIECES = "pieces"  # column of features: the lengths of the pieces of documents in a block, in their order
LAYOUT = 1  # of the cached Arrow files; a new number makes the old ones unused


class Documents(NamedTuple):
    """Documents one behind the other.

    Attributes:
        input_ids, labels: int32 (tokens,); see `documents.tokenized`.
        lengths: tokens of each, int64 (documents,), none of them 0.
        rows: the raw row of each, int64 (documents,).
    """

    input_ids: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray


class Plan(NamedTuple):
    """Pieces of documents, all int64 (pieces,), in the order of their blocks and in each of their places.

    Attributes:
        documents: which document each is of.
        starts, stops: its tokens in that document, as a slice.
        blocks: which block each stands in, from 0.
    """

    documents: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    blocks: np.ndarray


def plan(lengths: np.ndarray, size: int, kind: str) -> Plan:
    """Which pieces of documents make which block of at most `size` tokens; no token is left out.

    `blocks` cuts all documents, one behind the other, every `size` tokens: the last block alone may be short.
    `documents` cuts those alone that are longer than a block; the pieces are put by best fit
    decreasing (Johnson et al. 1974): the longest first, each into the fullest block that has room for it.
    `none` cuts likewise, and a piece is a block.

    Args:
        lengths: tokens of each document, none of them 0.
        kind: one of KINDS.
    """
    lengths = np.asarray(lengths, np.int64)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    total = int(ends[-1]) if len(ends) else 0
    if kind == "blocks":
        edges = np.unique(np.concatenate([[0], ends, np.arange(0, total, size)]))
        documents = np.searchsorted(ends, edges[:-1], side="right")
        return Plan(
            documents, edges[:-1] - begins[documents], edges[1:] - begins[documents], edges[:-1] // size
        )
    counts = -(-lengths // size)
    documents = np.repeat(np.arange(len(lengths)), counts)
    starts = size * (np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts))
    stops = np.minimum(starts + size, lengths[documents])
    if kind == "none":
        return Plan(documents, starts, stops, np.arange(len(documents)))
    blocks = _best_fit(stops - starts, size)
    order = np.argsort(blocks, kind="stable")
    return Plan(*(values[order] for values in (documents, starts, stops, blocks)))


def _best_fit(lengths: np.ndarray, size: int) -> np.ndarray:
    """The block of each piece, int64 (pieces,); of equally full ones the first, of equal pieces too."""
    found = np.zeros(len(lengths), np.int64)
    rooms: list[int] = []  # sorted: the room of each block that has some, with its number behind it
    number_of = itertools.count()
    for piece in np.argsort(-lengths, kind="stable"):
        needed = int(lengths[piece])
        place = bisect.bisect_left(rooms, needed << 40)
        room, block = divmod(rooms.pop(place), 1 << 40) if place < len(rooms) else (size, next(number_of))
        found[piece] = block
        if room > needed:
            bisect.insort(rooms, ((room - needed) << 40) + block)
    return found


def packed(windows: Iterable[Documents], size: int, kind: str) -> Iterator[dict[str, Any]]:
    """Blocks of documents that come window by window, as the columns of a chunk of blocks at a time: for each
    column its values, int32 or (rows) int64, one behind the other, and where those of each block begin.

    Of `blocks`, what does not fill a block goes on in the next window; those of `documents` are filled within
    a window.
    """
    rest = None
    for window in windows:
        keeps = np.add.reduceat(window.labels != UNCOUNTED, np.cumsum(window.lengths) - window.lengths) > 0
        tokens = np.repeat(keeps, window.lengths)
        found = Documents(
            window.input_ids[tokens], window.labels[tokens], window.lengths[keeps], window.rows[keeps]
        )
        if rest is not None:
            found = Documents(*map(np.concatenate, zip(rest, found, strict=True)))
        rest = None
        if kind == "blocks":
            found, rest = _whole_blocks(found, size)
        if len(found.lengths):
            yield _blocks(found, size, kind)
    if rest is not None and len(rest.lengths):
        yield _blocks(rest, size, kind)


def _whole_blocks(documents: Documents, size: int) -> tuple[Documents, Documents]:
    """What fills blocks, and what is left, the document in which the last ends being in both."""
    ends = np.cumsum(documents.lengths)
    total = int(ends[-1]) if len(ends) else 0
    edge = total - total % size
    place = int(np.searchsorted(ends, edge, side="left"))
    before, behind = documents.lengths[: place + 1].copy(), documents.lengths[place:].copy()
    if len(before):
        before[-1] -= ends[place] - edge
        behind[0] = ends[place] - edge
    found = []
    for lengths, tokens, rows in (
        (before, slice(0, edge), documents.rows[: place + 1]),
        (behind, slice(edge, None), documents.rows[place:]),
    ):
        there = lengths > 0
        found.append(
            Documents(documents.input_ids[tokens], documents.labels[tokens], lengths[there], rows[there])
        )
    return found[0], found[1]


def _blocks(documents: Documents, size: int, kind: str) -> dict[str, Any]:
    made = plan(documents.lengths, size, kind)
    lengths = made.stops - made.starts
    begins = np.cumsum(documents.lengths) - documents.lengths
    # The token numbers of every piece, one piece behind the other
    tokens = np.arange(lengths.sum()) + np.repeat(
        begins[made.documents] + made.starts - np.cumsum(lengths) + lengths, lengths
    )
    count = int(made.blocks[-1]) + 1
    of_pieces = np.searchsorted(made.blocks, np.arange(count + 1))
    of_tokens = np.concatenate([[0], np.cumsum(lengths)])[of_pieces]
    return {
        "input_ids": (documents.input_ids[tokens], of_tokens),
        "labels": (documents.labels[tokens], of_tokens),
        PIECES: (lengths.astype(np.int32), of_pieces),
        ROW: (documents.rows[made.documents], of_pieces),
    }


def block_size(config: Any, data_args: Any) -> int:
    """The tokens of a block: `--block_size`, else USUAL, or the model's positions where these are fewer.

    Raises:
        InputError: if the model has a table of positions, and it is shorter. Positions that are turned
            (rope) have none; the log then says that the model has not learnt them.
    """
    positions = getattr(config, "max_position_embeddings", None)
    wanted = data_args.block_size or min(USUAL, positions or USUAL)
    if positions and wanted > positions:
        if _table(config):
            raise InputError(
                f"--block_size {wanted}: the model has only {positions} positions. Give {positions} or less."
            )
        logger.warning(
            "--block_size %d: the model was made for %d positions, and has not learnt those behind.",
            *(wanted, positions),
        )
    return wanted


def _table(config: Any) -> int | None:
    """How many positions a model's table has; None where positions are turned, and have none."""
    is_turned = hasattr(config, "rope_parameters")
    return None if is_turned else getattr(config, "max_position_embeddings", None)


def pack(documents: dict[str, Any], size: int, config: Any, data_args: Any) -> dict[str, Any]:
    """Blocks by split: features with the columns `input_ids`, `labels`, PIECES, and `data.ROW`, the raw rows
    of the pieces. Rows to evaluate and to predict are packed as whole documents unless `--packing none`: what
    a row's loss is does not depend on its neighbours then. Prompts to be continued stay as they are.

    Blocks are kept in an Arrow file, as the rows are; those of a stream come as its rows come.

    Args:
        documents: by split, what `documents.tokenized` makes of the rows.
        size: tokens of a block.
        config: of the model.
        data_args: the flags packing, max_new_tokens.

    Raises:
        InputError: if a split has not one block: no document has two tokens; or if the model has too few
            positions for a prompt and what is to follow it.
    """
    features, problems = {}, []
    for split, rows in documents.items():
        kind = data_args.packing
        if split.startswith("test") and data_args.max_new_tokens is not None:
            extra = [name for name in ("prompt", ROW) if name in rows.column_names]
            features[split] = rows.map(_prompts, batched=True, batch_size=CHUNK, remove_columns=extra)
            longest, room = int(lengths_of(features[split]).max()), _table(config)
            if room and longest + data_args.max_new_tokens > room:
                problems.append(
                    f"--max_new_tokens {data_args.max_new_tokens}: the model has only {room} positions, the "
                    f"longest prompt {longest} tokens."
                )
            continue
        if split != "train" and kind == "blocks":
            kind = "documents"
        features[split] = of_split(rows, split, size, kind)
        if not is_stream(rows) and not len(features[split]):
            problems.append(
                f"{split}: not one block, since none of {len(rows)} documents has a token that follows "
                "another. Give longer texts."
            )
    if problems:
        raise InputError(problems)
    return features


def of_split(documents: Any, split: str, size: int, kind: str) -> Any:
    """Blocks of documents of one split, see `pack`: a Dataset, perhaps empty; or a stream."""
    return _stream(documents, size, kind) if is_stream(documents) else _packed(documents, split, size, kind)


def _prompts(rows: dict[str, list]) -> dict[str, list]:
    pairs = list(zip(rows["input_ids"], rows["prompt"], strict=True))
    return {
        "input_ids": [ids[:length] for ids, length in pairs],
        "labels": [[UNCOUNTED] * length for _, length in pairs],
    }


def _packed(rows: Any, split: str, size: int, kind: str) -> Any:
    import datasets
    import pyarrow
    from datasets.fingerprint import generate_fingerprint

    folder = os.path.join(datasets.config.HF_DATASETS_CACHE, "triptych")
    described = f"{LAYOUT} {generate_fingerprint(rows)} {size} {kind}"
    target = os.path.join(folder, f"packed-{hashlib.sha256(described.encode()).hexdigest()[:32]}.arrow")
    if not os.path.exists(target):
        columns = {"input_ids": pyarrow.int32(), "labels": pyarrow.int32()}
        columns |= {PIECES: pyarrow.int32(), ROW: pyarrow.int64()}
        schema = pyarrow.schema([(name, pyarrow.list_(kind)) for name, kind in columns.items()])
        unfinished = f"{target}.{uuid.uuid4().hex}"
        try:
            os.makedirs(folder, exist_ok=True)
            with pyarrow.OSFile(unfinished, "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
                for chunk in packed(_windows(rows), size, kind):
                    arrays = [
                        pyarrow.ListArray.from_arrays(pyarrow.array(begins, pyarrow.int32()), values)
                        for values, begins in chunk.values()
                    ]
                    writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
            os.replace(unfinished, target)
        except OSError as error:
            raise InputError(
                f"{folder}: {error.strerror or error}; let HF_HOME name a folder with room."
            ) from error
        finally:
            if os.path.exists(unfinished):
                os.remove(unfinished)
    return datasets.Dataset.from_file(target, split=split)


def _windows(rows: Any) -> Iterator[Documents]:
    """Documents that have tokens, with the numbers of their rows."""
    first, own_rows = 0, ROW in rows.column_names
    for table in rows.with_format("arrow").iter(WINDOW):
        ids, labels = (table[name].combine_chunks() for name in ("input_ids", "labels"))
        numbers = table[ROW].to_numpy() if own_rows else first + np.arange(len(table))
        lengths = ids.value_lengths().to_numpy().astype(np.int64)
        tokens = [column.flatten().to_numpy().astype(np.int32) for column in (ids, labels)]
        yield Documents(tokens[0], tokens[1], lengths[lengths > 0], numbers[lengths > 0])
        first += len(table)


def _stream(rows: Any, size: int, kind: str) -> Any:
    import datasets

    return datasets.IterableDataset.from_generator(
        _streamed, gen_kwargs={"rows": rows, "size": size, "kind": kind}
    )


def _streamed(rows: Any, size: int, kind: str) -> Iterator[dict[str, list[int]]]:
    """Blocks of a stream, each as a row of features."""
    is_any = False
    for chunk in packed(_windows_of_stream(rows), size, kind):
        is_any = True
        count = len(chunk[PIECES][1]) - 1
        for block in range(count):
            yield {
                name: values[begins[block] : begins[block + 1]].tolist()
                for name, (values, begins) in chunk.items()
            }
    if not is_any:
        raise InputError("train: not one block, since no document has a token that follows another.")


def _windows_of_stream(rows: Any) -> Iterator[Documents]:
    numbered = ((number, row) for number, row in enumerate(rows) if row["input_ids"])
    while window := list(itertools.islice(numbered, WINDOW)):
        ids, labels = (
            np.fromiter(itertools.chain.from_iterable(row[name] for _, row in window), np.int32)
            for name in ("input_ids", "labels")
        )
        lengths = np.array([len(row["input_ids"]) for _, row in window])
        yield Documents(ids, labels, lengths, np.array([row.get(ROW, number) for number, row in window]))


def positions(rows: dict[str, list]) -> list[np.ndarray]:
    """For each row of features the positions of its tokens, which begin anew with each piece of one."""
    whole = [[len(ids)] for ids in rows["input_ids"]]
    return [np.concatenate(list(map(np.arange, pieces))) for pieces in rows.get(PIECES, whole)]


def summary(features: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was packed, by split: how many blocks, pieces of documents and tokens, and a SHA-256 of it all,
    the same in every form. Splits that are not packed, and streams, are left out."""
    found = {}
    for split, rows in features.items():
        if is_stream(rows) or PIECES not in rows.column_names:
            continue
        digests = {name: hashlib.sha256() for name in ("input_ids", "labels", PIECES)}
        counts = dict.fromkeys(("input_ids", PIECES), 0)
        for table in rows.with_format("arrow").iter(WINDOW):
            for name, digest in digests.items():
                column = table[name].combine_chunks()
                digest.update(column.flatten().to_numpy().astype("<i4").tobytes())
            for name in counts:
                counts[name] += len(table[name].combine_chunks().flatten())
        joined = hashlib.sha256("".join(digest.hexdigest() for digest in digests.values()).encode())
        found[split] = {
            "blocks": len(rows),
            "pieces": counts[PIECES],
            "tokens": counts["input_ids"],
            "sha256": joined.hexdigest(),
        }
    return found


def by_piece(answer: np.ndarray) -> np.ndarray:
    """Sums over the pieces of a block, and behind them of its padding: float64 (pieces, values).

    Args:
        answer: (length, values + 1), the last being the position of each token.
    """
    begins = np.flatnonzero(answer[:, -1] == 0)
    return np.add.reduceat(answer[:, :-1].astype(np.float64), begins, axis=0)
