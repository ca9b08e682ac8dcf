"""The best spans of a window and of a row, and where there is no answer."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from triptych.arguments import DataArguments, QuestionArguments
from triptych.data import answer_spans
from triptych.data.answer_spans import Reading, best
from triptych.errors import InputError, RunError
from triptych.output import record, results
from triptych.run.evaluation import Evaluation


def by_trying_all(window, most, longest):
    """The best spans as SQuAD's decoding is defined."""
    found = [
        (window[i][2], window[j][3], window[i][0] + window[j][1])
        for i, j in itertools.product(range(len(window)), repeat=2)
        if i <= j < i + longest and window[i][2] >= 0 and window[j][3] >= 0
    ]
    return sorted(found, key=lambda one: (-one[2], one[0], one[1]))[:most]


def window_at_random(draw, length=40):
    """Logits, and places of tokens that are of the context, of which some begin or end nothing."""
    starts, ends = np.full((2, length), -100)
    places = np.arange(8, length - 5)
    starts[places], ends[places] = 3 * places, 3 * places + 2
    starts[draw.choice(places, 5)], ends[draw.choice(places, 5)] = -100, -100
    starts[0] = -1
    return np.stack([*draw.normal(size=(2, length)), starts, ends], axis=1)


@pytest.mark.parametrize(("most", "longest"), [(1, 30), (20, 30), (5, 1), (10_000, 7)])
def test_the_best_spans_are_those_found_by_trying_all(most, longest):
    draw = np.random.default_rng(0)
    for _ in range(5):
        window = window_at_random(draw)
        none, *spans = best(window, most, longest)
        assert none.tolist() == [0, 0, window[0, 0] + window[0, 1]]
        assert [tuple(span) for span in spans] == by_trying_all(window, most, longest)


def test_what_is_kept_does_not_grow_with_the_window():
    draw = np.random.default_rng(0)
    sizes = {best(window_at_random(draw, length), 20, 30).nbytes for length in (100, 1000)}
    assert sizes == {21 * 3 * 8}


def test_padding_of_any_width_changes_nothing():
    window = window_at_random(np.random.default_rng(1))
    padded = np.concatenate([window, np.tile([9.0, 9.0, -100, -100], (24, 1))])
    np.testing.assert_array_equal(best(padded.tolist(), 5, 4), best(window, 5, 4))


def test_a_window_without_a_place_for_an_answer_has_none():
    assert best([[2, 3, -1, -100], [9, 9, -100, -100]], 20, 30).tolist() == [[0, 0, 5]]


def test_spoilt_weights_end_the_run():
    with pytest.raises(RunError, match="spoilt"):
        best([[float("nan"), 1, -1, -100]], 20, 30)


TEXT = "Ada met Bo in Rome."
ADA, BO, ROME = (0, 3), (8, 10), (14, 18)


def window(none, **scores):
    places = {"ada": ADA, "bo": BO, "rome": ROME}
    spans = sorted(([*places[name], score] for name, score in scores.items()), key=lambda one: -one[2])
    return np.array([[0, 0, none], *spans], float)


def reading(**given):
    return Reading(**{"may_lack": True, "threshold": 0.0, "tunes": False, "n_best_size": 20, **given})


@pytest.mark.parametrize("order", [1, -1])
def test_a_row_has_the_best_span_of_its_windows_and_the_lowest_score_of_none(order):
    windows = [window(5, ada=2, bo=3), window(4, bo=6, rome=1)]
    answered = reading().row("7", TEXT, windows[::order])
    assert (answered.id, answered.text, answered.span, answered.null_odds) == ("7", "Bo", "Bo", -2)
    assert [one.text for one in answered.candidates] == ["Bo", "", "Ada", "Rome"]
    shares = np.exp([6, 4, 2, 1]) / np.exp([6, 4, 2, 1]).sum()
    assert [one.probability for one in answered.candidates] == pytest.approx(shares)
    assert [one.score for one in answered.candidates] == [6, 4, 2, 1]
    assert [(one.start, one.end) for one in answered.candidates] == [BO, (0, 0), ADA, ROME]


