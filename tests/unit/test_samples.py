import csv
import gzip
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import sysconfig
from functools import cache

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
    NAMES,
    NUMBERS,
    QUESTIONS,
    TOWNS,
    TRADES,
)
from triptych.samples.second_language import ARTICLES, translate, word_for

SPLITS = ("train", "validation", "test")


def read(folder):
    return {split: [json.loads(line) for line in open(folder / f"{split}.jsonl", "rb")] for split in SPLITS}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All datasets, each written by two processes that hash strings differently."""
    root = tmp_path_factory.mktemp("samples")
    commands = {
        (name, hash_seed): [name, str(root / name / hash_seed), *rows]
        for name, rows in [("docstrings", []), ("sources", []), ("bulletins", ["--rows", "600"])]
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


@pytest.mark.parametrize("name", ["docstrings", "sources", "bulletins"])
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


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Adds files to what takes the place of the standard library."""

    def add(path, source, encoding="utf-8"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(source.encode(encoding))

    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return add


def test_docstrings_are_parsed_without_running_or_taking_tests(library):
    add = library
    rest = "The rest of it has more than eight words, so it stays."
    add("stop.py", f'"""Stop at once, if e.g. imported. {rest}"""\nraise SystemExit("was run")\n')
    add("pack/old.py", f'# coding: latin-1\n"""Café, not\ntea.  {rest}"""\n', "latin-1")
    add("pack/call.py", f'def call():\n    """call(x) -> y\n\n    Calls it once\n\n    {rest}\n    """\n')
    add("pack/short.py", '"""Too short a rest. Four words are here."""\n')
    for path in ("test/a.py", "pack/tests/a.py", "site-packages/a.py", "idlelib/idle_test/a.py", "test_a.py"):
        add(path, f'"""Must not be read. {rest}"""\n')
    assert samples.docstrings() == [
        {"text": rest, "summary": "Calls it once", "package": "pack"},
        {"text": rest, "summary": "Café, not tea.", "package": "pack"},
        {"text": rest, "summary": "Stop at once, if e.g. imported.", "package": "stop"},
    ]


@pytest.mark.parametrize("make", [samples.docstrings, samples.sources, samples.library.files])
def test_a_python_without_its_sources_is_told(make, library):
    with pytest.raises(InputError, match="no source files"):
        make()


def test_sources_are_many_and_a_word_alone_does_not_tell_its_tag(written):
    rows = [row for part in read(written / "sources" / "1").values() for row in part]
    assert len(rows) > 5000
    assert {frozenset(row) for row in rows} == {frozenset({"tokens", "ner_tags", "package"})}
    assert len({tuple(row["tokens"]) for row in rows}) == len(rows)
    assert {len(row["tokens"]) for row in rows} == set(range(12, 81))
    pairs = [pair for row in rows for pair in zip(row["tokens"], row["ner_tags"], strict=True)]
    tags = [tag for _, tag in pairs]
    assert set(tags) == {"O", "B-FUNCTION", "B-CLASS", "B-PARAMETER", "B-MODULE"}
    assert all(tags.count(f"B-{label}") > 1000 for label in ("FUNCTION", "CLASS", "PARAMETER", "MODULE"))
    untagged = {word for word, tag in pairs if tag == "O"}
    parameters = [word for word, tag in pairs if tag == "B-PARAMETER"]
    assert sum(word in untagged for word in parameters) > 0.8 * len(parameters)
    assert all(re.fullmatch(r"\w+", word) for word in parameters)


SOURCE = """\
# coding: latin-1
import os, xml.dom as dom
from elsewhere import anything, Any
\fclass Tree(dict):
    def size(self, path, *rest, name=os, **others) -> "Tree":
        "The path é of Tree."; return os.stat(path, name=self.path, other=rest), others, é

    @anything
    async def walk(self, é, Tree):
        return é, Tree(size), f"{é}", name, len(walk(é)), "é"  # é

def other(walk, os=os):
    import logging.handlers, abc as letters
    class Own(Tree):
        def walk(self): return walk, letters, logging.x
    return [os for os in walk(Own)], lambda dom: (dom, other)

def assigned(item):
    try: item = other = dom.parse(item, other)
    except Tree as os: return os, other, item
    global Tree

def unknown(item): return anything(item, item, item)
def known(anything): return anything(anything, dom, Any=3)
def unknown_too(item: Any): return item, item, item, item
def also_unknown(item): from . import names; return item, item
def short(item): return item
"""
TAGGED = {
    "size": "F:size P:path P:rest P:name M:os P:others M:os P:path P:rest P:others",
    "walk": "F:walk P:é P:Tree P:é P:Tree P:é",
    "other": "F:other P:walk P:os M:os M:logging M:letters C:Own C:Tree F:walk P:walk "
    "M:letters M:logging P:walk C:Own P:dom P:dom F:other",
    "assigned": "F:assigned P:item P:item M:dom P:item C:Tree P:item",
    "known": "F:known P:anything P:anything P:anything M:dom",
}


def test_the_tags_of_sources_are_what_each_scope_defines(library):
    library("pack/trees.py", SOURCE, "latin-1")
    found = {}
    for row in samples.sources():
        pairs = zip(row["tokens"], row["ner_tags"], strict=True)
        tagged = [f"{tag[2]}:{word}" for word, tag in pairs if tag != "O"]
        found[tagged[0][2:]] = " ".join(tagged)
        assert row["package"] == "pack"
        assert row["tokens"] == [row["text"][start:end] for start, end in words.split(row["text"])]
    assert found == TAGGED


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


def test_the_questions_of_bulletins_have_one_answer_or_none_and_change_no_row():
    rows = samples.bulletins(2000, columns=("text", "entities", "question", "answers"))
    plain = samples.bulletins(2000, columns=("text", "entities"))
    assert [{name: row[name] for name in plain[0]} for row in rows] == plain
    kinds = {question: kind for kind, questions in QUESTIONS.items() for question in questions}
    unanswered = 0
    for row in rows:
        kind, values = kinds[row["question"]], []
        for span in row["entities"]:
            value = row["text"][span["start"] : span["end"]]
            label = {True: "DAY", False: "MONTH"}[value in DAYS] if span["label"] == "DATE" else span["label"]
            values += [(value, span["start"])] if label == kind else []
        assert list(zip(*row["answers"].values(), strict=True)) == values
        assert len({value for value, _ in values}) <= 1
        unanswered += not values
    assert 0.3 < unanswered / len(rows) < 0.37
    assert set(kinds) == {row["question"] for row in rows}
    assert samples.bulletins(50, columns=("question",)) == [
        {"question": row["question"]} for row in rows[:50]
    ]


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


@cache
def english_and_made() -> list[tuple[str, str]]:
    rows = samples.bulletins(2000, columns=("text", "translation"))
    assert {tuple(row["translation"]) for row in rows} == {("en", "xx")}
    assert all(row["translation"]["en"] in row["text"] for row in rows)
    return [tuple(row["translation"].values()) for row in rows]


def test_the_choices_of_bulletins_are_sentences_of_which_one_is_the_headlines():
    columns = ("text", "summary", "translation", "choices", "choice")
    rows = samples.bulletins(600, columns=columns)
    plain = samples.bulletins(600, columns=columns[:3])
    assert [{name: row[name] for name in columns[:3]} for row in rows] == plain
    assert samples.bulletins(50, columns=columns) == rows[:50]
    for row in rows:
        right = row["choices"]["ABCDE".index(row["choice"])]
        assert right == row["translation"]["en"]
        assert right in row["text"]
        assert len({*row["choices"]}) == len(row["choices"])
    counts = [len(row["choices"]) for row in rows]
    assert {*counts} == {3, 4, 5}
    assert 0.6 < counts.count(4) / len(counts) < 0.73
    letters = [row["choice"] for row, count in zip(rows, counts, strict=True) if count == 4]
    assert min(map(letters.count, "ABCD")) > 0.2 * len(letters)
    # No other choice is one that is right elsewhere: a model could know it as such.
    wrong = [text for row in rows for text in row["choices"] if text != row["translation"]["en"]]
    assert len({*wrong}) > 0.97 * len(wrong)


def test_the_translations_of_bulletins_are_of_their_own_event_and_hardly_two_the_same():
    pairs = english_and_made()
    assert len(set(pairs)) > 0.999 * len(pairs)
    assert 10 < sum(len(english.split()) for english, _ in pairs) / len(pairs) < 15


def test_names_and_figures_stay_in_the_made_language_and_nothing_else_does():
    kept = re.compile(rf"\$?[A-Z]?\d[\d,]*(?:-\d+)?(?<!,)|\b(?:{'|'.join(NAMES)})\b")
    for english, made in english_and_made():
        assert sorted(kept.findall(english)) == sorted(kept.findall(made)), (english, made)
        words = [re.findall(r"[a-z]+", kept.sub("", text).lower()) for text in (english, made)]
        assert not set(words[0]) & set(words[1]) - {"a"}, (english, made)
        assert english.count(".") == made.count(".")
        assert all(sentence[0].isupper() or sentence[0] in "$0123456789" for sentence in made.split(". "))


def test_a_sentence_in_the_made_language():
    words = {word: word_for(word) for word in ("nobody", "sees", "fire", "near", "red", "in")}
    assert len(set(words.values())) == 6
    said = translate("Nobody sees the fire near Ada Walsh, a red fire, in the M14.", {"Ada", "Walsh"})
    w = words
    first = f"Ada Walsh {w['near']} {w['fire']}um {w['sees']} {w['nobody']}"
    assert said == f"{first}, {w['fire']} {w['red']}ik, M14 um {w['in']}."
    assert translate("Fire. Red fire.", ()) == f"{w['fire'].title()}. {w['fire'].title()} {w['red']}."


def test_no_two_words_of_bulletins_have_the_same_in_the_made_language():
    texts = (english for english, _ in english_and_made())
    found = {word for text in texts for word in re.findall(r"[A-Za-z'-]+(?![\w,])", text)} - NAMES
    words = {word.lower() for word in found} - set(ARTICLES)
    made = [word_for(word) + ending for word in words for ending in ("", "um", "ik")]
    assert len(set(made)) == 3 * len(words) > 600


def write_catalog(path, entries: dict[str, str], order: str = "<", charset: str = "UTF-8") -> None:
    """A catalog in the binary format of gettext, with a header for languages with two forms."""
    header = f"Content-Type: text/plain; charset={charset}\nPlural-Forms: nplurals=2; plural=(n != 1);\n"
    pairs = sorted(
        (key.encode(charset), text.encode(charset)) for key, text in ({"": header} | entries).items()
    )
    start, tables, content = 28 + 16 * len(pairs), [[], []], b""
    for side in (0, 1):
        for pair in pairs:
            tables[side] += [len(pair[side]), start + len(content)]
            content += pair[side] + b"\0"
    head = [0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f"{order}{7 + 4 * len(pairs)}I", *head, *tables[0], *tables[1]) + content)


