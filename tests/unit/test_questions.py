"""Questions, contexts and answers from every form of rows, and what is wrong with them."""

import csv
import gzip
import json

import pytest

from triptych import data
from triptych.arguments import QuestionArguments, TrainingArguments
from triptych.data import questions
from triptych.data.readers import peek, read_rows
from triptych.errors import InputError

datasets = pytest.importorskip("datasets")

TEXT = 'She said: "Née à Paris",\nthen 🙂🙂 moved\u00a0to  New\n York. Paris, again!'
PARIS, AGAIN, YORK = TEXT.index("Paris"), TEXT.rindex("Paris"), TEXT.index("New")
ASKED = {"question": "Where?", "context": TEXT}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def put(name: str, rows) -> str:
    """A file of the rows, of the kind that its name says."""
    if name.endswith("parquet"):
        datasets.Dataset.from_list(rows).to_parquet(name)
    elif name.endswith(("csv", "tsv")):
        with open(name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if name.endswith("csv") else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith("jsonl"):
        with open(name, "w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        with open(name, "w") as file:
            json.dump(rows, file, ensure_ascii=False)
    return name


def load(split: str = "train", **flags):
    """The rows of one split as lists."""
    phase = {"train": "do_train", "validation": "do_eval", "test": "do_predict"}[split]
    given = QuestionArguments(**flags)
    assert given.problems() == []
    raw, _ = data.load(given, TrainingArguments(max_steps=1, **{phase: True}))
    return [{k: v for k, v in row.items() if k in (*questions.NAMES, "id")} for row in raw[split]]


def problems(*args, **flags) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(*args, **flags)
    return caught.value.problems


def squad(version: str, *paragraphs) -> dict:
    return {"version": version, "data": [{"title": "It", "paragraphs": list(paragraphs)}]}


def qa(name, *answers, **more):
    found = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": "Where?", "answers": found, **more}


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz"])
def test_squads_own_files_become_a_row_a_question(name):
    one = {
        "context": TEXT,
        "qas": [qa("a", ("Paris", PARIS), ("Née à Paris", PARIS - 6)), qa("b", ("New", YORK))],
    }
    two = {
        "context": "None.",
        "qas": [qa("c", is_impossible=True, plausible_answers=[{"text": "None", "answer_start": 0}])],
    }
    text = json.dumps(squad("v2.0", one, two))
    with gzip.open(name, "wt") if name.endswith("gz") else open(name, "w") as file:
        file.write(text)
    found = load(train_file=name, version_2_with_negative=True)
    assert found == [
        {"id": "a", **ASKED, "answers": {"text": ["Paris", "Née à Paris"], "start": [PARIS, PARIS - 6]}},
        {"id": "b", **ASKED, "answers": {"text": ["New"], "start": [YORK]}},
        {"id": "c", "question": "Where?", "context": "None.", "answers": {"text": [], "start": []}},
    ]


def test_a_large_file_of_squad_is_not_taken_for_a_table_of_pandas():
    paragraphs = [{"context": f"{TEXT} {n}", "qas": [qa(str(n), ("New", YORK))]} for n in range(15_000)]
    for key in ("data", "version"):  # whichever comes first
        file = {key: None, **squad("1.1", *paragraphs)}
        put("large.json", file)
        assert peek("large.json")[1] == []
        told: list[str] = []
        assert sum(1 for _ in read_rows("large.json", told)) == 15_000
        assert told == []


def test_what_is_wrong_in_squads_files_is_told_with_its_place():
    paragraphs = [
        {"context": TEXT, "qas": [{"id": 1}, qa("a"), {"question": "Who?", "answers": "Ada"}]},
        {"qas": []},
    ]
    put("rows.json", squad("1.1", *paragraphs))
    told: list[str] = []
    assert len(list(read_rows("rows.json", told))) == 1
    begins = "rows.json, row 1 (line 1), paragraph"
    assert told == [
        f"{begins} 1, question 1: its question must be a text.",
        f"{begins} 1, question 3: its answers must be a list of {{text, answer_start}}.",
        f"{begins} 2: a context (text) and qas (a list of questions) were expected.",
    ]


def test_other_rows_with_paragraphs_stay_as_they_are():
    rows = [{"text": "a", "paragraphs": [{"title": "b", "text": "c"}]}, {"text": "a", "paragraphs": []}]
    put("rows.jsonl", rows)
    assert [row for _, row in read_rows("rows.jsonl", [])] == rows


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Paris"], "answer_start": [PARIS]},
        [{"text": "Paris", "answer_start": PARIS}],
        {"text": "Paris", "answer_start": PARIS},
    ],
)
def test_flat_rows_hold_answers_in_any_usual_form(name, answers):
    put(name, [{"id": 7, **ASKED, "answers": answers}, {"id": 8, **ASKED, "answers": answers}])
    expected = {**ASKED, "answers": {"text": ["Paris"], "start": [PARIS]}}
    assert load(train_file=name) == [{"id": "7", **expected}, {"id": "8", **expected}]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_tables_give_an_answer_and_perhaps_its_place(name):
    rows = [
        {"Q": "Where?", "passage": TEXT, "answer": "Paris", "answer_start": str(AGAIN)},
        {"Q": "Where?", "passage": TEXT, "answer": " New York. ", "answer_start": ""},
        {"Q": "Who?", "passage": TEXT, "answer": "", "answer_start": ""},
    ]
    found = load(train_file=put(name, rows), question_column="Q", version_2_with_negative=True)
    assert [row["id"] for row in found] == ["1", "2", "3"]
    assert [row["answers"] for row in found] == [
        {"text": ["Paris"], "start": [AGAIN]},
        {"text": ["New\n York."], "start": [YORK]},
        {"text": [], "start": []},
    ]
    for row in found:
        for text, start in zip(*row["answers"].values(), strict=True):
            assert row["context"][start : start + len(text)] == text