@pytest.mark.parametrize(("threshold", "text"), [(1.99, ""), (2, "Bo"), (3, "Bo")])
def test_no_answer_is_given_if_it_scores_higher_by_more_than_the_threshold(threshold, text):
    answered = reading(threshold=threshold).row("1", TEXT, [window(5, bo=3)])
    assert (answered.text, answered.span, answered.null_odds) == (text, "Bo", 2)


def test_where_every_question_has_an_answer_none_is_no_candidate():
    answered = reading(may_lack=False).row("1", TEXT, [window(50, bo=3, ada=1)])
    assert answered.text == "Bo"
    assert [one.text for one in answered.candidates] == ["Bo", "Ada"]
    assert sum(one.probability for one in answered.candidates) == pytest.approx(1)


@pytest.mark.parametrize("may_lack", [True, False])
def test_a_context_without_a_token_is_answered_with_nothing(may_lack):
    answered = reading(may_lack=may_lack).row("1", "\u200b", [window(5)])
    assert (answered.text, answered.span, answered.null_odds) == ("", "", np.inf)
    assert [one.text for one in answered.candidates] == [""]


def test_few_candidates_are_the_best():
    answered = reading(n_best_size=1).row("1", TEXT, [window(5, ada=2, bo=3), window(4, rome=9)])
    assert [one.text for one in answered.candidates] == ["Rome", ""]


def test_windows_that_other_processes_send_as_lists_are_read_alike():
    windows = [window(5, ada=2, bo=3), window(4, bo=6, rome=1)]
    sent = json.loads(json.dumps(windows, default=np.ndarray.tolist))
    assert reading().row("1", TEXT, sent) == reading().row("1", TEXT, windows)


def test_an_evaluation_keeps_of_each_answer_what_the_task_needs():
    world = SimpleNamespace(gather=lambda values: values)
    args = SimpleNamespace(predict_with_generate=False)
    logits = window_at_random(np.random.default_rng(0)).astype(np.float32)
    for data_args, kept in ((QuestionArguments(n_best_size=3), (4, 3)), (DataArguments(), logits.shape)):
        training = SimpleNamespace(args=args, data_args=data_args, world=world)
        evaluation = Evaluation("eval", training)
        evaluation.add([0, 1], 2.0, 2, [logits.tolist(), logits, logits])  # one of a batch's filling
        _, found = evaluation.result(lambda answers, rows: {}, [None, None])
        assert [one.shape for one in found] == [kept, kept]


def settled(config=None, raw=(), **flags):
    given = QuestionArguments(version_2_with_negative=True, **flags)
    return answer_spans.settle(SimpleNamespace(**config or {}), dict.fromkeys(raw), given)


def test_the_threshold_is_the_flags_or_the_models_own_or_chosen():
    kept = {answer_spans.SETTING: 1.5}
    assert settled(kept, null_score_diff_threshold=2.0).threshold == 2.0
    assert (settled(kept).threshold, settled(kept).tunes) == (0.0, False)
    assert settled(kept, null_threshold="auto").threshold == 1.5
    assert settled(raw=["validation"], null_threshold="auto").tunes
    with pytest.raises(InputError, match="keeps no threshold"):
        settled(raw=["test"], null_threshold="auto")


def test_the_chosen_threshold_is_kept_with_the_runs_own_model(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "bert"}')
    answer_spans.keep_threshold(str(tmp_path), reading(tunes=True, threshold=1.25))
    assert json.loads(config.read_text()) == {"model_type": "bert"}  # somebody else's
    record.save_run(tmp_path, {})
    record.note(tmp_path, ["config.json"])
    config.write_text('{"model_type": "bert"}')
    answer_spans.keep_threshold(str(tmp_path), reading(threshold=1.25))
    assert json.loads(config.read_text()) == {"model_type": "bert"}  # nothing was chosen
    answer_spans.keep_threshold(str(tmp_path), reading(tunes=True, threshold=1.25))
    assert json.loads(config.read_text()) == {"model_type": "bert", answer_spans.SETTING: 1.25}


def test_what_is_written_by_ids_keeps_their_order_and_all_characters(tmp_path):
    values = {"b": "東京 🙂\n“x”", "a": "", "c": float("inf")}
    results.save_by_id(tmp_path, values, "found.json")
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    assert json.loads(text) == {**values, "c": None}
    assert list(json.loads(text)) == ["b", "a", "c"]
    assert "東京 🙂" in text
