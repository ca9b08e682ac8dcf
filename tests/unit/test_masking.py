"""Tokens that are hidden: which, by what, in which words; and texts as sequences in which they are."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from triptych import arguments
from triptych.batching.draws import IN_EVALUATION, Draws
from triptych.batching.padding import UNCOUNTED
from triptych.data import NUMBER, ROW, masking
from triptych.errors import InputError
from triptych.metrics import fillings

transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

from small_tokenizers import KINDS, TEXT, debertas, of_kind  # noqa: E402

KNOWN = masking.Vocabulary(4, np.array([0, 1, 2, 3, 4]), np.arange(5, 105))


def settings(**given):
    usual = {"mlm_probability": 0.15, "mask_replace_prob": 0.8, "random_replace_prob": 0.1}
    return SimpleNamespace(**usual | {"line_by_line": True, "whole_word_mask": False} | given)


def texts_of(lengths, seed=0):
    """Rows of ids between a first and a last special one, padded."""
    draw = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), max(lengths)), np.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = [2, *draw.integers(5, 105, length - 2), 3]
    return ids


def mask(ids, numbers, starts=None, seed=7, **given):
    rows = {masking.STARTS: [[1] * int((row != 0).sum()) for row in ids] if starts is None else starts}
    rows |= {name: given.pop(name) for name in (masking.GIVEN,) if name in given}
    return masking.mask(ids, rows, Draws(seed, np.array(numbers)), KNOWN, settings(**given))


def targets(ids, masked):
    """True where a token is hidden, and the labels as they stand in the text."""
    found = np.full(ids.shape, UNCOUNTED)
    for row, places, labels in zip(found, masked.places, masked.labels, strict=True):
        assert (np.diff(places[places >= 0]) > 0).all()
        row[places[places >= 0]] = labels[places >= 0]
    return found


def test_masks_are_these_bytes_in_every_framework_and_release():
    found = [*mask(texts_of([30, 12]), [0, 5]), *mask(texts_of([25, 9]), [IN_EVALUATION, IN_EVALUATION + 3])]
    digest = hashlib.sha256(b"".join(array.astype("<i8").tobytes() for array in found))
    assert digest.hexdigest() == "63724daeb619c643964492f600bb004f2c4e1cc2a63beb3d498445e1e50e44e3"


def test_shares_are_those_of_the_flags():
    ids = texts_of([64] * 3000)
    for p, to_mask, to_other in ((0.15, 0.8, 0.1), (0.4, 0.5, 0.5), (0.3, 0.0, 0.2), (1.0, 1.0, 0.0)):
        shares = dict(mlm_probability=p, mask_replace_prob=to_mask, random_replace_prob=to_other)
        masked = mask(ids, range(3000), **shares)
        hidden = targets(ids, masked) != UNCOUNTED
        assert hidden[:, 1:-1].mean() == pytest.approx(p, abs=0.004)
        assert not hidden[:, [0, -1]].any()
        assert np.array_equal(targets(ids, masked)[hidden], ids[hidden])
        assert np.array_equal(masked.input_ids[~hidden], ids[~hidden])
        found = masked.input_ids[hidden]
        assert (found == 4).mean() == pytest.approx(to_mask, abs=0.01)
        others = found[found != 4]
        assert not np.isin(others, KNOWN.special).any()
        changed = (found != 4) & (found != ids[hidden])  # one in a hundred random ones is the same again
        assert changed.mean() == pytest.approx(0.99 * to_other, abs=0.01)
        if to_other:
            assert {*masked.input_ids[hidden][changed].tolist()} == {*range(5, 105)}


def test_masks_depend_on_nothing_but_seed_draw_and_place():
    lengths = [30, 12, 64, 5, 40]
    ids, numbers = texts_of(lengths), [3, 900, 17, 4, 5]
    together = mask(ids, numbers)
    for row, length in enumerate(lengths):
        alone = mask(ids[row : row + 1, :length], numbers[row : row + 1])
        count = (together.places[row] >= 0).sum()
        assert np.array_equal(alone.input_ids[0], together.input_ids[row, :length])
        assert np.array_equal(alone.places[0, :count], together.places[row, :count])
        assert np.array_equal(alone.labels[0, :count], together.labels[row, :count])
        assert (together.labels[row, count:] == UNCOUNTED).all()
    for other in (mask(ids, np.array(numbers) + 1000), mask(ids, numbers, seed=8)):
        assert not np.array_equal(other.input_ids, together.input_ids)
        assert not np.array_equal(targets(ids, other), targets(ids, together))


def test_in_evaluation_the_seed_does_not_count():
    ids, numbers = texts_of([60, 50]), [IN_EVALUATION, IN_EVALUATION + 1]
    one, two = (mask(ids, numbers, seed=seed) for seed in (1, 2))
    assert all(map(np.array_equal, one, two))
    assert not np.array_equal(one.input_ids, mask(ids, [0, 1]).input_ids)


def test_a_word_is_hidden_as_a_whole_or_not_at_all():
    ids = texts_of([60] * 500)
    draw = np.random.default_rng(1)
    starts = (draw.random(ids.shape) < 0.4).astype(np.int64)
    starts[:, [0, 1, -1]] = 1
    masked = mask(ids, range(500), starts.tolist())
    hidden = targets(ids, masked) != UNCOUNTED
    begins = np.flatnonzero(starts)
    shares = np.add.reduceat(hidden.ravel(), begins) / np.diff([*begins, hidden.size])
    assert set(shares) == {0.0, 1.0}
    assert hidden[:, 1:-1].mean() == pytest.approx(0.15, abs=0.015)


def test_rows_with_masks_of_their_own_have_these_alone_filled():
    ids = texts_of([10, 10, 10])
    ids[0, [3, 5]] = ids[1, 2] = 4
    masked = mask(ids, [IN_EVALUATION] * 3, **{masking.GIVEN: [1, 0, 1], "mlm_probability": 1.0})
    assert masked.places[0].tolist() == [3, 5, *[UNCOUNTED] * 5]
    assert (masked.labels[[0, 2]] == UNCOUNTED).all()
    assert np.array_equal(masked.input_ids[[0, 2]], ids[[0, 2]])
    assert masked.places[1].tolist() == [1, 3, 4, 5, 6, 7, 8]
    assert (masked.labels[1] == np.delete(ids[1], [0, 2, 9])).all()


def test_rows_without_a_target_have_none():
    masked = mask(texts_of([3, 4]), [1, 2], mlm_probability=1e-9)
    assert masked.places.tolist() == masked.labels.tolist() == [[UNCOUNTED], [UNCOUNTED]]


WORDS = {
    "wordpiece": 22,  # punctuation is a word
    "bytes": 22,
    "bytes with a space": 22,
    "metaspace": 17,
    "whole words": 17,
    "DeBERTa's": 17,
}


def tokenizer_of(kind):
    return debertas([TEXT]) if kind == "DeBERTa's" else of_kind(kind, mask_token="<mask>")


@pytest.mark.parametrize("kind", WORDS)
def test_words_begin_where_the_tokenizer_splits_or_marks_them(kind):
    tokenizer = tokenizer_of(kind)
    text = TEXT[: len(TEXT) // 3].strip()
    flags = settings(whole_word_mask=True)
    made = masking.tokenized({"t": [text, ""]}, {"text": "t"}, tokenizer, flags)
    (ids, nothing), (starts, none) = made["input_ids"], made[masking.STARTS]
    assert nothing == none == []
    assert len(starts) == len(ids)
    words = [tokenizer.decode(ids[first:last]) for first, last in spans(starts)]
    assert len(words) == pytest.approx(WORDS[kind], abs=4)
    assert len(words) <= len(ids)
    # Each word of the text begins one, and no space is within one
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for first, last in spans(starts):
        assert " " not in text[offsets[first][0] : offsets[last - 1][1]].strip()
    every = masking.tokenized({"t": [text]}, {"text": "t"}, tokenizer, settings())
    assert every[masking.STARTS] == [[1] * len(ids)]


def spans(starts):
    begins = np.flatnonzero(starts).tolist()
    return list(zip(begins, [*begins[1:], len(starts)], strict=True))


@pytest.mark.parametrize("kind", [*KINDS, "DeBERTa's"])
def test_given_words_are_the_words(kind):
    tokenizer = tokenizer_of(kind)
    rows = {"w": [["Aachen", "met", "walked", ""], ["river"]]}
    made = masking.tokenized(rows, {"words": "w"}, tokenizer, settings(whole_word_mask=True))
    assert [sum(starts) for starts in made[masking.STARTS]] == [3, 1]


def test_words_of_tokenizers_without_numbers_are_told_by_marks():
    assert masking.word_starts(["un", "##like", "##ly", "to", "##day"], None) == [1, 0, 0, 1, 0]
    assert masking.word_starts(["▁un", "like", "ly", "▁to", "day"], None) == [1, 0, 0, 1, 0]
    assert masking.word_starts(["un", "like", "Ġto", "day"], None) == [1, 0, 1, 0]
    assert masking.word_starts(["▁one", "▁te", "xt"], [0, 0, 0]) == [1, 1, 0]
    assert masking.word_starts([], None) == []


@pytest.fixture
def tokenizer():
    return of_kind("bytes", mask_token="<mask>")


def sequences(tokenizer, texts, longest=12, split="train", **given):
    flags = settings(**given)
    made = masking.tokenized({"t": texts}, {"text": "t"}, tokenizer, flags)
    return masking.sequences({split: datasets.Dataset.from_dict(made)}, tokenizer, longest, flags)[split]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_longer_texts_are_several_sequences_and_nothing_is_lost(tokenizer, caplog):
    texts = [TEXT[:90], "river", " \n", "and"]
    made = sequences(tokenizer, [*texts, ""])
    by_row = {}
    for row, ids, starts in zip(made[ROW], made["input_ids"], made[masking.STARTS], strict=True):
        assert (ids[0], ids[-1]) == (2, 3)
        assert len(ids) == len(starts) <= 12
        by_row.setdefault(row, []).extend(ids[1:-1])
    assert by_row == {number: ids_of(tokenizer, text) for number, text in enumerate(texts)}
    assert "train: 1 of 5 rows dropped, without a token to mask." in caplog.text


def test_blocks_hold_all_texts_one_behind_the_other(tokenizer):
    tokenizer.sep_token = "</s>"
    texts = [TEXT[:90], "river", "and they"]
    made = sequences(tokenizer, texts, line_by_line=False)
    assert [len(ids) for ids in made["input_ids"][:-1]] == [12] * (len(made) - 1)
    together = [token for ids in made["input_ids"] for token in ids[1:-1]]
    assert together == [token for text in texts for token in [*ids_of(tokenizer, text), 3]]
    assert ROW not in made.column_names
    assert [len(row) for row in made[masking.STARTS]] == [len(row) for row in made["input_ids"]]


def test_sequences_of_a_stream_are_those_of_the_rows(tokenizer):
    flags, texts = settings(line_by_line=False), [TEXT[:90], "river", "and they"] * 5
    made = masking.tokenized({"t": texts}, {"text": "t"}, tokenizer, flags)
    rows = datasets.Dataset.from_dict(made)
    streamed, whole = (
        masking.sequences({"train": each}, tokenizer, 12, flags)["train"]
        for each in (rows.to_iterable_dataset(), rows)
    )
    assert list(streamed) == list(whole)
    flags = settings()
    streamed, whole = (
        masking.sequences({"train": each}, tokenizer, 12, flags)["train"]
        for each in (rows.to_iterable_dataset(), rows)
    )
    assert list(streamed) == list(whole)


def test_rows_to_predict_are_filled_where_they_have_masks(tokenizer):
    texts = ["and they walked along the river <mask> and they", "and they", "<mask> walked"]
    made = sequences(tokenizer, texts, split="test", line_by_line=False)
    rows = list(zip(made[ROW], made[masking.GIVEN], made["input_ids"], strict=True))
    assert [(row, given) for row, given, _ in rows] == [(0, 1), (1, 0), (2, 1)]
    assert all((tokenizer.mask_token_id in ids) == bool(given) for _, given, ids in rows)


def test_splits_without_a_token_to_mask_are_refused(tokenizer):
    with pytest.raises(InputError, match="train: not one of 2 rows has a token that could be masked"):
        sequences(tokenizer, ["<mask>", ""])


def test_specials_are_neither_hidden_nor_put_in(tokenizer):
    known = masking.vocabulary(tokenizer)
    assert known.mask == tokenizer.mask_token_id
    assert {*known.special.tolist()} >= {0, 1, known.mask}
    assert {*known.special.tolist(), *known.plain.tolist()} == {*tokenizer.get_vocab().values()}


def line(place, label, nats, right, ids, shares):
    return [place, label, nats, right, *ids, *shares]


def test_fillings_are_scored_and_written():
    best = [[5, 6, 7, 8, 9], [0.5, 0.2, 0.1, 0.05, 0.01]]
    test = np.array(
        [line(1, 6, 2.0, 0, *best), line(3, 5, 1.0, 1, *best), line(UNCOUNTED, UNCOUNTED, 0, 0, *best)],
        np.float32,
    )
    own = np.array([line(2, UNCOUNTED, 0, 0, *best)], np.float32)
    kept = [fillings.condensed(answer) for answer in (test, own)]
    assert [each.shape for each in kept] == [(2, 14), (1, 14)]
    assert fillings.condensed(test[:, :4]).tolist() == [3.0, 1.0, 2.0]
    expected = {"perplexity": pytest.approx(np.exp(1.5)), "accuracy": 0.5}
    assert fillings.score([[kept[0]], [kept[1]], []]) == expected
    assert fillings.score([fillings.condensed(test[:, :4])]) == expected
    assert fillings.score([[kept[1]]]) == fillings.score([]) == {}
    # Of other processes they come as lists
    assert fillings.score([[kept[0].tolist()], [kept[1].tolist(), []], []]) == expected
    assert (
        fillings.score([[3.0, 1.0, 2.0]]) == fillings.score([[[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]]]) == expected
    )
    decoder = SimpleNamespace(convert_ids_to_tokens=lambda number: f"t{number}")
    heads, *lines = fillings.table([[kept[0]], [], [kept[1]]], {NUMBER: [1, 2, 4]}, decoder)
    assert heads[:3] == ["row", "filling_1", "probability_1"]
    filled = ["t5", "0.5000", "t6", "0.2000", "t7", "0.1000", "t8", "0.0500", "t9", "0.0100"]
    of_lists = fillings.table([[kept[0].tolist(), []], [], [kept[1].tolist()]], {NUMBER: [1, 2, 4]}, decoder)
    assert of_lists == [heads, *lines]
    assert lines == [[1, *filled, "t6", "2.0000"], [1, *filled, "t5", "1.0000"], [4, *filled, "", ""]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mlm_probability": 0.0}, "--mlm_probability 0: must be above 0 and at most 1"),
        ({"mlm_probability": 15.0}, "--mlm_probability 15"),
        ({"mask_replace_prob": -0.1}, "--mask_replace_prob -0.1: must be from 0 to 1"),
        ({"mask_replace_prob": 0.9, "random_replace_prob": 0.2}, "more than all together"),
        ({"words_column": "w", "text_column": "t"}, "--text_column and --words_column"),
    ],
)
def test_flags_that_make_no_sense_are_refused(given, said):
    found = arguments.MaskingArguments(dataset_name="x", **given).problems()
    assert len(found) == 1
    assert said in found[0]


def test_a_column_of_words_must_hold_lists_of_words():
    flags = arguments.MaskingArguments(dataset_name="x", words_column="w")
    good = datasets.Dataset.from_dict({"w": [["a"], ["b", "c"]]})
    assert flags.prepare(good, {"words": "w"}, "train")[0] is good
    for values in (["a"], [1], [[1]]):
        with pytest.raises(InputError, match="must hold lists of words"):
            flags.prepare(datasets.Dataset.from_dict({"w": values}), {"words": "w"}, "train")
