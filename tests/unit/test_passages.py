"""Windows of questions and contexts for six kinds of tokenizers: every answer keeps its letters and place."""

import itertools
import logging
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest

from triptych.data import answer_spans, passages, questions
from triptych.errors import InputError

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
datasets = pytest.importorskip("datasets")

from small_tokenizers import KINDS, of_kind  # noqa: E402

# Words of which answers begin and end in the middle of nothing
ODD = [
    "e\u0301\u0302",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "שלום",
    "नमस्ते",
    "東京タワー",
    "ﬁne",
    "ÀÉ",
    "ǅ",
    "½",
    "x" * 90,
    "don't",
    "“so”",
]
GAPS = (" ", "  ", "\u00a0", "\n", "\t ", "\u2028", "\u3000")
PLAIN = ["The", "new", "mayor", "of", "Aachen", "met", "Łukasz", "and", "Zoë", "at", "10:30,", "and", "they"]
PLAIN += ["walked", "along", "the", "river-bank."]


def for_pairs(kind, ends=("<s>", "</s>"), **keywords):
    """A tokenizer that puts the first of `ends` before a pair, and the second behind each part of it."""
    tokenizer = of_kind(kind, ends=None, **keywords)
    backend = tokenizer.backend_tokenizer
    if ends:
        begin, end = ends
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            pair=f"{begin} $A {end} $B:1 {end}:1",
            special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys(ends)],
        )
        tokenizer.cls_token = begin
    return tokenizer


def flags(**given):
    return SimpleNamespace(**{"doc_stride": 6, "max_seq_length": None, **given})


def rows_of(draw, number):
    """Contexts of ordinary and odd words, and the start and end of each."""
    found = []
    for _ in range(number):
        text, places = "", []
        for _ in range(draw.randint(1, 40)):
            word = draw.choice(ODD) if draw.random() < 0.3 else draw.choice(PLAIN)
            text += draw.choice(GAPS) if draw.random() < 0.95 else "  \n"
            places.append((len(text), len(text) + len(word)))
            text += word
        found.append((text + draw.choice(GAPS), places))
    return found


def answer(text, start, end):
    return {"text": [text[start:end]], "start": [start]}


def windows_of(found, row):
    return [number for number, other in enumerate(found["row"]) if other == row]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_target_of_every_answer_is_its_letters(kind, side):
    """One answer a row, of some words: tokens that begin and end at its characters, in each window that holds
    all of it; as `text == context[start:end]`."""
    draw = random.Random(2)
    tokenizer = for_pairs(kind, padding_side=side)
    rows = rows_of(draw, 60)
    wanted = []
    for text, places in rows:
        first = draw.randrange(len(places))
        last = min(len(places) - 1, first + draw.randint(0, 3))
        wanted.append(answer(text, places[first][0], places[last][1]))
    asked = ["Who  met? "] * len(rows)
    texts = [text for text, _ in rows]
    longest = 32 if kind not in ("wordpiece", "characters", "bytes", "bytes with a space") else 64
    found = passages.cut(asked, texts, wanted, tokenizer, flags(), longest)
    assert max(map(len, found["input_ids"])) <= longest
    assert len(found["input_ids"]) > len(rows)
    held = 0
    for row, (text, gold) in enumerate(zip(texts, wanted, strict=True)):
        for number in windows_of(found, row):
            starts, ends = found["starts"][number], found["ends"][number]
            first, last = found["start_positions"][number], found["end_positions"][number]
            if found[passages.HELD][number]:
                held += 1
                assert first <= last
                assert text[starts[first] : ends[last]] == gold["text"][0]
                assert starts[first] == gold["start"][0]
            else:
                assert first == last == starts.index(questions.NO_ANSWER)
                assert found["input_ids"][number][first] == tokenizer.cls_token_id
    assert held > 40


@pytest.mark.parametrize("kind", KINDS)
def test_no_letter_is_lost_or_added_by_any_span_of_words(kind):
    """The places where answers may begin are starts of words or within them, never white space, and every
    word of the context that has a token of its own can be answered as it stands."""
    tokenizer = for_pairs(kind)
    rows = rows_of(random.Random(3), 30)
    found = passages.cut(["Who?"] * 30, [text for text, _ in rows], None, tokenizer, flags(), 512)
    for number, (text, places) in enumerate(rows):
        starts, ends = found["starts"][number], found["ends"][number]
        begins = [place for place in starts if place >= 0]
        assert len(begins) == len(set(begins)), "an answer that begins at two tokens"
        assert all(not text[place].isspace() for place in begins)
        behind = [place for place in ends if place >= 0]
        assert len(behind) == len(set(behind))
        assert all(not text[place - 1].isspace() for place in behind)
        assert {start for start, _ in places} <= set(begins)
        assert {end for _, end in places} <= set(behind)
        assert found["start_positions"][number] == found["end_positions"][number] == -100


@pytest.mark.parametrize("kind", KINDS)
def test_every_prediction_is_what_stands_at_its_place(kind):
    """Of logits at random: whatever a model says, an answer is a stripped part of its context."""
    tokenizer = for_pairs(kind)
    rows = rows_of(random.Random(4), 30)
    texts = [text for text, _ in rows]
    found = passages.cut(["Who?"] * 30, texts, None, tokenizer, flags(), 40)
    reading = answer_spans.Reading(may_lack=True, threshold=1e9, tunes=False, n_best_size=5)
    draw = np.random.default_rng(0)
    seen = 0
    for row, text in enumerate(texts):
        kept = []
        for number in windows_of(found, row):
            places = np.array([found["starts"][number], found["ends"][number]])
            logits = draw.normal(size=places.shape)
            kept.append(answer_spans.best(np.concatenate([logits, places]).T, 5, 8))
        answered = reading.row("1", text, kept)
        for one in answered.candidates:
            assert one.text == text[one.start : one.end] == one.text.strip()
            seen += bool(one.text)
        assert answered.text == answered.span != ""
    assert seen >= 100