def catalogs(folder, **languages: dict[str, dict[str, str]]):
    for language, packages in languages.items():
        for package, entries in packages.items():
            write_catalog(folder / language / "LC_MESSAGES" / f"{package}.mo", entries)
    return folder


def texts_of(rows) -> list[tuple[str, ...]]:
    return [tuple(row["translation"].values()) for row in rows]


@pytest.mark.parametrize(("order", "charset"), [("<", "UTF-8"), (">", "UTF-8"), ("<", "latin-1")])
def test_messages_come_from_catalogs_of_either_order_of_bytes_and_any_charset(order, charset, tmp_path):
    path = tmp_path / "de" / "LC_MESSAGES" / "tool.mo"
    write_catalog(path, {"Too large": "Zu groß", "Not found": "Nicht gefunden"}, order, charset)
    assert samples.messages(("en", "de"), tmp_path) == [
        {"translation": {"en": "Not found", "de": "Nicht gefunden"}, "package": "tool"},
        {"translation": {"en": "Too large", "de": "Zu groß"}, "package": "tool"},
    ]
    assert texts_of(samples.messages(("de", "en"), tmp_path))[1] == ("Zu groß", "Too large")


def test_messages_of_two_languages_meet_in_their_packages_and_keys(tmp_path):
    german = {"tool": {"Yes": "Ja", "No": "Nein"}, "other": {"Save": "Sichern"}}
    catalogs(tmp_path, de=german, fr={"tool": {"Yes": "Oui", "Perhaps": "Peut-être"}})
    assert samples.messages(("fr", "de"), tmp_path) == [
        {"translation": {"fr": "Oui", "de": "Ja"}, "package": "tool"}
    ]


