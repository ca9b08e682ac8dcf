import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import time
from typing import ClassVar

import pytest

from triptych import data
from triptych.arguments import DataArguments, LabelArguments, TrainingArguments
from triptych.data import columns, readers, sources
from triptych.errors import InputError

datasets = pytest.importorskip("datasets")

NASTY = [
    *("007", "NA", "null", "nan", "1e5", "True", "-", "plain", " spaces around ", "\ttabs\tinside"),
    *(
        'quotes "in" the text',
        '"',
        '""',
        "comma, semicolon; pipe|",
        "two\nlines",
        "carriage\r\nreturn",
        "\r",
        "\n",
    ),
    *(
        "naïve café",
        "日本語、テキスト",
        "🙂🧪",
        "العربية",
        "\u2028 line separator",
        "\ufeff mark",
        "\u00a0",
        "\x85 \x0c \x1c",
    ),
    *("\\n backslash", "\\", "{'a': 1}", "[1, 2]", "#comment", "=1+1", "'", "é" * 300_000),
]


def nasty_rows(number: int = 60, seed: int = 0) -> list[dict[str, str]]:
    """Every nasty value at least once, and rows of random pieces of them."""
    generator = random.Random(seed)
    alphabet = "abc ,;\t\"'\\\n\r\u2028é日🙂{}[]:#0"
    rows = [{"text": value, "summary": f"row {index}"} for index, value in enumerate(NASTY)]
    for _ in range(number):
        rows.append({name: "".join(generator.choices(alphabet, k=9)) for name in ("text", "summary")})
    return rows


def encoded(rows: list[dict], suffix: str) -> bytes:
    """The rows as the bytes of a file, written by the standard library or pyarrow."""
    if suffix == "parquet":
        import pyarrow
        import pyarrow.parquet

        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return sink.getvalue()
    if suffix in ("csv", "tsv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), delimiter="," if suffix == "csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    return {
        "json": lambda: json.dumps(rows),
        "jsonl": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "txt": lambda: "".join(row["text"] + "\n" for row in rows),
    }[suffix]().encode()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def arguments(**given):
    return DataArguments(**given)


def load(files, columns=None, **given):
    given = arguments(train_file=str(files), **given)
    splits = {"train": True, "validation": False, "test": False}
    return sources.load_splits(given, **splits, columns=columns and (lambda *there: columns))["train"]


def problems(call, *args, **kwargs) -> list[str]:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return caught.value.problems


def run_python(code: str, *args: str) -> list[str]:
    """The lines that a new process prints."""
    source = os.path.dirname(os.path.dirname(readers.__file__))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": source}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout.splitlines()


def put(path, content: bytes | str):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Files that are good


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", readers.FORMATS)
@pytest.mark.parametrize("streaming", [False, True])
def test_nasty_rows_come_back_exactly_as_they_were_written(suffix, packed, streaming, tmp_path):
    rows = nasty_rows()
    if suffix == "txt":
        rows = [{"text": row["text"]} for row in rows if not {"\r", "\n"} & set(row["text"])]
    content = encoded(rows, suffix)
    path = put(
        tmp_path / f"Some.Train.{suffix.upper()}{packed.upper()}",
        gzip.compress(content) if packed else content,
    )
    assert readers.peek(str(path)) == (list(rows[0]), [])
    assert list(load(path, streaming=streaming)) == rows


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        # As in GLUE, whose texts may begin with a quote
        (
            ["profit rose|good", '"We are glad|good', 'It is over"|bad', "rain|good"],
            [["profit rose", "good"], ['"We are glad', "good"], ['It is over"', "bad"], ["rain", "good"]],
        ),
        (['"We are glad|good'], [['"We are glad', "good"]]),
        (['"Yes" she said|a', '"No"|b'], [['"Yes" she said', "a"], ['"No"', "b"]]),
        (['5" pipe|a', '""|b'], [['5" pipe', "a"], ['""', "b"]]),
        # As a CSV writer makes them
        (['"say ""hi"""|a', '"No"|b', "plain|c"], [['say "hi"', "a"], ["No", "b"], ["plain", "c"]]),
        (['"two', 'lines|tab"|a', "plain|b"], [["two\nlines\ttab", "a"], ["plain", "b"]]),
        (['"two', 'lines"|a', 'a "b" c|b'], [["two\nlines", "a"], ['a "b" c', "b"]]),
        (['""|""', '"a"|"b"'], [["", ""], ["a", "b"]]),
    ],
)
def test_quotes_of_a_tsv_are_text_or_a_writers_as_the_whole_file_says(lines, rows, tmp_path):
    text = "\n".join(["text|label", *lines, ""]).replace("|", "\t")
    path = put(tmp_path / "a.tsv", text)
    assert readers.peek(str(path)) == (["text", "label"], [])
    assert [list(row.values()) for row in load(path)] == rows
    problems: list[str] = []
    assert [list(row.values()) for _, row in readers.read_rows(str(path), problems)] == rows
    assert problems == []


def test_a_tsv_of_one_column_is_quoted_where_that_can_be(tmp_path):
    assert load(put(tmp_path / "a.tsv", 'text\n"two\nlines"\n"b"\n'))["text"] == ["two\nlines", "b"]
    assert load(put(tmp_path / "b.tsv", 'text\n"one\n"two" three\n'))["text"] == ['"one', '"two" three']


