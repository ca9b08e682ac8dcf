import json

import pytest

from triptych import data
from triptych.arguments import TaggingArguments, TrainingArguments
from triptych.data import tagged_rows, words
from triptych.errors import InputError

datasets = pytest.importorskip("datasets")

TEXT = "Ada Walsh moved to New Ashford on Monday."
TOKENS = ["Ada", "Walsh", "moved", "to", "New", "Ashford", "on", "Monday", "."]
TAGS = ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O", "B-DATE", "O"]
SPANS = [(0, 9, "PER"), (19, 30, "LOC"), (34, 40, "DATE")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def put(name: str, rows: list[dict]) -> str:
    """A file of the rows: Parquet by its name, else a line each in JSON."""
    if name.endswith("parquet"):
        datasets.Dataset.from_list(rows).to_parquet(name)
    else:
        with open(name, "w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return name


def load(split: str = "train", **flags):
    """The rows of one split as lists, and the columns by role."""
    phase = {"train": "do_train", "validation": "do_eval", "test": "do_predict"}[split]
    given = TaggingArguments(**flags)
    assert given.problems() == []
    raw, names = data.load(given, TrainingArguments(max_steps=1, **{phase: True}))
    return list(raw[split]), names


def problems(*args, **flags) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(*args, **flags)
    return caught.value.problems


def spans(writer: str) -> list:
    """SPANS as other programs write them."""
    return {
        "ours": [{"start": s, "end": e, "label": label} for s, e, label in SPANS],
        "doccano": [
            {"id": n, "label": label, "start_offset": s, "end_offset": e}
            for n, (s, e, label) in enumerate(SPANS)
        ],
        "triples": [list(span) for span in SPANS],
        "label studio": [
            {"start": s, "end": e, "text": TEXT[s:e], "labels": [label]} for s, e, label in SPANS
        ],
        "lists": [[s, e, [label]] for s, e, label in SPANS],
    }[writer]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("writer", ["ours", "doccano", "triples", "label studio", "lists"])
@pytest.mark.parametrize("column", ["entities", "label", "spans"])
def test_spans_become_tags_whoever_wrote_them(column, writer, streaming):
    rows = [{"id": 7, "text": TEXT, column: spans(writer)}, {"id": 8, "text": "No names.", column: []}]
    found, names = load(train_file=put("a.jsonl", rows), streaming=streaming)
    assert found == [
        {"text": TEXT, "tokens": TOKENS, "tags": TAGS},
        {"text": "No names.", "tokens": ["No", "names", "."], "tags": ["O"] * 3},
    ]
    assert names == {"tokens": "tokens", "text": "text", "tags": "tags"}


def test_spans_come_from_parquet_and_datasets_as_from_json():
    rows = [{"text": TEXT, "entities": spans("ours")}, {"text": "No names.", "entities": []}]
    expected, _ = load(train_file=put("a.jsonl", rows))
    assert load(train_file=put("a.parquet", rows))[0] == expected
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk("saved")
    assert load(dataset_name="./saved")[0] == expected
    streamed = [
        {name: row[name] for name in expected[0]} for row in load(dataset_name="./saved", streaming=True)[0]
    ]
    assert streamed == expected


@pytest.mark.parametrize("streaming", [False, True])
def test_spans_may_be_a_sequence_of_dictionaries(streaming):
    number, text = datasets.Value("int32"), datasets.Value("string")
    features = datasets.Features(
        text=text, entities=datasets.Sequence({"start": number, "end": number, "label": text})
    )
    start, end, label = map(list, zip(*SPANS, strict=True))
    entities = [{"start": start, "end": end, "label": label}, {"start": [], "end": [], "label": []}]
    rows = datasets.Dataset.from_dict({"text": [TEXT, "a"], "entities": entities}, features=features)
    datasets.DatasetDict(train=rows).save_to_disk("saved")
    found, _ = load(dataset_name="./saved", streaming=streaming)
    assert [row["tags"] for row in found] == [TAGS, ["O"]]


def test_scripts_without_spaces_have_spans_anywhere():
    text = "東京タワーはパリにない"
    entities = [{"start": 0, "end": 5, "label": "LOC"}, {"start": 6, "end": 8, "label": "LOC"}]
    (row,), _ = load(train_file=put("a.jsonl", [{"text": text, "entities": entities}]))
    assert row["tags"] == ["B-LOC", *["I-LOC"] * 4, "O", "B-LOC", "I-LOC", *["O"] * 3]


def iob2(*spans, text=TEXT):
    return tagged_rows.iob2(spans, text, words.split(text))


def test_white_space_at_the_ends_of_a_span_and_the_order_of_spans_do_no_harm():
    assert iob2(*SPANS[::-1]) == (TAGS, [])
    assert iob2((9, 15, "X"))[0][2] == iob2((10, 16, "X"))[0][2] == "B-X"
    # Two that touch are two.
    assert iob2((0, 3, "X"), (3, 9, "X"))[0][:3] == ["B-X", "B-X", "O"]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ((0, 5, "PER"), "the span 0 to 5 (PER), '[Ada W]alsh moved to New As…', cuts a word"),
        ((20, 30, "LOC"), "'Ada Walsh moved to N[ew Ashford] on Monday.', cuts a word"),
        ((35, 36, "X"), "'… to New Ashford on M[o]nday.', cuts a word"),
        ((40, 43, "X"), "'…ew Ashford on Monday[.]', lies outside of the text, which has 41 characters"),
        ((-3, 3, "X"), "the span -3 to 3 (X), '[Ada] Walsh moved to New …', lies outside"),
        ((9, 3, "X"), "the span 9 to 3 (X), 'Ada Walsh[] Walsh moved to New …', holds no word"),
        ((5, 5, "X"), "'Ada W[]alsh moved to New As…', holds no word"),
        ((9, 10, "X"), "'Ada Walsh[ ]moved to New Ashford…', holds no word"),
    ],
)
def test_a_span_that_is_no_words_is_told_with_the_text_around_it(wrong, expected):
    rows = [
        {"text": "a", "entities": []},
        {"text": TEXT, "entities": [dict(zip(("start", "end", "label"), wrong, strict=True))]},
    ]
    (problem,) = problems(train_file=put("a.jsonl", rows))
    assert problem.startswith("train, row 2: ")
    assert expected in problem


