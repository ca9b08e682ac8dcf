"""Entities from tags, their scores by hand, by seqeval and by scikit-learn, and the files of tagged words."""

import json
import random

import numpy as np
import pytest

from triptych import data, metrics
from triptych.data import schemes
from triptych.data.tag_schema import Tags
from triptych.metrics.tags import OTHERS, by_label, confusion, score
from triptych.output import pictures, results, tagged

pytest.importorskip("evaluate")
datasets = pytest.importorskip("datasets")

NAMES = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@pytest.mark.parametrize(
    ("scheme", "tags", "entities"),
    [
        ("iob2", "B-A I-A O B-A B-A I-B", [(0, 2, "A"), (3, 4, "A"), (4, 5, "A"), (5, 6, "B")]),
        ("iob2", "I-A O I-A I-A B-A", [(0, 1, "A"), (2, 4, "A"), (4, 5, "A")]),
        ("iob1", "I-A I-A B-A I-A I-B O B-B", [(0, 2, "A"), (2, 4, "A"), (4, 5, "B"), (6, 7, "B")]),
        ("iobes", "S-A S-A B-A I-A E-A B-B E-B", [(0, 1, "A"), (1, 2, "A"), (2, 5, "A"), (5, 7, "B")]),
        ("iobes", "E-A E-A I-A S-A B-B", [(0, 1, "A"), (1, 2, "A"), (2, 3, "A"), (3, 4, "A"), (4, 5, "B")]),
        ("iobes", "O I-A E-B B-B E-A", [(1, 2, "A"), (2, 3, "B"), (3, 4, "B"), (4, 5, "A")]),
        ("iobes", "B-A M-A E-A W-A W-A", [(0, 3, "A"), (3, 4, "A"), (4, 5, "A")]),
        ("bilou", "U-A U-A B-A I-A L-A O L-B", [(0, 1, "A"), (1, 2, "A"), (2, 5, "A"), (6, 7, "B")]),
        ("none", "A A B O B B O", [(0, 2, "A"), (2, 3, "B"), (4, 6, "B")]),
        ("none", "B-A I-A", [(0, 1, "B-A"), (1, 2, "I-A")]),
        ("iob2", "B I O B-A-1 I-A-1 I-A-2", [(0, 2, "_"), (3, 5, "A-1"), (5, 6, "A-2")]),
        ("iob2", "S-A X-A PER", []),
        ("iob2", "", []),
    ],
)  # fmt: skip
def test_entities_of_each_scheme_are_read(scheme, tags, entities):
    assert schemes.extract(tags.split(), scheme) == entities


REFERENCES = ["B-PER I-PER O B-LOC", "B-LOC O O", "O B-PER O"]
PREDICTIONS = ["B-PER I-PER O B-PER", "I-LOC O B-LOC", "O O O"]
# Entities: 4 there; 4 predicted; right are PER 0-2 of row 1 and LOC 0-1 of row 2, though begun by I-.
# PER: 1 of 2 predicted, 1 of 2 there; LOC: 1 of 2, 1 of 2. Words: right are 3 + 1 + 2 of 10.


def split(rows):
    return [row.split() for row in rows]


def test_scores_are_those_worked_out_by_hand():
    found = metrics.load("entities").compute(
        predictions=split(PREDICTIONS), references=split(REFERENCES), scheme="iob2"
    )
    expected = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "f1_macro": 0.5, "accuracy": 0.6}
    assert found == pytest.approx(expected)
    found = metrics.load("entities").compute(
        # S at 0, B-E at 1-3 there. Predicted: S, S, S.
        predictions=[["S-A", "S-A", "S-B"]],
        references=[["S-A", "B-A", "E-A"]],
        scheme="iobes",
    )
    expected = {
        "precision": 1 / 3,
        "recall": 1 / 2,
        "f1": 2 / 5,
        "f1_macro": (1 / 2 + 0) / 2,
        "accuracy": 1 / 3,
    }
    assert found == pytest.approx(expected)
    # A word and two behind it, of one type; predicted are three words.
    for scheme, there, predicted, accuracy in (
        ("iob1", "I-A B-A I-A", "I-A B-A B-A", 2 / 3),
        ("bilou", "U-A B-A L-A", "U-A U-A U-A", 1 / 3),
        ("iob2", "B-A B-A I-A", "B-A B-A B-A", 2 / 3),
    ):
        found = metrics.load("entities").compute(
            predictions=[predicted.split()], references=[there.split()], scheme=scheme
        )
        assert found == pytest.approx(
            {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "f1_macro": 2 / 5, "accuracy": accuracy}
        )


