"""Packing: every token once, in its order, the same blocks however the documents come."""

import hashlib
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from triptych.batching.padding import UNCOUNTED
from triptych.data import ROW, packing
from triptych.errors import InputError

datasets = pytest.importorskip("datasets")

RANDOM = np.random.default_rng(0)
CONFIG = SimpleNamespace(max_position_embeddings=512)
LENGTHS = RANDOM.integers(2, 60, 300)


def documents(lengths):
    """Documents whose tokens are all different, each with its last label uncounted."""
    starts = np.cumsum(lengths) - lengths
    ids = [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)]
    labels = [[*row[1:], UNCOUNTED] for row in ids]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels, "prompt": [0] * len(ids)})


def pieces_of(plan, lengths):
    """By block the pieces in it, each as (document, first token, one behind its last)."""
    found = {}
    for document, start, stop, block in zip(*(values.tolist() for values in plan), strict=True):
        found.setdefault(block, []).append((document, start, stop))
    assert list(found) == list(range(len(found)))
    return list(found.values())


@pytest.mark.parametrize("kind", packing.KINDS)
@pytest.mark.parametrize("size", [7, 32, 64, 10_000])
def test_every_token_is_in_one_block(kind, size):
    blocks = pieces_of(packing.plan(LENGTHS, size, kind), LENGTHS)
    tokens = [
        (document, n) for block in blocks for document, start, stop in block for n in range(start, stop)
    ]
    assert sorted(tokens) == [(document, n) for document, length in enumerate(LENGTHS) for n in range(length)]
    assert len(set(tokens)) == len(tokens)
    sizes = [sum(stop - start for _, start, stop in block) for block in blocks]
    assert max(sizes) <= size
    assert all(stop > start for block in blocks for _, start, stop in block)
    if kind == "blocks":  # cut from one text, in its order
        assert sizes[:-1] == [size] * (len(sizes) - 1)
        assert tokens == sorted(tokens)
    if kind == "none":
        assert all(len(block) == 1 for block in blocks)


def test_documents_that_fit_are_whole_and_blocks_full():
    size = 64
    blocks = pieces_of(packing.plan(LENGTHS, size, "documents"), LENGTHS)
    assert all((start, stop) == (0, LENGTHS[document]) for block in blocks for document, start, stop in block)
    # No two blocks could be one, and hardly more are needed than by tokens alone
    sizes = sorted(sum(stop - start for _, start, stop in block) for block in blocks)
    assert sizes[0] + sizes[1] > size
    assert len(blocks) <= 1.05 * LENGTHS.sum() / size + 1


def test_best_fit_puts_a_piece_into_the_fullest_block_with_room():
    plan = packing.plan(np.array([3, 6, 5, 4, 2]), 10, "documents")
    # 6 and 5 open blocks, 4 fills the first, 3 goes to the second, which 2 fills
    assert pieces_of(plan, None) == [[(1, 0, 6), (3, 0, 4)], [(0, 0, 3), (2, 0, 5), (4, 0, 2)]]


def test_long_documents_go_on_in_other_blocks():
    plan = packing.plan(np.array([25, 3]), 10, "documents")
    assert pieces_of(plan, None) == [[(0, 0, 10)], [(0, 10, 20)], [(0, 20, 25), (1, 0, 3)]]


def blocks_of(rows, size, kind):
    return [
        {name: value for name, value in block.items()}
        for block in packing.pack({"train": rows}, size, CONFIG, settings(kind))["train"]
    ]


def settings(kind="blocks", **given):
    return SimpleNamespace(**{"packing": kind, "max_new_tokens": None} | given)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))


@pytest.mark.parametrize("kind", packing.KINDS)
def test_windows_and_streams_change_nothing(kind, monkeypatch):
    """`blocks` go on across windows; of `documents` each window is packed by itself."""
    rows = documents(LENGTHS)
    whole = blocks_of(rows, 48, kind)
    stream = rows.to_iterable_dataset(num_shards=3)
    assert blocks_of(stream, 48, kind) == whole
    if kind == "blocks":
        for window in (1, 7, 100):
            monkeypatch.setattr(packing, "WINDOW", window)
            assert blocks_of(stream, 48, kind) == whole
            assert [chunk for chunk in arrays(packing.packed(packing._windows(rows), 48, kind))] == [
                (block["input_ids"], block["labels"], block[packing.PIECES], block[ROW]) for block in whole
            ]


def arrays(chunks):
    for chunk in chunks:
        for block in range(len(chunk[ROW][1]) - 1):
            yield tuple(
                values[begins[block] : begins[block + 1]].tolist() for values, begins in chunk.values()
            )


def test_blocks_are_the_text_cut_with_the_short_rest():
    blocks = blocks_of(documents(LENGTHS), 100, "blocks")
    assert list(itertools.chain(*(block["input_ids"] for block in blocks))) == list(range(LENGTHS.sum()))
    assert len(blocks[-1]["input_ids"]) == LENGTHS.sum() % 100
    # A token at a block's edge is predicted, one behind a document's end is not.
    ends = set((np.cumsum(LENGTHS) - 1).tolist())
    for block in blocks:
        for token, label in zip(block["input_ids"], block["labels"], strict=True):
            assert label == (UNCOUNTED if token in ends else token + 1)
    assert blocks[0]["labels"][-1] == 100