def test_spans_that_overlap_are_told_and_one_inside_another_too():
    for second in ((4, 15, "B"), (4, 9, "B"), (0, 9, "PER")):
        (problem,) = iob2((0, 9, "PER"), second)[1]
        assert "overlaps another: a word has one tag" in problem


@pytest.mark.parametrize(
    "span",
    [
        {"start": 0, "label": "A"},
        {"start": 0, "end": 1, "label": ""},
        {"start": 0, "end": 1, "labels": ["A", "B"]},
        {"start": "0", "end": "1", "label": "A"},
        {"start": 0.0, "end": 1.0, "label": "A"},
    ],
)
def test_what_lacks_a_part_is_no_span(span):
    (problem,) = problems(train_file=put("a.jsonl", [{"text": "a", "entities": [span]}]))
    assert "is no span: it needs start and end in characters, and one label" in problem
    assert "train, row 1" in problem


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (
            {"text": "abc", "entities": []},
            {"text": "abc", "entities": [{"start": 1, "end": 2, "label": "A"}]},
        ),
        ({"tokens": ["a", "b"], "tags": ["O", "O"]}, {"tokens": ["a", "b"], "tags": ["O"]}),
    ],
)
def test_ten_problems_come_at_once_from_each_split_also_from_the_cache(good, bad):
    given = TaggingArguments(
        train_file=put("a.jsonl", [good] * 1500 + [bad] * 2000), validation_file=put("b.jsonl", [bad] * 2000)
    )
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            data.load(given, TrainingArguments(do_train=True, do_eval=True))
        assert [problem.partition(":")[0] for problem in caught.value.problems] == [
            *[f"train, row {number}" for number in range(1501, 1511)],
            *[f"validation, row {number}" for number in range(1, 11)],
        ]
    assert problems(train_file="a.jsonl", streaming=True) == caught.value.problems[:10]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_tokens_and_tags_of_different_numbers_are_told_with_both(suffix):
    rows = [{"tokens": ["a", "b"], "tags": ["O", "O"]}, {"tokens": ["a", "b"], "tags": ["O"]}]
    rows += [{"tokens": ["c"], "tags": []}, {"tokens": [], "tags": ["O"]}]
    assert problems(train_file=put(f"a.{suffix}", rows)) == [
        "train, row 2: number of tokens 2, of tags 1; give each token one tag.",
        "train, row 3: number of tokens 1, of tags 0; give each token one tag.",
        "train, row 4: number of tokens 0, of tags 1; give each token one tag.",
    ]
    streamed = problems(train_file=f"a.{suffix}", streaming=True)
    assert streamed == problems(train_file=f"a.{suffix}")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"tokens": [1], "tags": ["O"]}, "a list of words, or in every row a text was expected, not [1]"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, 'a text was expected, not ["a", null]'),
        ({"tokens": 5, "tags": ["O"]}, "not 5; --text_column_name names another column"),
        ({"tokens": ["a"], "tags": "O"}, 'a tag for each word was expected, not "O"; --label_column_name'),
        ({"tokens": ["a"], "tags": [{"start": 0}]}, 'a tag for each word was expected, not [{"start": 0}]'),
        ({"tokens": ["a"], "tags": [0.5]}, "a tag for each word was expected, not [0.5]"),
        ({"text": "a", "tags": ["O"]}, "a list of the text's spans (start, end, label) was expected, not"),
        ({"text": "a", "tags": "O"}, 'was expected, not "O"; --label_column_name names another column'),
    ],
)
def test_columns_of_another_kind_are_told_once(row, expected, streaming):
    name = put("a.jsonl", [row] * 20)
    (problem,) = problems(train_file=name, streaming=streaming)
    assert problem.startswith("train, row 1: ")
    assert expected in problem