@pytest.mark.parametrize(
    ("text", "start", "found"),
    [
        ("Paris", PARIS, ("Paris", PARIS)),
        ("Paris ", PARIS, ("Paris", PARIS)),
        (" Paris", PARIS - 1, ("Paris", PARIS)),
        ("New York", YORK, ("New\n York", YORK)),
        ("moved to", TEXT.index("moved"), ("moved\u00a0to", TEXT.index("moved"))),
        ("\nthen", TEXT.index("then") - 1, ("then", TEXT.index("then"))),
        ("🙂", TEXT.index("🙂") + 1, ("🙂", TEXT.index("🙂") + 1)),
        ("again", None, ("again", TEXT.index("again"))),
        ("again", str(TEXT.index("again")), ("again", TEXT.index("again"))),
    ],
)
def test_an_answer_is_found_where_it_stands(text, start, found):
    assert questions.find(text, start, TEXT) == (found, None)


@pytest.mark.parametrize(
    ("text", "start", "parts"),
    [
        ("Paris", PARIS + 2, [f"not at answer_start {PARIS + 2}", '"ris\\",', f"occurs at {PARIS}, {AGAIN}"]),
        ("New York", YORK + 2, ["It occurs at", str(YORK)]),  # as UTF-16 counts
        ("Rome", 3, ["nowhere"]),
        ("Paris", 10_000, ["nothing stands"]),
        ("Paris", -5, ["nothing stands"]),
        ("Paris", None, [f"occurs at 2 places ({PARIS}, {AGAIN})", "answer_start"]),
        ("Rome", None, ["does not occur"]),
        ("Paris", "here", ['"here" is no number']),
        ("🙂", None, ["2 places"]),
    ],
)
def test_an_answer_that_is_not_there_is_told_with_what_is(text, start, parts):
    found, problem = questions.find(text, start, TEXT)
    assert found is None
    for part in parts:
        assert part in problem


def test_all_that_is_wrong_is_told_at_once_with_the_rows():
    rows = [
        {"id": "a", **ASKED, "answers": {"text": ["Paris"], "answer_start": [PARIS]}},
        {"id": "a", **ASKED, "answers": {"text": ["Paris"], "answer_start": [0]}},
        {"id": "b", **ASKED, "answers": {"text": ["Rome", "Oslo"], "answer_start": [0, 1]}},
        {"id": "c", **ASKED, "answers": None},
    ]
    put("train.jsonl", rows)
    put("dev.jsonl", [rows[0], {**rows[0], "id": "b", "answers": {"text": [], "answer_start": []}}])
    given = QuestionArguments(train_file="train.jsonl", validation_file="dev.jsonl")
    with pytest.raises(InputError) as caught:
        data.load(given, TrainingArguments(max_steps=1, do_train=True, do_eval=True))
    found = caught.value.problems
    assert len(found) == 6
    assert found[0].startswith(
        'train, row 2: the answer "Paris" is not at answer_start 0, where "She s" stands.'
    )
    assert found[1].startswith('train, row 3: the answer "Rome"')
    assert found[2].startswith('train, row 3: the answer "Oslo"')
    assert found[3].startswith("train: ids that are there more than once: 'a' (rows 1, 2)")
    assert found[4].startswith("train: 1 of 4 rows have no answer: row 4. Give --version_2_with_negative")
    assert found[5].startswith(
        "validation: 1 of 2 rows have no answer: row 2. Give --version_2_with_negative"
    )