def test_plurals_are_two_messages_and_contexts_are_no_part_of_the_text(tmp_path):
    entries = {
        "%d file\0%d files": "%d Datei\0%d Dateien",
        "menu\x04Open": "Öffnen",
        "state\x04Open": "Offen",
        "size\x04{n} byte\0{n} bytes": "{n} Byte\0{n} Bytes groß",
    }
    catalogs(tmp_path, de={"tool": entries})
    assert sorted(texts_of(samples.messages(("en", "de"), tmp_path))) == [
        ("%d file", "%d Datei"),
        ("%d files", "%d Dateien"),
        ("Open", "Offen"),
        ("Open", "Öffnen"),
        ("{n} byte", "{n} Byte"),
        ("{n} bytes", "{n} Bytes groß"),
    ]


@pytest.mark.parametrize(
    ("english", "other", "expected"),
    [
        ("_File", "_Datei", ("File", "Datei")),
        ("&Save as…", "Speichern &unter …", ("Save as…", "Speichern unter …")),
        ("E_xit", "_Beenden", ("Exit", "Beenden")),
        ("_Open", "開く(_O)", ("Open", "開く")),
        ("bad record_size", "»record_size« falsch", ("bad record_size", "»record_size« falsch")),
        ("_Help", "Hilfe", ("_Help", "Hilfe")),
        ("__FILE__ of x", "__FILE__ von x", ("__FILE__ of x", "__FILE__ von x")),
        ("&lt;b&gt; of %1$s", "&lt;b&gt; von %1$s", ("&lt;b&gt; of %1$s", "&lt;b&gt; von %1$s")),
        ("research & money", "Forschung & Geld", ("research & money", "Forschung & Geld")),
        ("<b>%s</b>: {name}\n\tof %(n)d", "<b>%s</b>: {name}\nvon %(n)d",
         ("<b>%s</b>: {name} of %(n)d", "<b>%s</b>: {name} von %(n)d")),
    ],
)  # fmt: skip
def test_marks_of_keys_go_and_placeholders_stay(english, other, expected, tmp_path):
    catalogs(tmp_path, de={"tool": {english: other}})
    assert texts_of(samples.messages(("en", "de"), tmp_path)) == [expected]