def test_a_line_of_a_plain_tsv_that_lacks_a_field_is_named(tmp_path):
    text = 'text\tlabel\n"We are glad\tgood\nno label\nrain\tbad\n'
    (problem,) = problems(load, put(tmp_path / "a.tsv", text))
    assert "a.tsv, line 3: number of fields 1, in the header 2" in problem


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "txt"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(suffix, tmp_path):
    content = encoded([{"text": "a"}, {"text": "b"}], suffix).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert load(put(tmp_path / f"a.{suffix}", b"\xef\xbb\xbf" + content))["text"] == ["a", "b"]


def test_old_line_ends_and_blank_lines_in_csv(tmp_path):
    assert load(put(tmp_path / "a.csv", "text,summary\ra,b\r\r\rc,d\r"))["text"] == ["a", "c"]
    assert load(put(tmp_path / "b.txt", "a\n\nb"))["text"] == ["a", "", "b"]


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a"}, {"text": "b"}]',
        ' \n[\n  {\n    "text": "a"\n  },\n  {\n    "text": "b"\n  }\n]\n',
        '{"data": [{"text": "a"}, {"text": "b"}]}',
        '{"version": "1.0", "n": -1.5, "ok": true, "data": [{"text": "a"}, {"text": "b"}], "x": {"y": [1]}}',
        '{"text": "a"}\n\n{"text": "b"}',
    ],
)
def test_the_forms_of_json(content, tmp_path):
    assert load(put(tmp_path / "a.json", content))["text"] == ["a", "b"]


def test_a_json_array_is_the_same_wherever_blocks_cut_it(tmp_path, monkeypatch):
    rows = [
        {"text": 'a\\"]},{ é🙂', "n": -1.5e-7, "deep": {"x": [True, None, {"y": []}]}},
        {"text": "", "n": 2.0},
    ] * 2
    path = put(tmp_path / "a.json", json.dumps(rows, indent=1) + " \n")
    for block in range(1, 90):
        monkeypatch.setattr(readers, "BLOCK", block)
        if block < 5:  # the start must be within the first block
            continue
        found: list[str] = []
        assert [row for _, row in readers.read_rows(str(path), found)] == rows
        assert not found


def test_types_of_json_and_parquet_are_kept_and_columns_may_be_left_out(tmp_path):
    rows = [{"text": "a", "n": 1, "x": 0.5, "list": ["p"], "object": {"q": 1}, "note": None}] * 1100
    rows += [{"text": "b", "n": 2, "x": 1, "list": [], "object": {"r": "s"}, "note": "late"}, {"text": "c"}]
    for suffix in ("json", "jsonl"):
        found = load(put(tmp_path / f"a.{suffix}", encoded(rows, suffix)))
        assert found[0] == {**rows[0], "object": {"q": 1, "r": None}}
        assert found[1100]["x"] == 1.0
        assert found[1100]["note"] == "late"
        assert found[1101]["n"] is None
    found = load(put(tmp_path / "a.parquet", encoded(rows[:5], "parquet")), columns=["list", "n"])
    assert found.column_names == ["list", "n"]
    assert found[0] == {"list": ["p"], "n": 1}


def test_parquet_of_categories_and_of_several_files_with_differing_number_types(tmp_path):
    import pyarrow
    import pyarrow.parquet

    for number, kind in enumerate([pyarrow.int32(), pyarrow.int64()]):
        words = pyarrow.array(["x", "y", "x"]).dictionary_encode()
        table = pyarrow.table({"text": words, "n": pyarrow.array([1, 2, 3], kind)})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
    found = load(tmp_path / "*.parquet")
    assert found["text"] == ["x", "y", "x"] * 2
    assert found.features["n"].dtype == "int64"