def test_rows_of_a_stream_that_change_between_lists_and_texts_are_told():
    name = put("a.jsonl", [{"tokens": "a", "tags": []}, {"tokens": ["a"], "tags": []}])
    (problem,) = problems(train_file=name, streaming=True)
    assert "row 2: a text like those before it was expected" in problem


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_rows_are_dropped_and_counted(streaming, caplog):
    tokens = [["a"], [], None, ["", " \u00a0"], ["b", ""], ["\u3000"]]
    rows = [{"tokens": value, "tags": ["O"] * len(value or [])} for value in tokens]
    found, _ = load(train_file=put("a.jsonl", rows), streaming=streaming)
    assert [row["tokens"] for row in found] == [["a"], ["b", ""]]
    assert (
        streaming or "train: 4 of 6 rows dropped, tokens or tags being empty: row 2, 3, 4, 6." in caplog.text
    )
    rows = [{"text": text, "entities": []} for text in (None, "a", "", " \n")]
    found, _ = load(train_file=put("b.jsonl", rows), streaming=streaming)
    assert [row["text"] for row in found] == ["a"]
    assert streaming or "train: 3 of 4 rows dropped" in caplog.text


def test_only_empty_rows_are_refused():
    assert (
        "not one of 2 rows has text"
        in problems(train_file=put("a.jsonl", [{"tokens": [], "tags": []}] * 2))[0]
    )


def test_rows_without_tags_are_left_out_of_training_and_kept_for_prediction():
    rows = [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["b"], "tags": None}, {"tokens": [], "tags": None}]
    name = put("a.jsonl", rows)
    assert [row["tokens"] for row in load(train_file=name)[0]] == [["a"]]
    found, _ = load("test", test_file=name)
    assert [(row["tokens"], row["tags"], row[data.NUMBER]) for row in found] == [
        (["a"], ["O"], 1),
        (["b"], None, 2),
    ]
    texts = [
        {"text": "a", "entities": [{"start": 0, "end": 1, "label": "X"}]},
        {"text": "b", "entities": None},
    ]
    found, _ = load("test", test_file=put("b.jsonl", texts))
    assert [row["tags"] for row in found] == [["B-X"], None]


def test_rows_to_predict_may_be_texts_where_others_are_lists():
    put("train.jsonl", [{"words": ["a"], "pos": ["X"]}])
    put("test.jsonl", [{"text": "b c", "id": "5"}])
    given = TaggingArguments(train_file="train.jsonl", test_file="test.jsonl", task_name="pos")
    assert given.problems() == []
    raw, names = data.load(given, TrainingArguments(do_train=True, do_predict=True))
    assert names == {"tokens": "tokens", "tags": "tags", "text": "text"}
    assert list(raw["train"]) == [{"tokens": ["a"], "tags": ["X"]}]
    assert list(raw["test"]) == [{"text": "b c", "tokens": ["b", "c"], data.NUMBER: 1, data.TOTAL: 1}]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["List", "LargeList", "Sequence"])
def test_numbered_classes_of_a_dataset_keep_their_numbers_and_names(kind, streaming):
    lists = getattr(datasets, kind)
    classes = datasets.ClassLabel(names=["O", "B-A"])
    features = datasets.Features(
        id=datasets.Value("string"), tokens=lists(datasets.Value("string")), ner_tags=lists(classes)
    )
    rows = datasets.Dataset.from_dict(
        {"id": ["0"], "tokens": [["a", "b"]], "ner_tags": [[1, 0]]}, features=features
    )
    datasets.DatasetDict(train=rows).save_to_disk("saved")
    given = TaggingArguments(dataset_name="./saved", streaming=streaming)
    raw, _ = data.load(given, TrainingArguments(do_train=True, max_steps=1))
    assert list(raw["train"]) == [{"tokens": ["a", "b"], "tags": [1, 0]}]
    assert raw["train"].features["tags"].feature == classes


def test_columns_may_have_each_others_names():
    rows = [{"tags": ["a", "b"], "tokens": ["X", "Y"]}]
    flags = dict(text_column_name="tags", label_column_name="tokens")
    assert load(train_file=put("a.jsonl", rows), **flags)[0] == [{"tokens": ["a", "b"], "tags": ["X", "Y"]}]
    rows = [{"tags": "a b", "tokens": [[0, 1, "X"]], "text": 5}]
    assert load(train_file=put("b.jsonl", rows), **flags)[0] == [
        {"text": "a b", "tokens": ["a", "b"], "tags": ["B-X", "O"]}
    ]