def test_windows_overlap_by_the_stride_and_hold_the_whole_question():
    tokenizer = for_pairs("whole words")
    text = " ".join(PLAIN * 5)
    found = passages.cut(["mayor of Aachen?"], [text], None, tokenizer, flags(doc_stride=3), 20)
    ids = found["input_ids"]
    assert len(ids) == -(
        -(len(PLAIN) * 5 - 3) // (14 - 3)
    )  # of 20 tokens 3 are the tokenizer's, 3 the question's
    assert {tuple(one[:5]) for one in ids} == {tuple(ids[0][:5])}
    assert all(one[-4:-1] == two[5:8] for one, two in itertools.pairwise(ids))
    assert found["row"] == [0] * len(ids)


def test_the_context_comes_first_where_padding_does():
    tokenizer = for_pairs("whole words", padding_side="left")
    gold = answer("mayor of Aachen", 0, 5)
    found = passages.cut(["Who?"], ["mayor of Aachen"], [gold], tokenizer, flags(), 20)
    assert found["starts"][0][1:4] == [0, 6, 9]
    assert (found["start_positions"], found["end_positions"]) == ([1], [1])


def test_without_a_cls_no_answer_is_the_first_token_that_is_not_of_the_context():
    tokenizer = for_pairs("whole words", ends=None)
    found = passages.cut(["mayor of"], ["Aachen"], [{"text": [], "start": []}], tokenizer, flags(), 20)
    assert (found["start_positions"], found["end_positions"], found["starts"]) == ([0], [0], [[-1, -100, 0]])
    tokenizer.padding_side = "left"
    found = passages.cut(["mayor of"], ["Aachen"], [{"text": [], "start": []}], tokenizer, flags(), 20)
    assert (found["start_positions"], found["starts"]) == ([1], [[0, -1, -100]])


def test_rows_whose_answers_are_not_known_do_not_count():
    tokenizer = for_pairs("whole words")
    gold = [None, answer("Aachen", 0, 6), {"text": [], "start": []}]
    found = passages.cut(["Who?"] * 3, ["Aachen"] * 3, gold, tokenizer, flags(), 20)
    assert found["start_positions"] == [-100, 3, 0]
    assert found[passages.HELD] == [False, True, False]


def test_nothing_becomes_nothing():
    assert passages.cut([], [], [], for_pairs("bytes"), flags(), 20)["input_ids"] == []


def raw(rows):
    return {"train": datasets.Dataset.from_list(rows)}


def test_questions_that_leave_no_room_are_told_with_their_rows_and_the_flag():
    tokenizer = for_pairs("whole words")
    long, text = "Who? " * 30, " ".join(PLAIN)
    rows = [(long, text), ("Who?", text), (long, "a b"), ("Who? " * 12, text), ("Who? " * 12, "mayor of")]
    given = raw([{"question": question, "context": context} for question, context in rows])
    with pytest.raises(InputError) as caught:
        passages.require_room(given, tokenizer, 20, flags())
    assert len(caught.value.problems) == 3
    for row, tokens, left, problem in zip(
        (1, 3, 4), (30, 30, 12), (0, 0, 5), caught.value.problems, strict=True
    ):
        assert problem.startswith(f"train, row {row} ")
        assert f"has {tokens} tokens" in problem
        assert f"--max_seq_length 20 that leaves {left} for the context" in problem
        assert "--doc_stride 6" in problem
    with pytest.raises(InputError, match="has 30 tokens"):  # as rows of a stream come
        passages.cut([long], [text], None, tokenizer, flags(), 20)


def test_a_stride_that_is_too_large_is_told_with_what_is_possible():
    tokenizer = for_pairs("whole words")
    config = SimpleNamespace(model_type="bert", max_position_embeddings=160, pad_token_id=0)
    assert passages.max_length(tokenizer, config, flags(doc_stride=128)) == 160
    shared = [passages.stride(length, flags(doc_stride=None)) for length in (30, 384, 512)]
    assert shared == [10, 128, 128]
    config.max_position_embeddings = 512
    assert passages.max_length(tokenizer, config, flags(doc_stride=128)) == 384
    assert passages.max_length(tokenizer, config, flags(max_seq_length=133, doc_stride=128)) == 133
    with pytest.raises(InputError, match=r"--doc_stride 128: .* may share 127 at most"):
        passages.max_length(tokenizer, config, flags(max_seq_length=132, doc_stride=128))


def test_answers_that_no_window_holds_are_counted_out_loud(caplog):
    tokenizer, text = for_pairs("whole words"), " ".join(PLAIN * 3)
    gold = [answer(text, 0, 3), answer(text, 0, 80), answer(text, 4, 7)]
    rows = [{"question": "Who?", "context": text, "answers": one} for one in gold]
    made = passages.cut(["Who?"] * 3, [text] * 3, gold, tokenizer, flags(), 14)
    features = {"train": datasets.Dataset.from_dict(made)}
    with caplog.at_level(logging.WARNING):
        passages.tell_answers_outside(raw(rows), features)
    (told,) = caplog.messages
    assert told.startswith("train: 1 of 3 answers lie in no window")
    assert "row 2" in told
    assert re.search(r"--doc_stride|--max_seq_length", told)