def test_nothing_to_divide_by_is_0():
    found = metrics.load("entities").compute(predictions=[["O"]], references=[["O"]], scheme="iob2")
    assert found == {"precision": 0, "recall": 0, "f1": 0, "f1_macro": 0, "accuracy": 1}
    found = metrics.load("entities").compute(predictions=[["B-A"]], references=[["O"]], scheme="iob2")
    assert found["f1"] == found["accuracy"] == 0


def test_rows_of_different_lengths_are_no_scores():
    with pytest.raises(ValueError, match="zip"):
        metrics.load("entities").compute(predictions=[["O"]], references=[["O", "O"]], scheme="iob2")


def drawn(draw, letters, kinds=("A", "B", "C-D")):
    names = ["O", "O", "O", *(f"{letter}-{kind}" for letter in letters for kind in kinds)]
    return [draw.choices(names, k=draw.randint(1, 12)) for _ in range(60)]


def disturbed(draw, rows):
    return [[draw.choice(row) if draw.random() < 0.3 else tag for tag in row] for row in rows]


@pytest.mark.parametrize(
    ("scheme", "letters", "translate"),
    [
        ("iob1", "BI", str),
        ("iob2", "BI", str),
        ("iobes", "BIES", str),
        # The letters that seqeval's default mode knows
        ("bilou", "BILU", lambda tag: {"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:]),
        ("none", "BI", lambda tag: tag if tag == "O" else f"I-{tag}"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_entities_and_scores_are_those_of_seqeval(scheme, letters, translate):
    import seqeval.metrics as seqeval
    from seqeval.metrics.sequence_labeling import get_entities

    draw = random.Random(5)
    for _ in range(10):
        references = drawn(draw, letters)
        predictions = disturbed(draw, references)
        theirs = [[[translate(tag) for tag in row] for row in rows] for rows in (references, predictions)]
        for row, translated in zip(references, theirs[0], strict=True):
            expected = [(first, last + 1, kind) for kind, first, last in get_entities(translated)]
            assert schemes.extract(row, scheme) == expected
        found = metrics.load("entities").compute(
            predictions=predictions, references=references, scheme=scheme
        )
        assert found == pytest.approx(
            {
                "precision": seqeval.precision_score(*theirs),
                "recall": seqeval.recall_score(*theirs),
                "f1": seqeval.f1_score(*theirs),
                "f1_macro": seqeval.f1_score(*theirs, average="macro"),
                "accuracy": seqeval.accuracy_score(*theirs),
            }
        )


def test_scores_of_words_are_those_of_scikit_learn():
    import sklearn.metrics as sklearn

    draw = random.Random(6)
    references = drawn(draw, "XYZ")
    predictions = disturbed(draw, references)
    flat = [[tag for row in rows for tag in row] for rows in (references, predictions)]
    schema = Tags("tags", tuple(sorted(set(flat[0]))), "none", marks_entities=False)
    expected = {
        "accuracy": sklearn.accuracy_score(*flat),
        "f1_macro": sklearn.f1_score(*flat, average="macro"),
    }
    assert score((predictions, references), schema) == pytest.approx(expected)
    scores = by_label((predictions, references), schema)
    each = sklearn.precision_recall_fscore_support(*flat, labels=schema.names)
    assert list(scores) == list(schema.names)
    for name, *four in zip(schema.names, *each, strict=True):
        assert list(scores[name].values()) == pytest.approx(four)
    matrix = sklearn.confusion_matrix(*flat, labels=schema.names)
    counts = confusion((predictions, references), schema)
    found = [[counts[row]["predicted"].get(name, 0) for name in schema.names] for row in schema.names]
    assert found == matrix.tolist()


def test_scores_by_label_are_of_types():
    schema = Tags("tags", (*NAMES, "B-MISC"), "iob2")
    scored = (split(PREDICTIONS), split(REFERENCES))
    half = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    nothing = {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert by_label(scored, schema) == {"LOC": half, "PER": half, "MISC": nothing}
    assert list(by_label(scored, schema)) == ["LOC", "PER", "MISC"]
    assert score(scored, schema)["f1_macro"] == 0.5, "a type that is nowhere does not count"
    assert by_label(None, schema) == score(None, schema) == confusion(None, schema) == {}


def test_confusion_is_of_types_by_word():
    schema = Tags("tags", NAMES, "iob2")
    found = confusion((split(PREDICTIONS), split(REFERENCES)), schema)
    assert found == {
        "O": {"predicted": {"O": 4, "LOC": 1}},
        "LOC": {"predicted": {"LOC": 1, "PER": 1}},
        "PER": {"predicted": {"PER": 2, "O": 1}},
    }


def test_many_labels_are_still_drawn(tmp_path):
    names = tuple(f"T{number}" for number in range(50))
    references = [[name for number, name in enumerate(names) for _ in range(50 - number)]]
    predictions = [[*references[0][1:], names[0]]]
    schema = Tags("tags", names, "none", marks_entities=False)
    found = confusion((predictions, references), schema)
    assert list(found) == [*names[:29], OTHERS]
    assert sum(count for row in found.values() for count in row["predicted"].values()) == len(references[0])
    assert found[OTHERS]["predicted"] == {OTHERS: 230, "T0": 1}
    pictures.save_confusion(tmp_path, found, "words")
    assert (tmp_path / "confusion_matrix.png").stat().st_size > 10_000


def tagged_row(tokens, tags, probabilities, text="", offsets=()):
    return tagged.Tagged(7, text, tokens, offsets, tags, np.array(probabilities, np.float32))


def test_lines_of_words_and_tags_hold_one_each_whatever_it_is():
    odd = "a\tb\nc\u2028d\x85e"
    rows = [tagged_row(["Aachen", odd], ["B-LOC", "B-no place"], [0.98766, 1]), tagged_row(["x"], ["O"], [1])]
    assert tagged.conll_lines(rows) == [
        "Aachen\tB-LOC\t0.9877",
        "a b c d e\tB-no place\t1.0000",
        "",
        "x\tO\t1.0000",
        "",
    ]
    assert tagged.tag_lines(rows) == ["B-LOC B-no_place", "O"]


def test_entities_have_places_in_the_text_and_the_product_of_their_words(tmp_path):
    text = "In  New York,\u2028Zoë's 👩‍👩‍👧 home"
    words = ["In", "New", "York", ",", "Zoë's", "👩‍👩‍👧", "home"]
    offsets, end = [], 0
    for word in words:
        start = text.index(word, end)
        end = start + len(word)
        offsets.append((start, end))
    tags = ["O", "B-LOC", "I-LOC", "O", "B-PER", "I-PER", "O"]
    row = tagged_row(words, tags, [1, 0.5, 0.25, 1, 0.5, 1, 1], text, offsets)
    wide = {"text": "a\u2028b\x85c\nd", "label": "Zoë"}
    lines = [tagged.json_line(wide), *tagged.entity_lines([row], "iob2")]
    results.save_predictions(tmp_path, lines, "entities.jsonl")
    lines = (tmp_path / "entities.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        wide,
        {"row": 7, "start": 4, "end": 12, "label": "LOC", "text": "New York", "probability": 0.125},
        {"row": 7, "start": 14, "end": 25, "label": "PER", "text": "Zoë's 👩‍👩‍👧", "probability": 0.5},
    ]
    assert "Zoë" in lines[0]


@pytest.mark.parametrize("of_text", [True, False])
def test_tags_of_a_row_go_with_its_words_and_its_own_text_or_that_of_the_words(of_text):
    text = "  Ada,\tBonn"
    columns = {"tokens": "tokens"} | ({"text": "text"} if of_text else {})
    rows = datasets.Dataset.from_dict(
        {"text": [text], "tokens": [["Ada", ",", "Bonn"]], data.NUMBER: [4], data.TOTAL: [9]}
    )
    windows = [[[0, 0.1, 0.9], [-100, 0.5, 0.5]], [[2, 0.25, 0.75]]]
    (row,) = tagged.of_answers([windows], rows, columns, Tags("tags", ("O", "B-X"), "iob2"))
    assert (row.number, row.text) == (4, text if of_text else "Ada , Bonn")
    assert [row.text[start:end] for start, end in row.offsets] == ["Ada", ",", "Bonn"]
    assert row.tags == ["B-X", "O", "B-X"]
    assert row.probabilities.tolist() == pytest.approx([0.9, 1, 0.75])
