import gzip
import json

import pytest

from triptych.arguments import TaggingArguments, TrainingArguments
from triptych.data import load, readers
from triptych.errors import InputError

datasets = pytest.importorskip("datasets")

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

. . O O
"""
CONLL_U = (
    "# sent_id = 1\n# text = Vámonos ya a la orilla del mar\n"
    "1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "1\tVamos\tir\tVERB\tV\t_\t0\troot\t_\t_\n"
    "2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\t_\n"
    "2.1\tvan\tir\tVERB\tV\t_\t_\t_\t_\t_\n"
    "3\t#mar azul\tmar\tNOUN\tN\t_\t1\tobl\t_\tSpaceAfter=No\n"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def read(path, content: str | bytes, columns=None, format=None):
    """The rows of a file of that content, which has nothing wrong."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    problems: list[str] = []
    rows = [row for _, row in readers.read_rows(str(path), problems, columns, format)]
    assert problems == []
    return rows


def problems_of(path, content: str) -> list[str]:
    path.write_text(content)
    problems: list[str] = []
    list(readers.read_rows(str(path), problems))
    assert readers.peek(str(path))[1] == problems
    return problems


def sentences(path, content: str | bytes, **others):
    return [(row["tokens"], row.get("tags")) for row in read(path, content, **others)]


def test_four_columns_are_those_of_conll_2003(tmp_path):
    first, second = read(tmp_path / "a.conll", CONLL_2003)
    assert first == {
        **{"tokens": ["EU", "rejects"], "1": ["NNP", "VBZ"], "2": ["B-NP", "B-VP"], "3": ["B-ORG", "O"]},
        **{"pos_tags": ["NNP", "VBZ"], "chunk_tags": ["B-NP", "B-VP"], "ner_tags": ["B-ORG", "O"]},
        "tags": ["B-ORG", "O"],
    }
    assert second["tokens"] == ["."]
    assert read(tmp_path / "a.conll", CONLL_2003, ["tokens", "2"])[1] == {"tokens": ["."], "2": ["O"]}
    begins = [where for where, _ in readers.read_rows("a.conll", [])]
    assert begins == ["a.conll, line 3", "a.conll, line 6"]


def test_other_numbers_of_columns_are_named_by_number_and_the_last_is_the_tags(tmp_path):
    (row,) = read(tmp_path / "a.iob", "EU NNP B-ORG\n")
    assert row == {"tokens": ["EU"], "1": ["NNP"], "2": ["B-ORG"], "tags": ["B-ORG"]}
    assert read(tmp_path / "b.bio", "EU\nrejects\n") == [{"tokens": ["EU", "rejects"]}]
    # Ten columns, of which the first is a word that happens to be a number
    (row,) = read(tmp_path / "c.conll", "\t".join(["2005", *["x"] * 8, "B-DAT"]) + "\n")
    assert (row["tokens"], row["tags"]) == (["2005"], ["B-DAT"])


def test_columns_of_conll_u_have_their_names_and_words_are_those_that_are_analysed(tmp_path):
    (row,) = read(tmp_path / "a.conllu", CONLL_U)
    assert list(row) == [
        "id",
        "tokens",
        "lemma",
        "pos_tags",
        "xpos",
        "feats",
        "head",
        "deprel",
        "deps",
        "misc",
    ]
    assert row["tokens"] == ["Vamos", "nos", "#mar azul"]
    assert row["pos_tags"] == ["VERB", "PRON", "NOUN"]
    assert row["xpos"] == ["V", "P", "N"]
    assert row["misc"] == ["_", "_", "SpaceAfter=No"]
    # Ten columns with a number in front are CoNLL-U, or the older CoNLL-X, under any name.
    assert read(tmp_path / "a.conll", CONLL_U) == read(tmp_path / "a.txt", CONLL_U, format="conll") == [row]


@pytest.mark.parametrize("extension", ["conll", "iob", "iob2", "bio", "CoNLL", "conll.gz"])
def test_blank_lines_line_ends_and_marks_are_no_part_of_a_sentence(extension, tmp_path):
    text = "\ufeff\r\nEU\tB-ORG\r\nsays\tO\r\n \t \r\n\r\nno\tO\t\r\n-DOCSTART-\tO\r\nend\tO"
    content = gzip.compress(text.encode()) if extension.endswith("gz") else text
    expected = [(["EU", "says"], ["B-ORG", "O"]), (["no"], ["O"]), (["end"], ["O"])]
    assert sentences(tmp_path / f"a.{extension}", content) == expected


def test_tabs_separate_where_there_are_any_and_no_other_spaces_than_blanks_do(tmp_path):
    tabs = "New York\tB-LOC\n\u00a0\tO\n a\u2003b \tO\n"
    assert sentences(tmp_path / "a.conll", tabs) == [
        (["New York", "\u00a0", "a\u2003b"], ["B-LOC", "O", "O"])
    ]
    blanks = "10\u00a0000   O\n  a\u3000b O \n"
    assert sentences(tmp_path / "b.conll", blanks) == [(["10\u00a0000", "a\u3000b"], ["O", "O"])]


