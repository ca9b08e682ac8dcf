import csv
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig

import pytest

from triptych import samples
from triptych.data import words
from triptych.errors import InputError
from triptych.samples.__main__ import main
from triptych.samples.bulletins import (
    COMPANIES,
    DAYS,
    FIRST_NAMES,
    LAST_NAMES,
    MONTHS,
    NUMBERS,
    TOWNS,
    TRADES,
)

SPLITS = ("train", "validation", "test")


def read(folder):
    return {split: [json.loads(line) for line in open(folder / f"{split}.jsonl", "rb")] for split in SPLITS}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Both datasets, each written by two processes that hash strings differently."""
    root = tmp_path_factory.mktemp("samples")
    commands = {
        (name, hash_seed): [name, str(root / name / hash_seed), *rows]
        for name, rows in [("docstrings", []), ("bulletins", ["--rows", "600"])]
        for hash_seed in ("1", "2")
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "triptych.samples", *command],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.DEVNULL,
        )
        for (_, hash_seed), command in commands.items()
    ]
    assert [process.wait() for process in processes] == [0] * len(processes)
    return root


@pytest.mark.parametrize("name", ["docstrings", "bulletins"])
def test_two_processes_write_the_same_bytes(written, name):
    for split in SPLITS:
        first, second = ((written / name / run / f"{split}.jsonl").read_bytes() for run in "12")
        assert first == second
        assert first.endswith(b"}\n")
        assert b"\r" not in first


@pytest.mark.parametrize("name", ["docstrings", "bulletins"])
def test_no_text_is_in_two_splits(written, name):
    rows = [row for part in read(written / name / "1").values() for row in part]
    assert len({row["text"].casefold() for row in rows}) == len(rows)
    assert len({(row["text"], row["summary"]) for row in rows}) == len(rows)
    assert all(row["text"].strip() and row["summary"].strip() for row in rows)


def test_docstrings_are_many_and_from_the_library_itself(written):
    parts = read(written / "docstrings" / "1")
    rows = [row for part in parts.values() for row in part]
    assert len(rows) > 2000
    assert len(parts["validation"]) == len(parts["test"]) == len(rows) // 10
    assert {frozenset(row) for row in rows} == {frozenset({"text", "summary", "package"})}
    foreign = [row["package"] for row in rows if row["package"] not in sys.stdlib_module_names]
    assert len(foreign) < 0.01 * len(rows), foreign


def test_docstrings_are_parsed_without_running_or_taking_tests(tmp_path, monkeypatch):
    def add(path, source, encoding="utf-8"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(source.encode(encoding))

    rest = "The rest of it has more than eight words, so it stays."
    add("stop.py", f'"""Stop at once, if e.g. imported. {rest}"""\nraise SystemExit("was run")\n')
    add("pack/old.py", f'# coding: latin-1\n"""Café, not\ntea.  {rest}"""\n', "latin-1")
    add("pack/call.py", f'def call():\n    """call(x) -> y\n\n    Calls it once\n\n    {rest}\n    """\n')
    add("pack/short.py", '"""Too short a rest. Four words are here."""\n')
    for path in ("test/a.py", "pack/tests/a.py", "site-packages/a.py", "idlelib/idle_test/a.py", "test_a.py"):
        add(path, f'"""Must not be read. {rest}"""\n')
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert samples.docstrings() == [
        {"text": rest, "summary": "Calls it once", "package": "pack"},
        {"text": rest, "summary": "Café, not tea.", "package": "pack"},
        {"text": rest, "summary": "Stop at once, if e.g. imported.", "package": "stop"},
    ]
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no source files"):
        samples.docstrings()


def test_bulletins_are_clean_english():
    rows = samples.bulletins(3000)
    for row in rows:
        both = f"{row['text']} {row['summary']}."
        assert not re.search(r"[{}\[\]|#]|  |\.\.|\.\w*[A-Za-z]", both), both
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n (?!hour)[^aeiou]", both), both
        assert not re.search(r"\b(1|one) (hours|minutes|votes|points|people|weeks|years|games)\b", both), both
        sentences = re.split(r"(?<=\.) ", both)
        assert all(re.match(r"[A-Z].*[a-z0-9%]\.$", sentence) for sentence in sentences), both
        assert len(sentences) >= 3
    assert len({row["text"].split()[0] for row in rows}) > 100


def test_a_headline_takes_its_facts_from_the_text_but_not_from_its_first_words():
    rows = samples.bulletins(3000)
    in_front = 0
    numbers = {word: str(number) for number, word in enumerate(NUMBERS)}
    for row in rows:
        words = re.findall(r"[\w.,]*\w", row["text"])
        said = {*words, *(numbers[word.lower()] for word in words if word.lower() in numbers)}
        facts = re.findall(r"\b[A-Z]\w+|\d[\d,.]*\b", row["summary"][1:])
        assert len(facts) >= 2
        assert set(facts) <= said, row
        assert row["summary"].lower() not in row["text"].lower()
        lead = row["text"].split()[: len(row["summary"].split())]
        in_front += set(facts) <= set(re.findall(r"[\w.,]*\w", " ".join(lead)))
    assert in_front < 0.12 * len(rows)
    assert len({row["summary"] for row in rows}) > 0.99 * len(rows)


def test_fewer_bulletins_are_the_first_of_more_and_a_seed_gives_others():
    assert samples.bulletins(20) == samples.bulletins(60)[:20]
    assert not {row["text"] for row in samples.bulletins(60)} & {
        row["text"] for row in samples.bulletins(60, 1)
    }


def test_the_bulletins_stay_what_they_were_byte_for_byte():
    """Models and figures that people have are of these."""
    frozen = {
        (2000, 0): "26872844dd425da8eb9ebb6b81d32e05f21ab19f09510063da8c6c41a6eadcef",
        (300, 7): "d002ebfc188a709a8709edcc237b584d9ae80693dca1fb5e5a34ea5f7a7a2c61",
    }
    for (rows, seed), expected in frozen.items():
        text = json.dumps(samples.bulletins(rows, seed))
        assert hashlib.sha256(text.encode()).hexdigest() == expected


def test_the_entities_of_bulletins_are_all_that_there_are_in_the_same_texts():
    rows = samples.bulletins(2000, columns=("text", "entities"))
    assert [row["text"] for row in rows] == [row["text"] for row in samples.bulletins(2000)]
    person = rf"(?:{'|'.join(FIRST_NAMES)}) (?:{'|'.join(LAST_NAMES)})"
    company = rf"(?:{'|'.join(COMPANIES)}) (?:{'|'.join(TRADES)})"
    names = {
        "LOC": "|".join(TOWNS),
        "ORG": company,
        "PER": person,
        "DATE": "|".join([*DAYS, *MONTHS]),
        "MONEY": r"\$[0-9]+(?:,[0-9]{3})*(?: million)?",
    }
    every = re.compile("|".join(f"(?P<{label}>{form})" for label, form in names.items()))
    for row in rows:
        found = [(match.start(), match.end(), match.lastgroup) for match in every.finditer(row["text"])]
        assert [(span["start"], span["end"], span["label"]) for span in row["entities"]] == found, row["text"]
    labels = [span["label"] for row in rows for span in row["entities"]]
    assert min(map(labels.count, names)) > 1000


def test_the_tags_of_bulletins_are_those_of_their_entities():
    for row in samples.bulletins(300, columns=("text", "tokens", "ner_tags", "entities")):
        places = words.split(row["text"])
        assert row["tokens"] == [row["text"][start:end] for start, end in places]
        begun = {span["start"]: span for span in row["entities"]}
        inside = {place: span for span in row["entities"] for place in range(span["start"], span["end"])}
        assert row["ner_tags"] == [
            f"B-{begun[start]['label']}"
            if start in begun
            else f"I-{inside[start]['label']}"
            if start in inside
            else "O"
            for start, _ in places
        ]


def test_splits_drop_repeated_texts_and_do_not_depend_on_the_order():
    rows = [{"text": f"Number {number}.", "summary": str(number)} for number in range(50)]
    parts = samples.splits([*rows, {"text": "number  7!", "summary": "again"}])
    assert {split: len(part) for split, part in parts.items()} == {"train": 40, "validation": 5, "test": 5}
    assert sorted((row for part in parts.values() for row in part), key=rows.index) == rows
    assert parts == samples.splits(rows[::-1])
    assert parts != samples.splits(rows, seed=1)
    with pytest.raises(InputError, match="2 different texts"):
        samples.splits(rows[:2] * 5)


def test_write_replaces_its_three_files_and_nothing_else(tmp_path):
    (tmp_path / "train.jsonl").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    assert samples.write("bulletins", tmp_path, rows=30, seed=3) == {"train": 24, "validation": 3, "test": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    plain = read(tmp_path)
    assert plain == samples.splits(samples.bulletins(30, 3), 3)
    samples.write("bulletins", tmp_path, rows=30, seed=3, columns=("entities", "text"))
    texts, tagged = (
        {split: [row["text"] for row in part] for split, part in parts.items()}
        for parts in (plain, read(tmp_path))
    )
    assert texts == tagged


@pytest.fixture(scope="module")
def tokenizer_folder(written, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    files = [str(written / "bulletins" / "1" / "train.jsonl")]
    assert samples.train_tokenizer(files, ["text", "summary"], folder, 1500) == 1500
    return folder


@pytest.fixture(scope="module", params=["alone", "beside a model"])
def tokenizer(request, tokenizer_folder):
    transformers = pytest.importorskip("transformers")
    if request.param == "beside a model":
        transformers.T5Config(vocab_size=1500).save_pretrained(tokenizer_folder)
    return transformers.AutoTokenizer.from_pretrained(tokenizer_folder)


TEXTS = [
    "Ashford beat Norwick 3-1 on Friday.",
    "It isn't $3,450.75, he said: 'no way'; it's 12% (or so)!",
    "  two spaces before,  between and after  ",
    "lines\nand\ttabs\n\n",
    "naïve café, 日本語 and 🙂 were never seen",
    " ",
    "",
]


def test_decoding_gives_back_the_text(tokenizer):
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    batch = tokenizer(TEXTS, padding=True)["input_ids"]
    assert tokenizer.batch_decode(batch, skip_special_tokens=True) == TEXTS
    assert not any(tokenizer.unk_token_id in ids for ids in batch)


def test_the_tokenizer_follows_the_conventions_of_t5(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert len(tokenizer) == 1500
    assert tokenizer.model_max_length == 512
    ids = tokenizer("Ashford won")["input_ids"]
    assert ids[-1] == 1
    assert 1 not in ids[:-1]
    assert tokenizer("Ashford won", add_special_tokens=False)["input_ids"] == ids[:-1]
    digits = tokenizer.convert_ids_to_tokens(tokenizer("$1,907 and 42")["input_ids"])
    with_digits = [token for token in digits if re.search(r"\d", token)]
    assert "".join(with_digits) == "190742", "a token holds digits and other characters"
    first, later = tokenizer(["people", "the people"], add_special_tokens=False)["input_ids"]
    assert later[-len(first) :] == first


def test_the_tokenizer_is_the_same_when_trained_again(written, tokenizer_folder, tmp_path):
    files = [str(written / "bulletins" / "1" / "train.jsonl")]
    samples.train_tokenizer(files, ["text", "summary"], tmp_path, 1500)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tokenizer_folder / "tokenizer.json").read_bytes()


def test_a_tokenizer_learns_from_every_format_and_only_from_its_columns(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "a.txt").write_text("zebra zebra zebra\n" * 5)
    with gzip.open(tmp_path / "b.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([["text", "other"]] + [["walrus walrus", "gazelle gazelle"]] * 5)
    files = [str(tmp_path / "a.txt"), str(tmp_path / "*.csv.gz")]
    size = samples.train_tokenizer(files, ["text"], tmp_path / "made" / "here", 4000)
    vocabulary = json.loads((tmp_path / "made" / "here" / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(vocabulary) == size < 300
    assert {"Ġzebra", "Ġwalrus"} <= set(vocabulary)
    assert "Ġgazelle" not in vocabulary


@pytest.mark.parametrize(
    ("command", "messages"),
    [
        ("nothing OUT", ["invalid choice: 'nothing'", "docstrings", "bulletins", "tokenizer"]),
        ("bulletins FILE --rows 9", ["FILE: File exists"]),
        ("bulletins FILE/below --rows 9", ["FILE/below: Not a directory"]),
        ("bulletins OUT --columns tags", ["argument --columns: invalid choice: 'tags'", "entities"]),
        ("bulletins OUT --rows 2", ["2 rows cannot fill three splits"]),
        ("bulletins OUT --rows few", ["invalid int value: 'few'"]),
        ("tokenizer OUT", ["required: --files"]),
        ("tokenizer OUT --files gone.jsonl", ["gone.jsonl: no such file"]),
        ("tokenizer FILE --files ROWS", ["FILE is a file"]),
        (
            "tokenizer OUT --files ROWS --columns text body",
            ["ROWS has no column 'body'; it has: text, label"],
        ),
        ("tokenizer OUT --files ROWS --columns label", ["ROWS, line 1: label is 7, which is no text"]),
        ("tokenizer OUT --files EMPTY --columns text", ["EMPTY: no text in text"]),
        ("tokenizer OUT --files BROKEN --columns text", ["BROKEN, line 2: not JSON"]),
        ("tokenizer OUT --files gone.jsonl --vocab_size 9", ["vocab_size 9 is too small", "gone.jsonl"]),
    ],
)
def test_wrong_input_is_told_plainly_with_exit_code_2(command, messages, tmp_path, monkeypatch, capsys):
    contents = {
        "FILE": "",
        "ROWS": '{"text": "word", "label": 7}\n',
        "EMPTY": '{"text": null}\n',
        "BROKEN": '{"text": "word"}\n{"text": \n',
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.jsonl").write_text(content)
    monkeypatch.chdir(tmp_path)
    in_folder = re.compile(r"\b(FILE|ROWS|EMPTY|BROKEN)\b")
    monkeypatch.setattr(sys, "argv", ["samples", *in_folder.sub(r"\1.jsonl", command).split()])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    told = capsys.readouterr().err
    assert all(in_folder.sub(r"\1.jsonl", message) in told for message in messages), told
    assert "Traceback" not in told
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize("name", ["docstrings", "bulletins", "tokenizer"])
def test_help_names_every_option(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["samples", name, "-h"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 0
    options = {"tokenizer": ["--files", "--columns", "--vocab_size"], "bulletins": ["--columns", "entities"]}
    options = options.get(name, []) + (["--rows", "--seed"] if name != "tokenizer" else [])
    told = capsys.readouterr().out
    assert all(option in told for option in ["OUT_DIR", *options])