def test_messages_that_teach_nothing_are_left_out_and_none_is_there_twice(tmp_path):
    nothing = {
        "OK": "OK",
        "%d": "%d.",
        "42": "vierzig",
        "translator-credits": "Ada Walsh",
        "word " * 61: "Wort",
    }
    catalogs(tmp_path, de={"a": {"Yes": "Ja"} | nothing, "b": {"Yes": "Ja", " Yes\n": "Ja\n", "No": "Nein"}})
    rows = samples.messages(("en", "de"), tmp_path)
    assert rows == [
        {"translation": {"en": "Yes", "de": "Ja"}, "package": "a"},
        {"translation": {"en": "No", "de": "Nein"}, "package": "b"},
    ]


def test_a_damaged_catalog_is_left_out(tmp_path):
    catalogs(tmp_path, de={"a": {"Yes": "Ja"}, "b": {"No": "Nein"}, "c": {"Save": "Sichern"}})
    (tmp_path / "de" / "LC_MESSAGES" / "a.mo").write_bytes(b"not a catalog")
    cut = tmp_path / "de" / "LC_MESSAGES" / "b.mo"
    cut.write_bytes(cut.read_bytes()[:40])
    assert texts_of(samples.messages(("en", "de"), tmp_path)) == [("Save", "Sichern")]