def test_rows_to_predict_may_lack_answers():
    rows = [{"id": "a", **ASKED}, {"id": "b", **ASKED}]
    assert all("answers" not in row for row in load("test", test_file=put("rows.jsonl", rows)))
    empty = [row | {"answers": {"text": [], "answer_start": []}} for row in rows]
    assert all("answers" not in row for row in load("test", test_file=put("rows.jsonl", empty)))
    known = [
        {**empty[0], "answers": {"text": ["Paris"], "answer_start": [PARIS]}},
        {**empty[1], "answers": None},
    ]
    found = load("test", test_file=put("rows.jsonl", known), version_2_with_negative=True)
    assert [row["answers"] for row in found] == [{"text": ["Paris"], "start": [PARIS]}, None]


def test_rows_without_a_question_or_a_context_are_left_out(caplog):
    answers = {"text": ["Paris"], "answer_start": [PARIS]}
    rows = [{**ASKED, "answers": answers}, {**ASKED, "context": " ", "answers": answers}]
    rows += [{**ASKED, "question": None, "answers": None}, {**ASKED, "answers": answers}]
    found = load(train_file=put("rows.jsonl", rows))
    assert [row["id"] for row in found] == ["1", "4"]
    assert "2 of 4 rows dropped" in caplog.text


def test_a_stream_is_read_as_it_comes():
    answers = {"text": ["Paris"], "answer_start": [PARIS]}
    rows = [
        {"id": "a", **ASKED, "answers": answers},
        {"id": "b", **ASKED, "answers": answers | {"answer_start": [0]}},
    ]
    given = QuestionArguments(train_file=put("rows.jsonl", rows), streaming=True)
    raw, _ = data.load(given, TrainingArguments(max_steps=1, do_train=True))
    stream = iter(raw["train"])
    with pytest.raises(InputError, match=r"train, row 2: the answer .Paris. is not at"):
        list(stream)


@pytest.mark.parametrize(
    ("answers", "parts"),
    [
        (17, ["17", "--answer_column"]),
        ({"text": ["a", "b"], "answer_start": [1]}, ["as many starts"]),
        ([["a"]], ["--answer_column"]),
    ],
)
def test_columns_of_other_values_are_told(answers, parts):
    (problem,) = problems(train_file=put("rows.jsonl", [{**ASKED, "answers": answers}]))
    for part in ("train, row 1", *parts):
        assert part in problem
    (problem,) = problems(train_file=put("rows.jsonl", [{"question": [1], "context": TEXT, "answers": "a"}]))
    assert "--question_column" in problem


def test_flags_that_exclude_or_need_each_other_are_told():
    given = QuestionArguments(
        train_file=put("rows.csv", [{**ASKED, "answer": "Paris"}]),
        null_threshold="auto",
        null_score_diff_threshold=1.0,
        n_best_size=0,
        max_answer_length=0,
        max_seq_length=64,
        doc_stride=64,
    )
    told = "\n".join(given.problems())
    for part in ("--n_best_size 0", "--max_answer_length 0", "--doc_stride 64", "give one of them"):
        assert part in told
    assert told.count("is for --version_2_with_negative") == 2
    assert len(given.problems()) == 6


def test_columns_are_found_by_their_names():
    given = QuestionArguments()
    found = given.resolve_columns(
        ["title", "id", "text", "Question", "answer", "answer_start", "level"], "train"
    )
    assert found == {
        "question": "Question",
        "context": "text",
        "answers": "answer",
        "id": "id",
        "answer_start": "answer_start",
    }
    found = given.resolve_columns(["id", "title", "context", "question", "answers"], "validation")
    assert found == {"question": "question", "context": "context", "answers": "answers", "id": "id"}
    given = QuestionArguments(remove_columns="id", context_column="b", question_column="a", answer_column="c")
    assert given.resolve_columns(["id", "a", "b", "c"], "train") == {
        "question": "a",
        "context": "b",
        "answers": "c",
    }
    with pytest.raises(InputError) as caught:
        QuestionArguments().resolve_columns(["context", "x", "y", "z"], "train")
    assert len(caught.value.problems) == 2