def test_a_hash_is_a_token_where_the_line_has_the_files_columns_and_else_begins_a_comment(tmp_path):
    text = "# a comment of five words\n# O\n#1 O\nEU B-ORG\n#\n#id 7 x\n# O\n"
    assert sentences(tmp_path / "a.conll", text) == [(["#", "#1", "EU", "#"], ["O", "O", "B-ORG", "O"])]
    assert sentences(tmp_path / "b.conll", "# O\n") == [(["#"], ["O"])]


def test_lines_with_other_numbers_of_columns_are_told_with_both_numbers_ten_at_once(tmp_path):
    found = problems_of(tmp_path / "a.conll", "EU B-ORG\n\nsays that O\nall\n" + "\n")
    assert found == [
        f"{tmp_path}/a.conll, line 3: number of columns 3, in the first line of a token 2.",
        f"{tmp_path}/a.conll, line 4: number of columns 1, in the first line of a token 2.",
    ]
    assert len(problems_of(tmp_path / "b.conll", "EU B-ORG\n" + "a b c\n" * 30)) == 10
    (problem,) = problems_of(tmp_path / "c.conllu", CONLL_U + "4\tfin\tNOUN\n")
    assert "line 8: number of columns 3, in CoNLL-U 10." in problem
    (problem,) = problems_of(tmp_path / "d.conllu", "EU\tB-ORG\n")
    assert "line 1: number of columns 2, in CoNLL-U 10." in problem


def test_an_empty_file_and_bytes_that_are_not_utf_8_are_told(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("\n\n-DOCSTART- O\n")
    assert readers.peek(str(path))[1] == [f"{path} is empty: it holds no rows."]
    path = tmp_path / "b.conll"
    path.write_bytes("Köln B-LOC\n".encode("latin-1"))
    assert "line 1: byte 0xf6 is not UTF-8" in readers.peek(str(path))[1][0]


def test_a_token_may_be_as_long_as_it_likes(tmp_path):
    assert sentences(tmp_path / "a.conll", "é" * 3_000_000 + " O\n")[0][0] == ["é" * 3_000_000]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_flag_says_what_files_of_any_extension_are(streaming, tmp_path):
    (tmp_path / "train.txt").write_text(CONLL_2003)
    (tmp_path / "train.data").write_text(CONLL_2003)
    args = TrainingArguments(do_train=True, max_steps=1)
    for name in ("train.txt", "train.data"):
        given = TaggingArguments(train_file=name, format="conll", streaming=streaming)
        assert given.problems() == []
        raw, names = load(given, args)
        assert list(raw["train"]) == [
            {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
            {"tokens": ["."], "tags": ["O"]},
        ]
        assert names == {"tokens": "tokens", "tags": "tags"}
    # Without it a line of .txt is a text.
    raw, _ = load(TaggingArguments(test_file="train.txt"), TrainingArguments(do_predict=True))
    assert raw["test"][1]["tokens"] == ["EU", "NNP", "B", "-", "NP", "B", "-", "ORG"]
    assert "the extension must be one of" in TaggingArguments(train_file="train.data").problems()[0]


def test_a_file_is_read_again_when_the_flag_says_that_it_is_another(tmp_path):
    (tmp_path / "a.csv").write_text("tokens\nEU\n")
    args = TrainingArguments(do_predict=True)
    assert load(TaggingArguments(test_file="a.csv"), args)[0]["test"]["tokens"][:] == [["EU"]]
    raw, _ = load(TaggingArguments(test_file="a.csv", format="conll"), args)
    assert raw["test"]["tokens"][:] == [["tokens", "EU"]]


@pytest.mark.parametrize(
    ("task", "flags", "expected"),
    [
        ("ner", {}, ["B-ORG", "O"]),
        ("pos", {}, ["NNP", "VBZ"]),
        ("chunk", {}, ["B-NP", "B-VP"]),
        ("ner", {"label_column_name": "2"}, ["B-NP", "B-VP"]),
    ],
)
def test_the_task_picks_the_column_of_the_tags(task, flags, expected, tmp_path):
    (tmp_path / "a.conll").write_text(CONLL_2003)
    given = TaggingArguments(train_file="a.conll", task_name=task, **flags)
    raw, _ = load(given, TrainingArguments(do_train=True))
    assert raw["train"]["tags"][0] == expected


def test_tags_of_another_task_are_not_taken(tmp_path):
    (tmp_path / "a.conllu").write_text(CONLL_U)
    raw, _ = load(TaggingArguments(train_file="a.conllu", task_name="pos"), TrainingArguments(do_train=True))
    assert raw["train"]["tags"][0] == ["VERB", "PRON", "NOUN"]
    with pytest.raises(
        InputError, match=r"Which column is the tags.*--label_column_name; there are: id, tokens"
    ):
        load(TaggingArguments(train_file="a.conllu"), TrainingArguments(do_train=True))


def test_one_splits_files_may_be_of_several_formats(tmp_path):
    (tmp_path / "a.conll").write_text(CONLL_2003)
    (tmp_path / "b.jsonl").write_text(json.dumps({"tokens": ["UN"], "ner_tags": ["B-ORG"]}) + "\n")
    raw, _ = load(
        TaggingArguments(train_file="a.conll,b.jsonl", label_column_name="ner_tags"),
        TrainingArguments(do_train=True),
    )
    assert raw["train"]["tokens"][:] == [["EU", "rejects"], ["."], ["UN"]]