def test_messages_are_written_with_no_english_text_in_two_splits(tmp_path, monkeypatch, capsys):
    entries = {f"Message {number} of the tool": f"Nachricht {number}" for number in range(40)}
    catalogs(tmp_path / "all", de={"tool": entries, "twice": {"message 7 of the TOOL!": "Meldung 7"}})
    command = [
        "messages",
        tmp_path / "out",
        "--languages",
        "en,de",
        "--catalogs",
        tmp_path / "all",
        "--rows",
        "20",
    ]
    monkeypatch.setattr(sys, "argv", ["samples", *map(str, command)])
    main()
    assert "out/train.jsonl: 16 rows" in capsys.readouterr().out
    parts = read(tmp_path / "out")
    texts = [row["translation"]["en"].lower().rstrip("!") for part in parts.values() for row in part]
    assert len(set(texts)) == len(texts) == 20
    assert {tuple(row) for part in parts.values() for row in part} == {("translation", "package")}
    assert samples.write("messages", tmp_path / "out", catalogs=tmp_path / "all")["train"] == 32


SYNSETS = """\
  1 Not a sense: the licence stands here
00000001 06 n 02 bank 0 depository 0 001 @ 00000009 n 0000 | a house of money; "the bank is shut"; "a bank"
00000002 17 n 01 bank 1 000 | sloping land (beside water); "up the steep bank"; "on the banks"
00000003 14 n 01 bank 2 000 | a row of things  
00000004 21 n 02 bank 3 piggy_bank 0 000 | a container; "the piggy bank was empty"
00000005 03 n 01 thing 0 000 | anything; "a thing of beauty"; "one more thing"
00000006 03 n 01 bankruptcy 0 000 | a state of ruin; "the firm is ruined"
"""


@pytest.fixture
def wordnet(tmp_path):
    """Six nouns, a noun as adjective, and nothing else."""
    folder = tmp_path / "wordnet"
    folder.mkdir()
    (folder / "data.noun").write_text(SYNSETS)
    (folder / "data.adj").write_text('00000001 00 a 01 elect(ip) 0 000 | chosen; "president elect"\n')
    for part in ("verb", "adv"):
        (folder / f"data.{part}").write_text("00000001 00 r 01 so 0 000 | thus\n")
    return folder


def test_each_sense_with_a_sentence_is_asked_for_once_among_those_of_its_word(wordnet):
    rows = samples.senses("same", wordnet)
    definitions = {
        "the bank is shut": "a house of money",
        "up the steep bank": "sloping land (beside water)",
        "the piggy bank was empty": "a container",
    }
    assert {row["context"]: row["choices"]["ABCD".index(row["label"])] for row in rows} == definitions
    for row in rows:
        assert (row["word"], row["question"]) == ("bank", 'Which sense of "bank"?')
        assert sorted(row["choices"]) == sorted([*definitions.values(), "a row of things"])
    assert samples.senses("same", wordnet) == rows
    assert {row["label"] for seed in range(20) for row in samples.senses("same", wordnet, seed)} == {*"ABCD"}


def test_words_of_few_senses_are_asked_for_among_other_words(tmp_path, wordnet):
    lines = [
        f'000000{number} 00 n 01 word{number} 0 000 | meaning {number}; "a word{number}"'
        for number in range(20, 60)
    ]
    with (wordnet / "data.noun").open("a") as file:
        file.write("\n".join(lines) + "\n")
    rows = {row["context"]: row for row in samples.senses("other", wordnet)}
    assert rows.keys() == {"a thing of beauty", *(f"a word{number}" for number in range(20, 60))}
    for number in range(20, 60):
        row = rows[f"a word{number}"]
        assert row["choices"]["ABCD".index(row["label"])] == f"meaning {number}"
        assert len({*row["choices"]}) == 4