def test_lists_and_globs_in_order(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.csv", "a.csv", "deep/c.csv", "with, comma.csv", "[x].csv"):
        put(tmp_path / name, f"text\n{name[0]}\n")
    assert load(f"{tmp_path}/b.csv, {tmp_path}/a.csv")["text"] == ["b", "a"]
    assert load(tmp_path / "?.csv")["text"] == ["a", "b"]
    assert load(tmp_path / "**" / "?.csv")["text"] == ["a", "b", "d"]
    assert load(tmp_path / "with, comma.csv")["text"] == ["w"]
    assert load(tmp_path / "[x].csv")["text"] == ["["]
    assert load(f"{tmp_path}/a.csv,{tmp_path}/?.csv")["text"] == ["a", "b"]


# Files that are bad

BAD = {
    "short.csv": ("text,summary\na,b\n\nonly\n", "short.csv, line 4: number of fields 1, in the header 2"),
    "long.csv": ('text,summary\n"a\nb",c\nd,e,f\n', "long.csv, line 4: number of fields 3", "quote a field"),
    "long.tsv": ("text\tsummary\na\tb\tc\n", "line 2: number of fields 3"),
    "open.csv": ('text,summary\na,b\nc,"d\ne,f\n', "line 3: a quote is opened in this row and never closed"),
    "inner.csv": ('text,summary\n"a "b" c",d\n', "line 2: a quote inside a quoted field"),
    "twice.csv": ("text,text,summary\na,b,c\n", "'text' is there more than once"),
    "semicolon.csv": ("text;summary\na;b\n", "does ';' separate"),
    "tabs.csv": ("text\tsummary\na\tb\n", "does '\\t' separate"),
    "latin.csv": ("text\né\ncafé\n".encode("latin1"), "line 2: byte 0xe9 is not UTF-8", "iconv", "line 3"),
    "sixteen.csv": ("text\na\n".encode("utf-16"), "line 1: byte 0xff", "UTF-16"),
    "nomark.csv": ("text\na\n".encode("utf-16le"), "null characters; is it UTF-16"),
    "latin.json": ('[{"text": "a"},\n{"text": "é"}]'.encode("latin1"), "line 2: byte 0xe9"),
    "latin.txt": (b"fine\n\xff\n", "latin.txt, line 2"),
    "none.csv": ("", "is empty"),
    "none.txt": ("", "is empty"),
    "header.csv": ("text,summary\n", "is empty"),
    "none.json": ("[]", "is empty"),
    "blank.jsonl": ("\n\n", "is empty"),
    "none.csv.gz": (gzip.compress(b""), "is empty"),
    "none.parquet": ("", "none.parquet is damaged, cut off or not Parquet"),
    "text.parquet": ("text,summary\n", "damaged, cut off or not Parquet"),
    "broken.jsonl": ('{"text": "a"}\n{"text": "b"\n[1]\n3\n{"text": "c"}\n{x}\n', "line 2: not JSON: ",
                     "Expecting ',' delimiter at character 13.", "line 3: an object", "line 4", "line 6: "),
    "half.jsonl": ('{"text": "\\ud83d\\ude42"}\n{"text": "\\ud83d"}\n', "line 2: \\ud83d is half"),
    "deep.jsonl": ('{"a":' * 100_000, "line 1: not JSON"),
    "digits.jsonl": ('{"text": ' + "9" * 5000 + "}\n", "line 1: not JSON"),
    "cut.json": ('[{"text": "a"},\n {"text": "b', "row 2 (line 2): not JSON"),
    "unclosed.json": ('[{"text": "a"}\n', "row 2 (line 2)", "without the closing bracket"),
    "behind.json": ('[{"text": "a"}]\n, {"text": "b"}', "line 1: not JSON behind the last row"),
    "databehind.json": ('{"data": [{"text": "a"}]', "not JSON behind the last row"),
    "comma.json": ('[{"text": "a"},\n{"text": "b",,}]', "row 2 (line 2): not JSON"),
    "numbers.json": ("[1, 2]", "row 1 (line 1): an object", "row 2"),
    "word.json": ('"text"', "neither an array of objects", "line 1"),
    "pretty.json": ('{\n "text": "a"\n}', "neither an array of objects"),
    "packed.csv.gz": ("text\na\n", "not gzip"),
    "cut.csv.gz": (gzip.compress(bytes(range(128, 137)) + b"text\n" * 900)[:-12], "cut off"),
    "cut.parquet.gz": (gzip.compress(encoded([{"text": "a"}] * 99, "parquet"))[:-30], "cut off"),
    "cut.jsonl.gz": (gzip.compress(encoded(nasty_rows(), "jsonl"))[:-40], "cut off", "row read: ", ", line"),
    "pack.zip": ("PK", "the extension must be one of csv"),
    "rows": ("text\na\n", "the extension must be one of csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_the_line_and_what_was_found(name, tmp_path):
    content, *expected = BAD[name]
    path = put(tmp_path / name, content)
    quick = readers.peek(str(path))[1]
    assert quick
    assert problems(load, path) == [f"--train_file: {problem}" for problem in quick]
    for part in expected:
        assert part in "\n".join(quick)
    assert not list(tmp_path.glob("cache/triptych/*"))


CONTRADICTIONS = {
    "kinds.jsonl": (['{"a": "x"}', '{"a": null}', '{"a": 5}', '{"a": ["y"]}'],
                    "line 3: column 'a' holds 5, but the rows before it hold text", "'a' holds [\"y\"]"),
    "nested.jsonl": (['{"a": ["x"]}', '{"a": []}', '{"a": [1]}'], "line 3: column 'a' holds [1]"),
    "truth.jsonl": (['{"a": 1}', '{"a": true}'], "line 2: column 'a' holds true, but the rows before"),
    "large.jsonl": (['{"a": 1}', '{"a": 99999999999999999999}'], "holds 99999999999999999999, but Python"),
    "late.jsonl": (['{"a": "x"}'] * 2500 + ['{"a": 5}'], "line 2501: column 'a' holds 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_json_rows_that_contradict_each_other_are_named(name, tmp_path):
    lines, *expected = CONTRADICTIONS[name]
    path = put(tmp_path / name, "\n".join(lines))
    found = problems(load, path)
    assert len(found) == len(expected)
    assert all(part in problem for part, problem in zip(expected, found, strict=True))
    put(path, "\n".join(line[:-1] + ', "b": "fine"}' for line in lines))
    assert set(load(path, columns=["b"])["b"]) == {
        "fine"
    }  # a column that nobody asked for may be as it likes


def test_a_null_character_in_a_json_key_is_refused(tmp_path):
    assert problems(load, put(tmp_path / "a.jsonl", '{"text": "a", "b\\u0000": "c"}'))


def test_numbers_that_no_type_holds_exactly_are_refused(tmp_path):
    lines = [json.dumps({"a": 2**60 + 1})] * 1000 + [json.dumps({"a": 0.5})]
    assert (
        "line 1 and the 999 rows behind it: "
        in problems(load, put(tmp_path / "a.jsonl", "\n".join(lines)))[0]
    )


def test_nesting_beyond_what_arrow_can_store_is_refused(tmp_path):
    assert problems(load, put(tmp_path / "a.jsonl", '{"a": ' + "[" * 200 + "]" * 200 + "}"))


def test_ten_problems_come_at_once_and_no_more(tmp_path):
    put(tmp_path / "a.jsonl", "{\n" * 4)
    put(tmp_path / "b.jsonl", "{\n" * 400)
    put(tmp_path / "c.jsonl", "{\n" * 400)
    found = problems(load, tmp_path / "*.jsonl")
    assert len(found) == 10
    assert sum("b.jsonl" in problem for problem in found) == 6


def test_a_row_that_is_wrong_behind_the_quick_look_is_found_too_and_leaves_nothing(tmp_path):
    path = put(tmp_path / "a.csv", "text,summary\n" + "a,b\n" * 10_500 + "c\nd,e\nf\n")
    assert readers.peek(str(path)) == (["text", "summary"], [])
    assert [problem.split(":")[1].split(", ")[1] for problem in problems(load, path)] == [
        "line 10502",
        "line 10504",
    ]
    assert not list(tmp_path.glob("cache/triptych/*"))
    with pytest.raises(InputError, match="line 10502"):
        list(load(path, streaming=True))


def test_files_that_are_not_there(tmp_path):
    put(tmp_path / "train.csv", "text\na\n")
    (tmp_path / "folder.csv").mkdir()
    found = readers.peek(f"{tmp_path}/trian.csv,{tmp_path}/no*.csv,{tmp_path}/folder.csv,/nowhere/x.csv")[1]
    assert "no such file; did you mean" in found[0]
    assert "train.csv?" in found[0]
    assert "no*.csv: no such file" in found[1]
    assert "is a folder" in found[2]
    assert len(found) == 4
    assert readers.peek(" , ")[1] == ["' , ' names no file."]


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = put(tmp_path / "a.csv", "text\na\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "a.csv cannot be read: Permission denied" in readers.peek(str(path))[1][0]


def test_the_quick_look_shares_its_rows_among_many_files(tmp_path):
    for number in range(20):
        put(tmp_path / f"{number:02}.csv", "text\n" + "a\n" * 300 + "b,c\n")
    assert readers.peek(f"{tmp_path}/*.csv", 4000)[1] == []  # 200 rows of each
    assert len(readers.peek(f"{tmp_path}/*.csv", 10_000)[1]) == 10


def test_files_of_one_split_with_different_columns(tmp_path):
    put(tmp_path / "a.csv", "text,summary\na,b\n")
    put(tmp_path / "b.csv", "summary,text\nb,a\n")
    assert load(tmp_path / "*.csv")["text"] == ["a", "a"]
    put(tmp_path / "c.csv", "text,sumary\na,b\n")
    found = "\n".join(problems(load, tmp_path / "*.csv"))
    assert "c.csv has no column 'summary'" in found
    assert "a.csv has no column 'sumary'" in found


def test_a_runaway_quote_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_FIELD", 10_000)
    path = put(tmp_path / "a.csv", 'text\n"' + "a\n" * 100_000)
    assert "line 2: a quote is opened" in readers.peek(str(path))[1][0]
    path = put(tmp_path / "a.json", '[{"text": "' + "a" * 10_000_000)
    assert "row 1 (line 1): not JSON" in readers.peek(str(path))[1][0]


def test_whatever_the_bytes_the_answer_is_rows_or_problems(tmp_path):
    generator, started = random.Random(7), time.perf_counter()
    loaded, complaints = 0, []
    rows = [{"text": 'a "q", é🙂\nb', "summary": "s", "n": 1}, {"text": "", "summary": "t", "n": 2}] * 3
    for case in range(300):
        suffix = readers.FORMATS[case % len(readers.FORMATS)]
        content = bytearray(encoded(rows, suffix)) if case % 5 else bytearray(generator.randbytes(200))
        for _ in range(generator.choice([0, 1, 1, 3, 30])):
            place = generator.randrange(len(content))
            signs = [
                b'"',
                b"\n",
                b"[",
                b"{",
                b",",
                b"\\u",
                b"\0",
                b"\xff",
                content[: generator.randrange(40)],
                b"",
            ]
            content[place : place + generator.choice([0, 0, 1, 8])] = generator.choice(signs)
            content = content or bytearray(b"x")
        packed = generator.random() < 0.3
        content = gzip.compress(content, mtime=0) if packed else content
        if packed and generator.random() < 0.5:
            content = content[: generator.randrange(1, len(content))]
        path = put(tmp_path / f"{case}.{suffix}{'.gz' if packed else ''}", bytes(content))
        quick = readers.peek(str(path))[1]
        try:
            assert len(load(path)) > 0
            assert not quick
            loaded += 1
        except InputError as error:
            complaints.append(error.problems)
    assert all(complaint and all(complaint) for complaint in complaints)
    assert min(loaded, len(complaints)) > 50
    assert time.perf_counter() - started < 10


def test_the_quick_look_is_quick_and_imports_nothing_heavy(tmp_path):
    put(tmp_path / "a.csv", "text,summary\n" + "some text,a summary\n" * 2000)
    put(tmp_path / "b.jsonl.gz", gzip.compress(b'{"text": "some text", "summary": "s"}\n' * 2000))
    code = (
        "import sys, time; started = time.perf_counter(); from triptych import data;"
        "from triptych.data import columns, readers;"
        f"print(readers.peek({str(tmp_path) + '/a.csv'!r}), readers.peek({str(tmp_path) + '/b.jsonl.gz'!r}));"
        "print(time.perf_counter() - started);"
        "print(sorted({'datasets', 'pyarrow', 'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    found, seconds, heavy = run_python(code)
    assert found == "(['text', 'summary'], []) (['text', 'summary'], [])"
    assert heavy == "[]"
    assert float(seconds) < 1  # on a machine at work; 0.1 alone


# The cache


def test_a_changed_file_is_never_served_from_the_cache(tmp_path):
    path = put(tmp_path / "a.csv", "text\nold\n")
    assert load(path)["text"] == ["old"]
    made = os.path.getmtime(load(path).cache_files[0]["filename"])
    assert os.path.getmtime(load(path).cache_files[0]["filename"]) == made
    state = os.stat(path)
    put(path, "text\nnew\n")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # the same size and the same time
    assert load(path)["text"] == ["new"]


def test_overwrite_cache_reads_again(tmp_path):
    path = put(tmp_path / "a.csv", "text\na\n")
    cached = load(path).cache_files[0]["filename"]
    put(tmp_path / "wrong", "not an Arrow file").replace(cached)
    assert load(path, overwrite_cache=True)["text"] == ["a"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(put(tmp_path / "file", "")))
    assert "HF_HOME" in problems(load, put(tmp_path / "a.csv", "text\na\n"))[0]


# Splits


def test_every_split_that_is_needed_and_no_other(tmp_path):
    train, test = put(tmp_path / "a.csv", "text\na\n"), put(tmp_path / "b.txt", "b\n")
    given = arguments(train_file=str(train), test_file=str(test))
    assert list(sources.load_splits(given, train=True, validation=False, test=False)) == ["train"]
    assert sources.load_splits(given, train=False, validation=False, test=True)["test"]["text"] == ["b"]
    put(test, "")
    found = problems(sources.load_splits, given, train=True, validation=True, test=True)
    assert "evaluation" in found[0]
    assert "--validation_file" in found[0]
    assert "--test_file: " in found[1]


def test_a_column_that_is_not_there(tmp_path):
    assert (
        "no column x; there are: text."
        in problems(load, put(tmp_path / "a.csv", "text\na\n"), columns=["x"])[0]
    )


def hub(name, columns=None, needed=("train",), **given):
    splits = {split: split in needed for split in ("train", "validation", "test")}
    given = arguments(dataset_name=str(name), **given)
    return sources.load_splits(given, **splits, columns=columns and (lambda *there: columns))


def test_a_folder_is_a_dataset_and_other_spellings_of_splits_are_said(tmp_path, caplog):
    (tmp_path / "set").mkdir()
    for name in ("train", "dev", "test"):
        put(tmp_path / "set" / f"{name}.jsonl", json.dumps({"text": name, "summary": "s"}))
    found = hub("./set", ["text"], ("train", "validation"))
    assert found["validation"]["text"] == ["dev"]
    assert found["train"].column_names == ["text"]
    if "'dev'" not in caplog.text:  # the builder may have called it validation already
        assert "validation" in datasets.load_dataset("./set")
    assert "'x'" in problems(hub, "./set", ["x"])[0]
    (tmp_path / "set" / "test.jsonl").unlink()
    missing = problems(hub, "./set", None, ("test",))[0]
    assert "no split test for prediction; there are: train, " in missing


def test_a_dataset_saved_to_disk(tmp_path, caplog):
    whole = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "val")}
    )
    whole.save_to_disk(tmp_path / "saved")
    whole["train"].save_to_disk(tmp_path / "one")
    assert hub(tmp_path / "saved", None, ("validation",))["validation"]["text"] == ["val"]
    assert "'val'" in caplog.text
    assert hub(tmp_path / "one")["train"]["text"] == ["train"]


def test_streaming_streams_the_training_rows_only(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("train", "validation"):
        put(tmp_path / "set" / f"{name}.jsonl", '{"text": "x", "summary": "y"}\n' * 3)
    found = hub("./set", ["text"], ("train", "validation"), streaming=True)
    assert data.is_stream(found["train"])
    assert list(found["train"]) == [{"text": "x"}] * 3
    assert len(found["validation"]) == 3
    assert found["validation"].column_names == ["text"]


def test_names_that_cannot_be_loaded(tmp_path):
    (tmp_path / "empty").mkdir()
    put(tmp_path / "a.csv", "text\na\n")
    assert "is a file: give --train_file" in problems(hub, tmp_path / "a.csv")[0]
    assert "no such folder" in problems(hub, "./nowhere")[0]
    assert "--dataset_name ./empty" in problems(hub, "./empty")[0]
    for name in ("cnn_dailymail", "nobody/nothing"):
        (found,) = problems(hub, name)
        assert "cannot be reached" in found
        assert "--train_file" in found
        assert "HF_HOME" in found
        assert "\n" not in found
        assert "HF_HUB_OFFLINE=1" in found


def test_a_hub_without_an_address_is_found_out_at_once(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)

    def unknown(*args):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    started = time.perf_counter()
    assert "cannot be reached" in problems(hub, "cnn_dailymail")[0]
    assert time.perf_counter() - started < 2


# Rows


def some_rows(number: int = 10):
    return datasets.Dataset.from_dict(
        {"text": [f"text {n}" for n in range(number)], "n": list(range(number))}
    )


def test_a_limit_beyond_the_end_is_no_error():
    for rows in (some_rows(), some_rows().to_iterable_dataset()):
        assert [len(list(data.limit(rows, number))) for number in (3, 10, 99, None)] == [3, 10, 10, 10]


def test_empty_rows_are_dropped_and_counted(caplog):
    texts = ["a", "", None, " \t\n", "\u3000\u00a0", "b", "c"]
    rows = datasets.Dataset.from_dict({"text": texts, "summary": ["s"] * 6 + ["\r"], "n": list(range(7))})
    assert data.drop_empty(rows, ["text", "summary"], "train")["n"] == [0, 5]
    assert "train: 5 of 7 rows dropped" in caplog.text
    assert "row 2, 3, 4, 5, 7" in caplog.text
    stream = data.drop_empty(rows.to_iterable_dataset(), ["text", "summary"], "train")
    assert [row["n"] for row in stream] == [0, 5]
    caplog.clear()
    assert len(data.drop_empty(rows.select([0, 5]), ["text", "summary"], "train")) == 2
    assert not caplog.records
    nothing = problems(data.drop_empty, rows.select([1, 2]), ["text"], "validation")
    assert "validation: not one of 2 rows has text in text" in nothing[0]


def test_every_white_space_that_python_knows_is_empty_in_both_forms():
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    rows = datasets.Dataset.from_dict({"text": [*spaces, "\u200b"]})
    assert data.drop_empty(rows, ["text"], "train")["text"] == ["\u200b"]
    assert [row["text"] for row in data.drop_empty(rows.to_iterable_dataset(), ["text"], "train")] == [
        "\u200b"
    ]


def test_a_text_column_of_numbers_is_refused():
    assert (
        "'n' must hold text, not int64" in problems(data.drop_empty, some_rows(), ["text", "n"], "train")[0]
    )
    with pytest.raises(InputError, match="'n' must hold text, not 0"):
        list(data.drop_empty(some_rows().to_iterable_dataset(), ["text", "n"], "train"))
    lists = datasets.Dataset.from_dict({"text": [["a"]]})
    assert "must hold text" in problems(data.drop_empty, lists, ["text"], "train")[0]


def letters(batch):
    assert set(batch) == {"text"}
    assert 0 < len(batch["text"]) <= 1000
    return {"input_ids": [[ord(letter) for letter in text] for text in batch["text"]]}


@pytest.mark.parametrize("workers", [None, 2])
def test_tokenizing_keeps_the_order_and_only_the_new_columns(workers):
    rows = some_rows(2345)
    given = arguments(preprocessing_num_workers=workers)
    names = {"text": "text", "summary": "summary"}
    found = data.features({"train": rows}, letters, names, given)["train"]
    assert found.column_names == ["input_ids"]
    assert ["".join(map(chr, ids)) for ids in found["input_ids"]] == rows["text"][:]
    stream = data.features({"train": rows.to_iterable_dataset()}, letters, names, given)["train"]
    assert list(stream) == list(found)


@pytest.mark.parametrize("workers", [None, 2])
def test_features_that_are_more_or_fewer_than_the_rows_say_which_they_are_of(workers):
    def halves(batch):
        parts = [
            (row, half) for row, text in enumerate(batch["text"]) for half in (text[:3], text[3:]) if half
        ]
        return {"half": [half for _, half in parts], data.ROW: [row for row, _ in parts]}

    rows = datasets.Dataset.from_dict({"text": ["", "ab", "abcdef"] * 800})
    given = arguments(preprocessing_num_workers=workers)
    found = data.features({"train": rows}, halves, {"text": "text"}, given)["train"]
    expected = [(3 * n + row, half) for n in range(800) for row, half in ((1, "ab"), (2, "abc"), (2, "def"))]
    assert list(zip(found[data.ROW], found["half"], strict=True)) == expected
    stream = data.features({"train": rows.to_iterable_dataset()}, halves, {"text": "text"}, given)["train"]
    assert [(row[data.ROW], row["half"]) for row in stream] == expected


def test_tokenizing_again_is_read_from_the_cache_unless_it_is_to_be_overwritten(tmp_path):
    code = f"""
import datasets; from triptych import data; from triptych.arguments import DataArguments
from triptych.data import sources
datasets.config.HF_DATASETS_CACHE = {str(tmp_path / "cache")!r}
given = DataArguments(train_file="a.csv")
for factor, given.overwrite_cache in [(1, False), (2, False), (1, True)]:
    rows = sources.load_splits(given, train=True, validation=False, test=False)["train"]
    def preprocess(batch):
        print("called", end=" ")
        return {{"length": [factor * len(text) for text in batch["text"]]}}
    print(data.features({{"train": rows}}, preprocess, {{"text": "text"}}, given)["train"]["length"][:])
print(data.fingerprint(rows))
"""
    put(tmp_path / "a.csv", "text\nabc\nde\n")
    first, second = run_python(code), run_python(code)
    assert first[:3] == ["called [3, 2]", "called [6, 4]", "called [3, 2]"]
    # The first process ended by reading the file again, but the rows and the cached results are the same.
    assert second[:3] == ["[3, 2]", "[6, 4]", "called [3, 2]"]
    assert first[3] == second[3]


# Fingerprints


def test_a_fingerprint_depends_on_the_values_alone(tmp_path):
    rows = nasty_rows()
    found = {
        data.fingerprint(load(put(tmp_path / f"a.{suffix}", encoded(rows, suffix))))
        for suffix in ("csv", "json")
    }
    found.add(data.fingerprint(datasets.Dataset.from_list(rows)))
    found.add(data.fingerprint(datasets.Dataset.from_list(rows[::-1]).select(range(len(rows))[::-1])))
    (same,) = found
    for other in (
        rows[::-1],
        rows[:-1],
        [{**rows[0], "text": "x"}, *rows[1:]],
        [{"text": row["text"]} for row in rows],
    ):
        assert data.fingerprint(datasets.Dataset.from_list(other)) != same


def test_a_fingerprint_tells_apart_what_joined_text_would_not():
    pairs = [["ab", "c"], ["a", "bc"], ["abc", ""], ["abc", None], ["", "abc"]]
    found = {data.fingerprint(datasets.Dataset.from_dict({"text": pair})) for pair in pairs}
    assert len(found) == len(pairs)
    assert data.fingerprint(datasets.Dataset.from_dict({"n": [1, 2]})) != data.fingerprint(
        datasets.Dataset.from_dict({"n": [1, 3]})
    )


def test_the_fingerprint_of_a_stream_is_that_of_its_files(tmp_path):
    path = put(tmp_path / "a.csv", "text\na\n")
    (tmp_path / "elsewhere").mkdir()
    first = data.fingerprint(load(path, streaming=True))
    again = load(put(tmp_path / "elsewhere" / "a.csv", "text\nb\n"), streaming=True)
    assert data.fingerprint(data.drop_empty(data.limit(again, 5), ["text"], "train")) == first
    assert data.fingerprint(load(put(path, "text\nabc\n"), streaming=True)) != first


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_table_as_pandas_writes_it_by_default_is_told_how_to_write(suffix, tmp_path):
    columns = {"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}
    for table in (
        columns,
        {"0": {"text": "a", "label": "x"}, "1": {"text": "b", "label": "y"}},
        {"columns": ["text", "label"], "index": [0, 1], "data": [["a", "x"], ["b", "y"]]},
        {"schema": {"fields": []}, "data": [{"index": 0, "text": "a"}]},
        {"text": {str(number): "a" * 100 for number in range(20_000)}},
    ):
        for indent in (None, 2):
            path = put(tmp_path / f"a.{suffix}", json.dumps(table, indent=indent))
            (problem,) = readers.peek(str(path))[1]
            assert "orient='records'" in problem
    rows = [{"about": {"id": 1}, "text": "a"}, {"about": {"id": 2}, "text": "b"}]
    assert readers.peek(str(put(path, "\n".join(map(json.dumps, rows))))) == (["about", "text"], [])
    assert readers.peek(str(put(path, json.dumps(rows[0])))) == (["about", "text"], [])
    assert readers.peek(str(put(path, json.dumps({"index": [1], "text": "a"})[:-4])))[1]


class Texts(DataArguments):
    def wanted_columns(self):
        return {"text": None}


def test_columns_that_nothing_uses_may_hold_anything(tmp_path):
    """Numbers and text, integers beyond 64 bits, objects of many shapes."""
    others = [{"id": 7, "n": 1, "o": {"a": 1}}, {"id": "A7", "n": 10**30, "o": [1]}, {"o": {"a": {"b": "c"}}}]
    rows = [{"text": f"row {number}", **other} for number, other in enumerate(others)]
    args = run(do_train=True)
    for suffix in ("jsonl", "json"):
        path = put(tmp_path / f"a.{suffix}", encoded(rows, suffix))
        given = Texts(train_file=str(path))
        assert given.problems() == []
        found, _ = data.load(given, args)
        assert found["train"].to_list() == [{"text": row["text"]} for row in rows]
        (stream,) = data.load(Texts(train_file=str(path), streaming=True), args)[0].values()
        assert list(stream) == found["train"].to_list()
    # Two columns without a name, as a spreadsheet leaves them at the end
    found, _ = data.load(Texts(train_file=str(put(tmp_path / "a.csv", "text,,\na,,\nb,,\n"))), args)
    assert found["train"]["text"][:] == ["a", "b"]
    # What is wanted is looked at as before.
    given = Texts(train_file=str(put(tmp_path / "b.jsonl", encoded([{"text": 1}, {"text": "a"}], "jsonl"))))
    assert "the rows before it hold numbers" in problems(data.load, given, args)[0]


def test_answers_have_a_line_for_each_row_of_their_source(tmp_path):
    lines = ["", "a", " ", "b", "c", ""]
    path = put(tmp_path / "test.jsonl", encoded([{"text": line} for line in lines], "jsonl"))
    args = run(do_predict=True)
    rows = data.load(Texts(test_file=str(path)), args)[0]["test"]
    assert (rows["text"][:], rows[data.NUMBER][:]) == (["a", "b", "c"], [2, 4, 5])
    assert data.by_source(["A", "B", "C"], rows) == ["", "A", "", "B", "C", ""]
    rows = data.load(Texts(test_file=str(path), max_predict_samples=3), args)[0]["test"]
    assert data.by_source(["A"], rows) == ["", "A", ""]


def test_splits_that_name_a_column_differently_are_refused(tmp_path):
    """With the names of the last split the others would be read wrongly."""
    train, test = put(tmp_path / "train.csv", "text\na\n"), put(tmp_path / "test.csv", "article\nb\n")
    args = TrainingArguments(do_train=True, do_predict=True)
    with pytest.raises(InputError, match=r"text is in the column 'article' of the test rows, but in 'text'"):
        data.load(Texts(train_file=str(train), test_file=str(test)), args)


class Pairs(LabelArguments):
    several: ClassVar[list[str]] = []

    def joined_columns(self):
        return self.several

    def wanted_columns(self):
        roles = columns.text_roles(",".join(self.several), self.text_column_delimiter)
        return {**roles, "label": None}


def saved(path, **splits):
    datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    ).save_to_disk(path)
    return str(path)


ROWS = [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 2, "id": str(n)} for n in range(6)]


def run(*chosen, **flags):
    args = TrainingArguments(**flags)
    vars(args)["chosen"] = frozenset(chosen)
    return args


def test_without_a_phase_a_dataset_does_what_it_has_splits_for_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO", "triptych")
    phases = ("do_train", "do_eval", "do_predict")
    for splits, expected, said in (
        (("train", "validation", "test"), (True, True, False), "training and evaluation."),
        (("train", "test"), (True, False, False), "training."),
        (("test",), (False, False, True), "prediction."),
    ):
        name = saved(tmp_path / "-".join(splits), **dict.fromkeys(splits, ROWS))
        args = run(*phases, do_train=True, do_eval=True)
        raw, _ = data.load(Pairs(dataset_name=name), args)
        assert tuple(getattr(args, phase) for phase in phases) == expected
        assert [phase for phase, split in data.PHASES.items() if split in raw] == [
            phase for phase in phases if getattr(args, phase)
        ]
        assert caplog.records[-1].getMessage().endswith(said) or said in caplog.text
        caplog.clear()
    # Evaluations during training were asked for.
    name = str(tmp_path / "train-test")
    with pytest.raises(InputError, match=r"no split validation for evaluation.*--validation_split_name test"):
        data.load(Pairs(dataset_name=name), run(*phases, do_train=True, eval_strategy="epoch"))


def test_splits_and_columns_by_name_and_those_left_out(tmp_path):
    name = saved(tmp_path / "d", train=ROWS, dev=ROWS[:2], other=ROWS[:3])
    args = run(do_train=True, do_eval=True, do_predict=True)
    given = dict(train_split_name="other", validation_split_name="train", test_split_name="dev")
    raw, _ = data.load(Pairs(dataset_name=name, **given), args)
    assert [len(rows) for rows in raw.values()] == [3, 6, 2]
    found = problems(data.load, Pairs(dataset_name=name, train_split_name="trian"), run(do_train=True))
    assert "no split trian for training; there are: train, dev, other." in found[0]
    found = problems(data.load, Pairs(dataset_name=name, remove_splits="dev, other"), run(do_eval=True))
    assert "no split validation for evaluation; there are: train." in found[0]
    removed = Pairs(dataset_name=name, remove_columns="premise,hypothesis")
    assert "there are: label, id" in problems(data.load, removed, run(do_train=True))[0]
    assert "is for --dataset_name" in Pairs(train_file="x.csv", remove_splits="test").problems()[0]


def test_training_rows_are_shuffled_before_the_first_are_taken(tmp_path):
    name = saved(tmp_path / "d", train=ROWS)

    def premises(**given):
        pairs = Pairs(dataset_name=name, max_train_samples=3, **given)
        return data.load(pairs, run(do_train=True))[0]["train"]["premise"][:]

    assert premises() == ["p0", "p1", "p2"]
    shuffled = premises(shuffle_train_dataset=True)
    assert shuffled != premises()
    assert shuffled == premises(shuffle_train_dataset=True, shuffle_seed=42)
    assert shuffled != premises(shuffle_train_dataset=True, shuffle_seed=1)
    stream = Pairs(dataset_name=name, streaming=True, shuffle_train_dataset=True)
    streamed = data.load(stream, run(do_train=True, max_steps=1))[0]["train"]
    assert sorted(row["premise"] for row in streamed) == [row["premise"] for row in ROWS]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_texts_of_several_columns_are_joined_without_the_empty_ones(streaming, tmp_path):
    rows = [*ROWS, {"premise": " ", "hypothesis": None, "label": 0, "id": "6"}]
    name = saved(tmp_path / "d", train=[*rows, {"premise": "", "hypothesis": None, "label": 0, "id": ""}])

    class Joined(Pairs):
        several: ClassVar = ["premise", "hypothesis", "id"]

    raw, names = data.load(Joined(dataset_name=name, streaming=streaming), run(do_train=True, max_steps=1))
    assert names == {"text": "premise + hypothesis + id", "label": "label"}
    texts = [row[names["text"]] for row in raw["train"]]
    assert texts == [f"p{n} h{n} {n}" for n in range(6)] + ["6"]
    Joined.several = ["premise", "story", "id"]
    assert "'story': no such column" in problems(data.load, Joined(dataset_name=name), run(do_train=True))[0]
