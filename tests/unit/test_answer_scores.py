"""Scores of answers by SQuAD's rules, by values worked out by hand, and the threshold for no answer."""

import random

import numpy as np
import pytest

from triptych import data, metrics
from triptych.data.answer_spans import Reading
from triptych.metrics import answer_scores
from triptych.metrics.answer_scores import best_threshold, exact, f1, normalized

datasets = pytest.importorskip("datasets")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("an apple, a day", "apple day"),
        ("theatre of A.N. Other", "theatre of other"),  # "A.N." without its dots is an article, as in SQuAD
        ("U.S.", "us"),
        ("$12 million", "12 million"),
        ("«Łódź»", "«łódź»"),  # of punctuation only ASCII's goes
        ("the", ""),
        ("\u00a0x\n", "x"),
    ],
)
def test_texts_are_compared_without_what_does_not_matter(text, expected):
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("prediction", "answer", "same", "alike"),
    [
        ("in Paris", "Paris", 0, 2 / 3),
        ("The Paris.", "paris", 1, 1),
        ("a b b c", "b b d", 0, 2 * 2 / (3 + 3)),  # "a" is an article
        ("Rome", "Paris", 0, 0),
        ("", "Paris", 0, 0),
        ("", "", 1, 1),
    ],
)
def test_exact_match_and_f1_by_hand(prediction, answer, same, alike):
    assert exact(prediction, answer) == same
    assert f1(prediction, answer) == pytest.approx(alike)


def test_the_best_of_several_answers_counts():
    found = metrics.load("squad").compute(
        predictions=["in Paris", "Rome", "the"], references=[["London", "Paris"], ["the Rome"], ["an"]]
    )
    # of two texts that are articles alone the first version's F1 is 0
    assert found == {"exact_match": pytest.approx(200 / 3), "f1": pytest.approx(100 * (2 / 3 + 1) / 3)}


def test_both_kinds_of_questions_are_scored_apart():
    found = metrics.load("squad_v2").compute(
        predictions=["in Paris", "", "Oslo", ""],
        references=[["Paris"], ["Rome"], [], []],
        spans=["in Paris", "Rome", "Oslo", "Bonn"],
        null_odds=[-2.0, 1.0, -1.0, 3.0],
    )
    assert found == {
        "exact": 25,
        "f1": pytest.approx(100 * (2 / 3 + 1) / 4),
        "total": 4,
        "HasAns_exact": 0,
        "HasAns_f1": pytest.approx(100 / 3),
        "HasAns_total": 2,
        "NoAns_exact": 50,
        "NoAns_f1": 50,
        "NoAns_total": 2,
        # no answer above 2: Rome and none of Bonn are right, Oslo is not
        "best_exact": 50,
        "best_exact_thresh": -3,  # as good: no answer to all
        "best_f1": pytest.approx(100 * (2 / 3 + 2) / 4),
        "best_f1_thresh": -1.5,
    }


def test_a_set_of_one_kind_has_the_scores_of_that_kind():
    found = metrics.load("squad_v2").compute(
        predictions=[""], references=[["the"]], spans=["x"], null_odds=[1.0]
    )
    assert (found["exact"], found["NoAns_exact"], found["NoAns_total"]) == (100, 100, 1)  # "the" is no answer
    assert "HasAns_exact" not in found


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_is_that_found_by_trying_all(seed):
    draw = random.Random(seed)
    texts = ["x", "y", "x y"]
    rows = [
        (
            draw.choice(texts),
            [draw.choice(texts)] if draw.random() < 0.6 else [],
            draw.choice([-2.0, -1.0, 0.5, 3.0]),
        )
        for _ in range(draw.randint(1, 12))
    ]
    spans, references, odds = zip(*rows, strict=True)

    def mean(threshold):
        decided = [span if odd <= threshold else "" for span, odd in zip(spans, odds, strict=True)]
        return np.mean([max(f1(a, b) for b in bs or [""]) for a, bs in zip(decided, references, strict=True)])

    highest, threshold = best_threshold(spans, references, odds, f1)
    assert mean(threshold) == pytest.approx(highest)
    tried = [(mean(one), one) for one in (-9.0, -2.0, -1.0, 0.5, 3.0)]
    assert highest == pytest.approx(max(tried)[0])
    assert all(abs(threshold - odd) >= 0.5 for odd in odds), "rounding could move a row across the threshold"


def test_rows_that_cannot_be_answered_choose_nothing():
    assert best_threshold(["", ""], [[], ["x"]], [np.inf, np.inf], f1) == (0.5, 0.0)
    assert best_threshold(["", "x"], [["y"], ["x"]], [np.inf, 2.0], f1) == (0.5, 3.0)


TEXT = "Ada met Bo."
WINDOWS = [[np.array([[0, 0, none], [8, 10, 0.0]])] for none in (-3.0, 1.0, 2.0)]


BO, ADA = ({"text": [text], "start": [TEXT.index(text)]} for text in ("Bo", "Ada"))
NOTHING: dict = {"text": [], "start": []}


def rows(**more):
    return datasets.Dataset.from_dict({"id": ["1", "2", "3"], "context": [TEXT] * 3, **more})


def test_rows_to_evaluate_choose_the_threshold_and_rows_to_predict_are_read_by_it():
    reading = Reading(may_lack=True, threshold=0.0, tunes=True, n_best_size=20)
    asked = rows(answers=[BO, BO, NOTHING])
    found = answer_scores.score(WINDOWS, asked, reading)
    assert (found["exact"], found["best_exact"], reading.threshold) == (100, 100, 1.5)
    to_predict = asked.add_column(data.NUMBER, [1, 2, 3])
    reading.threshold = -9.0
    found = answer_scores.score(WINDOWS, to_predict, reading)
    assert (found["exact"], found["best_exact"]) == (pytest.approx(100 / 3), 100)
    assert reading.threshold == -9.0


def test_rows_whose_answers_are_not_known_are_not_scored():
    reading = Reading(may_lack=False, threshold=0.0, tunes=False, n_best_size=20)
    assert answer_scores.score(WINDOWS, rows(), reading) == {}
    asked = rows(answers=[ADA, NOTHING, None])
    assert answer_scores.score(WINDOWS, asked, reading) == {"exact_match": 0, "f1": 0}


def test_a_metric_for_the_best_checkpoint_is_one_of_the_metrics():
    from triptych.arguments import QuestionArguments

    both = set(metrics.load("squad").compute(predictions=["a"], references=[["a"]]))
    both |= set(
        metrics.load("squad_v2").compute(
            predictions=["x", ""], references=[["x"], []], spans=["x", "x"], null_odds=[0.0, 1.0]
        )
    )
    assert set(QuestionArguments.scores) <= both