def test_senses_are_written_and_a_folder_without_them_is_told(wordnet, tmp_path, monkeypatch, capsys):
    command = ["senses", tmp_path / "out", "--dictionary", wordnet]
    monkeypatch.setattr(sys, "argv", ["samples", *map(str, command)])
    main()
    assert "out/train.jsonl: 1 rows" in capsys.readouterr().out
    rows = [row for part in read(tmp_path / "out").values() for row in part]
    assert {tuple(row) for row in rows} == {("context", "question", "choices", "label", "word")}
    (wordnet / "data.adv").unlink()
    with pytest.raises(InputError, match=r"data.adv: No such file.*wordnet-base"):
        samples.senses("same", wordnet)
    (wordnet / "data.adv").write_text("  1 a licence\n")
    with pytest.raises(InputError, match=r"data.adv holds no senses"):
        samples.senses("same", wordnet)


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


def test_tokens_for_holes_stand_behind_all_others_and_change_none(written, tokenizer, tmp_path):
    files = [str(written / "bulletins" / "1" / "train.jsonl")]
    assert samples.train_tokenizer(files, ["text", "summary"], tmp_path, 1500, True, 3) == 1504
    transformers = pytest.importorskip("transformers")
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    holes = ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "<mask>"]
    assert other.convert_tokens_to_ids(holes) == [1500, 1501, 1502, 1503]
    assert other.mask_token_id == 1503
    for text in TEXTS:
        assert other(text)["input_ids"] == tokenizer(text)["input_ids"]
    apart = [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Ashford beat", "on Friday.")
    ]
    found = other(" ".join(["Ashford beat", holes[0], holes[3], "on Friday."]), add_special_tokens=False)
    assert found["input_ids"] == [*apart[0], 1500, 1503, *apart[1]]
    assert other.decode(found["input_ids"], skip_special_tokens=True) == "Ashford beat on Friday."


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


def test_a_tokenizer_learns_from_both_sides_of_pairs(tmp_path):
    pytest.importorskip("transformers")
    rows = [
        {"translation": {"en": "zebra zebra", "de": "walrus walrus"}},
        {"translation": {"en": "zebra"}},
    ] * 3
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples.train_tokenizer([str(tmp_path / "a.jsonl")], ["translation"], tmp_path, 4000)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert {"Ġzebra", "Ġwalrus"} <= set(vocabulary)


@pytest.mark.parametrize(
    ("command", "messages"),
    [
        ("nothing OUT", ["invalid choice: 'nothing'", "docstrings", "sources", "bulletins", "tokenizer"]),
        ("bulletins FILE --rows 9", ["FILE: File exists"]),
        ("bulletins FILE/below --rows 9", ["FILE/below: Not a directory"]),
        ("bulletins OUT --columns tags", ["argument --columns: invalid choice: 'tags'", "entities"]),
        ("tokenizer OUT --files a.txt --extra_ids -1", ["extra_ids -1: must be at least 0"]),
        ("bulletins OUT --rows 2", ["2 rows cannot fill three splits"]),
        ("bulletins OUT --rows few", ["invalid int value: 'few'"]),
        ("messages OUT --languages en", ["two codes with a comma between them are needed, not 'en'"]),
        ("messages OUT --languages de,de", ["--languages de,de: they must differ"]),
        ("messages OUT --catalogs gone", ["gone/de/LC_MESSAGES holds no catalogs (*.mo)", "--catalogs"]),
        ("senses OUT --dictionary gone", ["gone/data.noun: No such file", "wordnet-base", "--dictionary"]),
        ("senses OUT --definitions own", ["argument --definitions: invalid choice: 'own'"]),
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


@pytest.mark.parametrize(
    "name", ["docstrings", "sources", "library", "messages", "senses", "bulletins", "tokenizer"]
)
def test_help_names_every_option(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["samples", name, "-h"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 0
    options = {"tokenizer": ["--files", "--columns", "--vocab_size"], "bulletins": ["--columns", "entities"]}
    options["messages"] = ["--languages", "--catalogs"]
    options["senses"] = ["--definitions", "--dictionary"]
    options = options.get(name, []) + (["--rows", "--seed"] if name != "tokenizer" else [])
    told = capsys.readouterr().out
    assert all(option in told for option in ["OUT_DIR", *options])