def test_a_column_that_is_given_for_one_thing_is_not_taken_for_another():
    rows = [{"words": ["X"], "text": ["a"]}]
    found, _ = load(train_file=put("a.jsonl", rows), label_column_name="words")
    assert found == [{"tokens": ["a"], "tags": ["X"]}]


def test_columns_that_are_guessed_are_so_in_every_split(caplog):
    name = put("a.jsonl", [{"a": ["x"], "b": ["O"]}])
    given = TaggingArguments(train_file=name, validation_file=name, test_file=name)
    assert given.problems() == []
    raw, _ = data.load(given, TrainingArguments(do_train=True, do_eval=True, do_predict=True))
    assert [rows["tags"][:] for rows in raw.values()] == [[["O"]]] * 3
    assert caplog.text.count("Taking the column 'a' for the tokens") == 1


def test_texts_are_split_again_when_the_cache_is_to_be_overwritten(monkeypatch):
    name = put("a.jsonl", [{"text": "a b", "entities": []}])
    load(train_file=name)
    monkeypatch.setattr(words, "split", lambda text: [(0, len(text))])
    assert load(train_file=name)[0][0]["tokens"] == ["a", "b"]
    assert load(train_file=name, overwrite_cache=True)[0][0]["tokens"] == ["a b"]


def test_rows_are_numbered_as_in_their_source_though_they_are_shuffled_or_limited():
    rows = [{"tokens": ["a"], "tags": ["O"]}] * 50 + [{"tokens": ["a"], "tags": []}]
    name = put("a.jsonl", rows)
    assert problems(train_file=name, shuffle_train_dataset=True) == [
        "train, row 51: number of tokens 1, of tags 0; give each token one tag."
    ]
    assert len(load(train_file=name, max_train_samples=50)[0]) == 50


@pytest.mark.parametrize(
    ("there", "task", "tokens", "tags"),
    [
        ("id tokens pos_tags chunk_tags ner_tags", "ner", "tokens", "ner_tags"),  # conll2003, conllpp
        ("id tokens pos_tags chunk_tags ner_tags", "pos", "tokens", "pos_tags"),
        ("id tokens pos_tags chunk_tags ner_tags", "chunk", "tokens", "chunk_tags"),
        ("id tokens ner_tags", "ner", "tokens", "ner_tags"),  # wnut_17
        ("tokens ner_tags langs spans", "ner", "tokens", "ner_tags"),  # wikiann
        ("tokens tags", "ner", "tokens", "tags"),  # tner/ontonotes5
        ("id lang words ner", "ner", "words", "ner"),  # polyglot_ner
        (
            "idx text tokens lemmas upos xpos feats head deprel deps misc",
            "pos",
            "tokens",
            "upos",
        ),  # treebanks
        ("id text entities relations Comments", "ner", "text", "entities"),  # doccano
        ("text tokens ner_tags entities", "ner", "tokens", "ner_tags"),  # our own bulletins
        ("Words Labels", "chunk", "Words", "Labels"),
    ],
)
def test_columns_of_well_known_datasets_are_found_without_a_flag(there, task, tokens, tags, caplog):
    found = TaggingArguments(task_name=task).resolve_columns(there.split(), "train")
    assert found == {"tokens": tokens, "tags": tags}
    taken = [record.getMessage() for record in caplog.records]
    assert len(taken) == ((tokens, tags) != ("tokens", "tags"))
    assert all("--label_column_name" in message or tags == "tags" for message in taken)


def test_flags_that_exclude_each_other_are_told_at_once():
    given = TaggingArguments(
        train_file=put("a.jsonl", [{"tokens": ["a"], "tags": ["O"]}]),
        task_name="pos",
        scheme="iob2",
        repair_tags=True,
        constrained_decoding=True,
        max_seq_length=16,
        stride=16,
    )
    found = given.problems()
    assert len(found) == 4
    assert "--stride 16: must be less than --max_seq_length, 16" in found[0]
    assert "--scheme iob2: --task_name pos" in found[1]
    assert "--repair_tags" in found[2]
    assert "--constrained_decoding" in found[3]
    assert TaggingArguments(train_file="a.jsonl", stride=-1).problems() == [
        "--stride -1: must be at least 0."
    ]
    assert (
        "--max_seq_length 0"
        in TaggingArguments(train_file="a.jsonl", max_seq_length=0, stride=0).problems()[0]
    )
    none = TaggingArguments(train_file="a.jsonl", scheme="none", repair_tags=True).problems()
    assert none == ["--repair_tags is for tags with a scheme; with --scheme none any may follow any."]
    assert TaggingArguments(train_file="a.jsonl", scheme="iob2", repair_tags=True).problems() == []
