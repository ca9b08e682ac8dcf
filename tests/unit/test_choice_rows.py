import json

import pytest

from triptych import data
from triptych.arguments import ChoiceArguments, TrainingArguments
from triptych.data import choice_rows, choices
from triptych.errors import InputError

datasets = pytest.importorskip("datasets")

FOUR = ["red", "green", "blue", "grey"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def put(name, rows):
    with open(name, "w") as file:
        if name.endswith("csv"):
            names = list(rows[0])
            lines = [names, *[["" if row[n] is None else str(row[n]) for n in names] for row in rows]]
            file.writelines(",".join(line) + "\n" for line in lines)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return name


def load(suffix="jsonl", streaming=False, flags=None, **splits):
    """The rows of splits as `preprocess` gets them, their targets, and the choices' schema."""
    given = {f"{split}_file": put(f"{split}.{suffix}", rows) for split, rows in splits.items()}
    phases = {"train": "do_train", "validation": "do_eval", "test": "do_predict"}
    arguments = ChoiceArguments(**given, **(flags or {}), streaming=streaming)
    assert arguments.problems() == []
    args = TrainingArguments(max_steps=1, **{phases[split]: True for split in splits})
    raw, columns = data.load(arguments, args)
    schema = choices.settle(raw, columns)
    found = {split: list(rows) for split, rows in raw.items()}
    targets = {
        split: schema.encode([row["label"] for row in rows]) if "label" in rows[0] else None
        for split, rows in found.items()
    }
    return found, targets, schema


def problems(**given) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(**given)
    return caught.value.problems


def rows_of(labels, **columns):
    return [
        {"question": f"q{n}", "choices": FOUR, "label": label} | columns for n, label in enumerate(labels)
    ]


def numbered(labels):
    """With a column for each choice."""
    own = {f"choice{number}": text for number, text in enumerate(FOUR, 1)}
    return [{"question": f"q{n}", **own, "label": label} for n, label in enumerate(labels)]


LABELS = {
    "numbers from 0": ([0, 3, 1], [0, 3, 1]),
    "numbers from 1": ([1, 4, 2], [0, 3, 1]),
    "numbers as text": (["0", "3", "1"], [0, 3, 1]),
    "letters": (["A", "D", "B"], [0, 3, 1]),
    "small letters in brackets": (["(a)", "d.", "b"], [0, 3, 1]),
    "texts": (["red", " grey", "green"], [0, 3, 1]),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("made", [rows_of, numbered], ids=["list", "columns"])
def test_labels_of_every_kind(kind, made):
    labels, places = LABELS[kind]
    found, targets, _ = load(train=made(labels))
    assert targets["train"] == places
    assert [row["choices"] for row in found["train"]] == [FOUR] * 3
    assert [row["question"] for row in found["train"]] == [["", f"q{n}"] for n in range(3)]


def test_the_known_dataset_says_where_numbers_begin():
    swag = {"sent1": "a", "sent2": "b", **{f"ending{n}": text for n, text in enumerate(FOUR)}}
    found, targets, _ = load(train=[{**swag, "label": 2}, {**swag, "label": 1}])
    assert targets["train"] == [2, 1]  # which might be from 1 as well
    assert found["train"][0]["question"] == ["a", "b"]
    social = {"context": "a", "question": "b", "answerA": "x", "answerB": "y", "answerC": "z"}
    assert load(suffix="csv", train=[{**social, "label": 2}])[1]["train"] == [1]
    (problem,) = problems(train=[{**swag, "label": 4}])
    assert "train, row 1: the label '4' is beyond the choices, of which there are 4" in problem
    assert "counted from 0 as in SWAG" in problem
    assert load(train=[{**swag, "label": 4}], flags={"first_choice_number": 1})[1]["train"] == [3]


def test_numbers_count_alike_in_all_splits():
    _, targets, schema = load(train=rows_of([1, 2, 4]), validation=rows_of([2, 1]), test=rows_of([3]))
    assert schema.first == 1
    assert targets == {"train": [0, 1, 3], "validation": [1, 0], "test": [2]}
    (problem,) = problems(train=rows_of([1, 4]), validation=rows_of([0, 2]))
    assert "The labels of validation count the choices from 0, those of train from 1" in problem
    (problem,) = problems(train=rows_of([1, 2]), validation=rows_of([3]))
    assert "--first_choice_number" in problem
    assert load(train=rows_of([1, 2]), flags={"first_choice_number": 0})[1]["train"] == [1, 2]


def test_digits_may_be_texts():
    years = ["1984", "1985", "1986"]
    assert load(train=rows_of(["1985", "1984"], choices=years))[1]["train"] == [1, 0]
    assert load(train=rows_of(["2", "1"], choices=["1", "2"]))[1]["train"] == [1, 0]  # the same either way
    (problem,) = problems(train=rows_of(["2", "3"], choices=["3", "2", "1"]))
    assert "may be numbers of choices or their texts" in problem
    # A number of JSON is none of a text.
    assert load(train=rows_of([0, 2], choices=["3", "2", "1"]))[1]["train"] == [0, 2]


@pytest.mark.parametrize("of_rows", [True, False])
def test_choices_with_labels_of_their_own(of_rows):
    """ARC numbers some rows' choices and gives letters to those of others."""

    def row(keys, label):
        both = {"label": list(keys), "text": FOUR[: len(keys)]}
        each = [{"label": key, "text": text} for key, text in zip(keys, FOUR, strict=False)]
        return {"question": "q", "choices": each if of_rows else both, "answerKey": label}

    found, targets, _ = load(train=[row("ABCD", "C"), row("1234", "1"), row("ABC", "B")])
    assert targets["train"] == [2, 0, 1]
    assert [len(one["choices"]) for one in found["train"]] == [4, 4, 3]
    (problem,) = problems(train=[row("ABCD", "C"), row("ABC", "D")])
    assert problem == "train, row 2: the label 'D' is none of A, B, C."


def test_classes_count_from_0():
    features = datasets.Features(
        question=datasets.Value("string"),
        choices=datasets.List(datasets.Value("string")),
        answer=datasets.ClassLabel(names=list("ABCD")),
    )
    rows = {"question": ["q", "r"], "choices": [FOUR, FOUR], "answer": [1, 3]}
    rows = datasets.Dataset.from_dict(rows, features=features)
    columns = {"question": "question", "choices": "choices", "label": "answer"}
    made, roles = choice_rows.prepare(rows, columns, "train", ChoiceArguments())
    assert made["label"][:] == ["place 1", "place 3"]
    assert roles.keys() == {"where", "question", "choices", "label"}


def test_rows_have_different_numbers_of_choices():
    """In a table, whose fields behind the last choice are empty."""
    rows = numbered(["A", "C", "B"])
    rows[0]["choice4"] = rows[2]["choice4"] = rows[2]["choice3"] = None
    found, targets, _ = load(suffix="csv", train=rows)
    assert [row["choices"] for row in found["train"]] == [FOUR[:3], FOUR, FOUR[:2]]
    assert targets["train"] == [0, 2, 1]


def test_everything_wrong_is_told_at_once_with_its_row():
    good = rows_of(["A"] * 8)
    rows = [
        *good,
        {"question": "q", "choices": FOUR, "label": "E"},
        {"question": "q", "choices": ["alone"], "label": "A"},
        {"question": "q", "choices": ["a", "", "c"], "label": "A"},
        {"question": "q", "choices": FOUR, "label": None},
        {"question": "q", "choices": FOUR, "label": "red"},
    ]
    held_out = rows_of(["A", "B", "", "F"])
    found = problems(train=rows, validation=held_out)
    expected = {
        "train, row 9": "'E' is beyond the choices, of which there are 4",
        "train, row 10": "a single choice",
        "train, row 11": "choice 2 is empty, but choice 3 is not",
        "train, row 12": "the label is missing",
        "train, row 13": "'red' is no letter",
        "validation, row 3": "the label is missing",
        "validation, row 4": "'F' is beyond",
    }
    assert len(found) == len(expected)
    for problem, (where, what) in zip(found, expected.items(), strict=True):
        assert problem.startswith(f"{where}: ")
        assert what in problem


def test_values_of_another_kind():
    (problem,) = problems(train=[{"question": "q", "choices": "a, b", "label": "A"}])
    assert 'a list of choices was expected, not "a, b"; columns of a choice each' in problem
    (problem,) = problems(train=[{"question": ["q"], "choices": FOUR, "label": "A"}])
    assert "the question must be text" in problem
    found = problems(train=rows_of([0, 5, -2]))
    assert len(found) == 2
    assert "counted from 0" in found[0]
    (problem,) = problems(train=rows_of(["red", "green", "purple"]))
    assert "'purple' is no number, no letter, and the text of no choice" in problem


def test_rows_to_predict_need_no_label(caplog):
    caplog.set_level("INFO")
    rows = rows_of(["A", "B"])
    unknown = [{name: value for name, value in row.items() if name != "label"} for row in rows]
    assert load(test=unknown)[1]["test"] is None
    for missing in (None, "", "-1"):
        assert load(test=rows_of([missing, missing]))[1]["test"] is None
    found, targets, schema = load(test=rows_of(["B", None]))
    assert targets["test"] == [1, -100]
    assert "the label is missing in 1 of 2 rows" in caplog.text
    rows = datasets.Dataset.from_list(found["test"])
    answers = [[0.1, 0.7, 0.1, 0.1], [0.4, 0.2, 0.3, 0.1]]
    predicted, wanted, counts = schema.scored(answers, rows)
    assert (predicted.tolist(), wanted.tolist(), counts.tolist()) == ([1], [1], [4])


def test_empty_rows_are_left_out_and_numbers_stay(caplog):
    rows = rows_of(["A", "B", "C"])
    rows[0] |= {"question": " ", "label": "Z"}  # told of no row that is not used
    found, targets, _ = load(test=rows)
    assert "test: 1 of 3 rows dropped" in caplog.text
    assert [row["where"] for row in found["test"]] == ["test, row 2", "test, row 3"]
    assert [row[data.NUMBER] for row in found["test"]] == [2, 3]
    assert targets["test"] == [1, 2]


def test_choices_that_are_the_same_are_told(caplog):
    load(train=rows_of(["A", "B"], choices=["x", "y", "x"]))
    assert "in 2 of 2 rows two choices are the same: row 1, 2" in caplog.text


def test_streamed_rows():
    rows = rows_of([1, 2, 4, 1])
    _, targets, _ = load(streaming=True, train=rows, validation=rows_of([2]))
    assert targets == {"train": [0, 1, 3, 0], "validation": [1]}
    with pytest.raises(InputError) as caught:
        load(streaming=True, train=rows_of(["A", "B", "E"]))
    assert "train, row 3: the label 'E' is beyond" in str(caught.value)