def test_positions_begin_anew_with_each_document():
    blocks = blocks_of(documents(LENGTHS), 100, "blocks")
    rows = {name: [block[name] for block in blocks] for name in blocks[0]}
    first = (np.cumsum(LENGTHS) - LENGTHS).tolist()
    for block, positions in zip(blocks, packing.positions(rows), strict=True):
        assert len(positions) == len(block["input_ids"])
        starts = [token for token, place in zip(block["input_ids"], positions, strict=True) if place == 0]
        assert starts == [token for token in block["input_ids"] if token in first or token % 100 == 0]
        assert [LENGTHS[row] for row in block[ROW][1:-1]] == block[packing.PIECES][1:-1]


def test_documents_without_a_token_to_predict_are_left_out():
    rows = datasets.Dataset.from_dict(
        {
            "input_ids": [[1, 2], [3], [], [4, 5, 6]],
            "labels": [[2, UNCOUNTED], [UNCOUNTED], [], [UNCOUNTED, 6, UNCOUNTED]],
            "prompt": [0, 0, 0, 0],
        }
    )
    (block,) = blocks_of(rows, 10, "blocks")
    assert (block["input_ids"], block[ROW], block[packing.PIECES]) == ([1, 2, 4, 5, 6], [0, 3], [2, 3])
    assert blocks_of(rows.to_iterable_dataset(), 10, "blocks") == [block]
    nothing = rows.select([1, 2])
    with pytest.raises(InputError, match="train: not one block, since none of 2 documents"):
        blocks_of(nothing, 10, "blocks")
    with pytest.raises(InputError, match="not one block"):
        blocks_of(nothing.to_iterable_dataset(), 10, "blocks")


def test_rows_to_evaluate_are_whole_where_they_fit():
    rows = documents(LENGTHS)
    for kind, expected in (("blocks", "documents"), ("documents", "documents"), ("none", "none")):
        features = packing.pack({"validation": rows, "test": rows}, 64, CONFIG, settings(kind))
        assert list(features["validation"]) == list(features["test"]) == blocks_of(rows, 64, expected)


def test_prompts_to_be_continued_stay_rows():
    rows = datasets.Dataset.from_dict(
        {"input_ids": [[1, 2, 3], [4, 5]], "labels": [[2, 3, -100], [5, -100]], "prompt": [2, 2]}
    )
    features = packing.pack({"test": rows}, 64, CONFIG, settings(max_new_tokens=5))["test"]
    assert features[:] == {"input_ids": [[1, 2], [4, 5]], "labels": [[-100, -100], [-100, -100]]}
    with pytest.raises(InputError, match="only 512 positions, the longest prompt 2 tokens"):
        packing.pack({"test": rows}, 64, CONFIG, settings(max_new_tokens=511))
    turned = SimpleNamespace(max_position_embeddings=512, rope_parameters={})
    assert packing.pack({"test": rows}, 64, turned, settings(max_new_tokens=511))


def test_summary_tells_what_was_packed():
    rows = documents(LENGTHS)
    features = packing.pack({"train": rows, "validation": rows}, 64, CONFIG, settings())
    found = packing.summary(features)
    assert found["train"]["blocks"] == -(-LENGTHS.sum() // 64) == len(features["train"])
    assert found["train"]["tokens"] == found["validation"]["tokens"] == LENGTHS.sum()
    assert found["validation"]["pieces"] == len(LENGTHS) < found["train"]["pieces"]
    ids = np.arange(LENGTHS.sum(), dtype="<i4")
    labels, pieces = (
        np.concatenate([np.array(block[name], "<i4") for block in features["train"]])
        for name in ("labels", packing.PIECES)
    )
    of_each = [hashlib.sha256(values.tobytes()).hexdigest() for values in (ids, labels, pieces)]
    assert found["train"]["sha256"] == hashlib.sha256("".join(of_each).encode()).hexdigest()
    assert packing.summary({"train": rows, "test": rows.to_iterable_dataset()}) == {}


def test_block_size_is_the_flags_or_the_models():
    def of(flag, **config):
        return packing.block_size(SimpleNamespace(**config), SimpleNamespace(block_size=flag))

    assert of(None, max_position_embeddings=512) == 512
    assert of(None, max_position_embeddings=40_000, rope_parameters={}) == 1024
    assert of(None) == 1024
    assert of(100, max_position_embeddings=512) == 100
    with pytest.raises(InputError, match="--block_size 600: the model has only 512 positions"):
        of(600, max_position_embeddings=512)
    assert of(600, max_position_embeddings=512, rope_parameters={}) == 600


def test_sums_of_pieces():
    answer = np.array([[1.0, 2, 0], [3, 4, 1], [5, 6, 0], [7, 8, 0]], np.float32)
    assert packing.by_piece(answer).tolist() == [[4, 6], [5, 6], [7, 8]]
