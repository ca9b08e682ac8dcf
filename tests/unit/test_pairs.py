import json
from types import SimpleNamespace

import pytest

from triptych import data
from triptych.arguments import PairArguments, TrainingArguments
from triptych.data import language_codes, pairs
from triptych.errors import InputError

datasets = pytest.importorskip("datasets")

EN_DE = {"source_lang": "en", "target_lang": "de"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def put(name: str, content: str | list[dict]) -> str:
    """A file of text, or of rows: Parquet by its name, else a line each in JSON."""
    if name.endswith("parquet"):
        datasets.Dataset.from_list(content).to_parquet(name)
    else:
        if not isinstance(content, str):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        with open(name, "w", newline="") as file:
            file.write(content)
    return name


def load(split: str = "train", **flags):
    """The rows of one split as lists, and the columns by role."""
    phase = {"train": "do_train", "validation": "do_eval", "test": "do_predict"}[split]
    given = PairArguments(**flags)
    assert given.problems() == []
    raw, names = data.load(given, TrainingArguments(max_steps=1, **{phase: True}))
    rows = [{name: row[name] for name in names.values()} for row in raw[split]]
    return rows, names


def problems(*args, **flags) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(*args, **flags)
    return caught.value.problems


def of_pairs(*pairs) -> list[dict]:
    return [{"id": str(number), "translation": pair} for number, pair in enumerate(pairs)]


# Codes of languages


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *[(code, "de") for code in ("de", "deu_Latn", "de_DE", "de-AT", "DE", "__de__")],
        *[("zho_Hans", "zh"), ("zh_CN", "zh"), ("arb_Arab", "ar"), ("swh_Latn", "sw"), ("fil", "fil")],
    ],
)
def test_the_language_of_a_code_has_two_letters_if_it_can(code, expected):
    assert language_codes.language(code) == expected


def test_the_table_of_codes_is_of_three_letters_to_two():
    table = language_codes.TWO_LETTERS
    assert {(len(three), len(two)) for three, two in table.items()} == {(3, 2)}
    assert len(table) == len(language_codes._PAIRS.split()) / 2 > 130  # none twice


def test_a_name_for_a_language_is_the_nearest_or_all_that_may_be_meant():
    find = language_codes.find
    assert find("de", ["en", "de", "de_AT"]) == ["de"]
    assert find("de_DE", ["en", "de"]) == find("deu_Latn", ["en", "de"]) == ["de"]
    assert find("de", ["eng_Latn", "deu_Latn"]) == ["deu_Latn"]
    assert find("zh-cn", ["zh_CN", "zh_TW"]) == ["zh_CN"]
    assert find("zh", ["zh_CN", "zh_TW"]) == ["zh_CN", "zh_TW"]
    assert find("fr", ["en", "de"]) == []


# Pairs by language


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("codes", [("de", "en"), ("de_DE", "en_XX"), ("deu_Latn", "eng_Latn")])
def test_pairs_have_the_direction_of_the_flags_however_they_spell_languages(codes, suffix, streaming):
    name = put(f"a.{suffix}", of_pairs({"en": "One.", "de": "Eins."}, {"en": "Two.", "de": "Zwei."}))
    source, target = codes
    found, names = load(train_file=name, source_lang=source, target_lang=target, streaming=streaming)
    assert found == [{"source": "Eins.", "target": "One."}, {"source": "Zwei.", "target": "Two."}]
    assert names == {"source": "source", "target": "target"}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_with_the_feature_translation_is_read(streaming):
    kind = datasets.Features(translation=datasets.Translation(languages=["de", "en"]))
    rows = datasets.Dataset.from_dict({"translation": [{"en": "One.", "de": "Eins."}]}, features=kind)
    datasets.DatasetDict(train=rows).save_to_disk("saved")
    found, _ = load(dataset_name="./saved", streaming=streaming, **EN_DE)
    assert found == [{"source": "One.", "target": "Eins."}]


@pytest.mark.parametrize("streaming", [False, True])
def test_pairs_without_the_language_of_a_flag_are_told_once_with_those_there_are(streaming):
    name = put("a.jsonl", of_pairs({"en": "a", "de": "b"}, {"en": "c", "de": "d"}))
    flags = {"train_file": name, "streaming": streaming}
    assert problems(source_lang="fr", target_lang="es", **flags) == [
        "--source_lang fr: the pairs in 'translation' have no fr; there are: en, de.",
        "--target_lang es: the pairs in 'translation' have no es; there are: en, de.",
    ]
    (problem,) = problems(**flags)
    assert "(en, de): say which is the source and which the target with --source_lang and" in problem
    (problem,) = problems(source_lang="en_XX", target_lang="en_GB", **flags)
    assert "are both 'en' in the pairs" in problem
    name = put("b.jsonl", of_pairs({"en": "a", "zh_CN": "b", "zh_TW": "c"}))
    (problem,) = problems(train_file=name, source_lang="en", target_lang="zh", streaming=streaming)
    assert "have several for zh; there are: en, zh_CN, zh_TW" in problem


@pytest.mark.parametrize("streaming", [False, True])
def test_pairs_of_other_languages_are_told_with_their_rows(streaming):
    others = [{"en": "a", "fr": "b"}, {"de": "a", "fr": "b"}, {"fr": "a", "es": "b"}]
    name = put("a.jsonl", of_pairs({"en": "a", "de": "b"}, *others))
    assert problems(train_file=name, streaming=streaming, **EN_DE) == [
        "train, row 2: no text in de; there are: en, fr.",
        "train, row 3: no text in en; there are: de, fr.",
        "train, row 4: no text in en or de; there are: fr, es.",
    ]
    many = put("b.jsonl", of_pairs({"en": "a", "de": "b"}, *others * 500))
    for _ in range(2):  # also from the cache
        told = problems(train_file=many, streaming=streaming, **EN_DE)
        assert [problem.partition(":")[0] for problem in told] == [f"train, row {n}" for n in range(2, 12)]


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_sides_are_dropped_and_counted(streaming, caplog):
    empty = [{"en": "", "de": "b"}, {"en": "a", "de": None}, {"en": " \u00a0", "de": "b"}, {"en": "a"}, None]
    name = put("a.jsonl", of_pairs({"en": "a", "de": "b"}, *empty, {"en": "c", "de": "d"}))
    found, _ = load(train_file=name, streaming=streaming, **EN_DE)
    assert found == [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]
    told = "train: 5 of 7 rows dropped, source or target being empty: row 2, 3, 4, 5, 6."
    assert streaming or told in caplog.text


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("pair", "expected"),
    [("Hallo", 'holds "Hallo", not texts by language; --source_column'), ([1], "holds [1], not texts by")],
)
def test_a_column_of_that_name_that_holds_no_pairs_is_told_once(pair, expected, streaming):
    name = put("a.jsonl", of_pairs(*[pair] * 20))
    (problem,) = problems(train_file=name, streaming=streaming, **EN_DE)
    assert "the column 'translation' " in problem
    assert expected in problem


@pytest.mark.parametrize("streaming", [False, True])
def test_a_pair_that_holds_no_text_is_told(streaming):
    (problem,) = problems(
        train_file=put("a.jsonl", of_pairs({"en": "a", "de": 5})), streaming=streaming, **EN_DE
    )
    assert problem == "train, row 1: 'de' holds 5, not text."


def test_rows_to_predict_may_be_without_targets():
    name = put("a.jsonl", of_pairs({"en": "a"}, {"en": "b"}))
    assert load("test", test_file=name, **EN_DE) == ([{"source": "a"}, {"source": "b"}], {"source": "source"})
    # One row alone is no table of pandas.
    assert load("test", test_file=put("b.jsonl", [{"translation": {"en": "a"}}]), **EN_DE)[0]
    rows = [{"translation": {"en": "a"}, "to": "de"}, {"translation": {"en": "b"}, "to": "fr"}]
    found, _ = load("test", test_file=put("d.jsonl", rows), source_lang="en", target_lang_column="to")
    assert found == [{"source": "a", "target language": "de"}, {"source": "b", "target language": "fr"}]
    # But where there are others, the flag is wrong.
    name = put("c.jsonl", of_pairs({"en": "a", "fr": "b"}))
    assert "--target_lang de" in problems("test", test_file=name, **EN_DE)[0]


# Columns


@pytest.mark.parametrize(
    ("there", "flags", "found"),
    [
        ("translation", {}, {"translation": "translation"}),  # wmt14, wmt16, wmt19, opus100, iwslt2017
        ("id translation", {}, {"translation": "translation"}),  # opus_books, kde4
        ("text summary topic translation", {}, {"translation": "translation"}),  # our own bulletins
        (
            "id URL sentence_eng_Latn sentence_deu_Latn",  # flores
            {"source_lang": "eng_Latn", "target_lang": "deu_Latn"},
            {"source": "sentence_eng_Latn", "target": "sentence_deu_Latn"},
        ),
        ("source target", {}, {"source": "source", "target": "target"}),
        ("src tgt", {}, {"source": "src", "target": "tgt"}),
        ("source translation", {}, {"source": "source", "target": "translation"}),
        (
            "sentence translation",
            {"source_column": "sentence"},
            {"source": "sentence", "target": "translation"},
        ),
        ("English German", {}, {"source": "English", "target": "German"}),
        ("de en", EN_DE, {"source": "en", "target": "de"}),
        ("de en", {"source_lang": "en_XX", "target_lang": "de_DE"}, {"source": "en", "target": "de"}),
        (
            "deu eng",
            {"source_lang": "eng_Latn", "target_lang": "deu_Latn"},
            {"source": "eng", "target": "deu"},
        ),
        ("a b c", {"source_column": "c", "target_column": "a"}, {"source": "c", "target": "a"}),
    ],
)
def test_columns_are_found_by_their_names_and_languages(there, flags, found):
    assert PairArguments(**flags).resolve_columns(there.split(), "train") == found


@pytest.mark.parametrize("streaming", [False, True])
def test_two_columns_of_any_name_in_any_format(streaming):
    expected = [{"source": 'tab\t"in" it', "target": "b"}, {"source": "c", "target": "d"}]
    flags = {"source_column": "target", "target_column": "x", "streaming": streaming}
    rows = [{"x": row["target"], "target": row["source"], "note": "n"} for row in expected]
    for suffix in ("jsonl", "parquet"):
        assert load(train_file=put(f"a.{suffix}", rows), **flags)[0] == expected
    table = 'x\ttarget\tnote\nb\t"tab\t""in"" it"\tn\nd\tc\tn\n'
    assert load(train_file=put("a.tsv", table), **flags)[0] == expected
    found, _ = load(train_file=put("b.tsv", "en\tde\nHi!\tHallo!\n"), streaming=streaming)
    assert found == [{"source": "Hi!", "target": "Hallo!"}]


def test_columns_may_have_each_others_names():
    name = put("a.jsonl", [{"source": "a", "target": "b"}])
    for streaming in (False, True):
        flags = {"source_column": "target", "target_column": "source", "streaming": streaming}
        assert load(train_file=name, **flags)[0] == [{"source": "b", "target": "a"}]


def test_splits_may_come_in_different_forms():
    train = put("train.jsonl", of_pairs({"en": "a", "de": "b"}))
    validation = put("validation.tsv", "de\ten\nb\ta\n")
    test, of_lines = put("test.jsonl", [{"en": "a"}]), put("test.en", "a\n")
    for file in (test, of_lines):
        given = PairArguments(train_file=train, validation_file=validation, test_file=file, **EN_DE)
        assert given.problems() == []
        raw, names = data.load(given, TrainingArguments(do_train=True, do_eval=True, do_predict=True))
        assert names == {"source": "source", "target": "target"}
        assert [rows["source"][:] for rows in raw.values()] == [["a"]] * 3
        assert [rows["target"][:] for rows in list(raw.values())[:2]] == [["b"]] * 2
        assert "target" not in raw["test"].column_names


# Aligned files


@pytest.mark.parametrize("streaming", [False, True])
def test_aligned_files_stay_aligned_over_empty_lines_and_odd_characters(streaming, caplog):
    # Only a line feed ends a line: other breaks are characters of the text.
    source = put("a.en", "One.\n\nThree \r and\u2028more\x85.\r\n \nFive.\nSix.")
    target = put("a.de", "Eins.\nZwei.\nDrei.\nVier.\n\nSechs.\n")
    found, names = load(train_file=source, train_target_file=target, streaming=streaming)
    assert found == [
        {"source": "One.", "target": "Eins."},
        {"source": "Three \r and\u2028more\x85.", "target": "Drei."},
        {"source": "Six.", "target": "Sechs."},
    ]
    assert names == {"source": "source", "target": "target"}
    assert (
        streaming or "train: 3 of 6 rows dropped, source or target being empty: row 2, 4, 5." in caplog.text
    )


def test_aligned_files_of_different_lengths_are_refused_with_both_counts():
    source, target = put("a.en", "a\nb\nc"), put("a.de", "a\nb\n")
    given = PairArguments(train_file=source, train_target_file=target)
    told = "--train_file: a.en has 3 lines, a.de has 2 lines: line by line they must belong together."
    assert given.problems() == [told]
    with pytest.raises(InputError) as caught:
        data.load(given, TrainingArguments(do_train=True))
    assert caught.value.problems == [told]
    assert PairArguments(train_file=put("b.en", "a\n\n"), train_target_file=target).problems() == []


@pytest.mark.parametrize("streaming", [False, True])
def test_several_aligned_files_are_paired_in_order(streaming):
    for name in ("a.1.en", "a.1.de", "a.2.en", "a.2.de"):
        put(name, f"{name}\n")
    found, _ = load(train_file="a.*.en", train_target_file="a.1.de,a.2.de", streaming=streaming)
    assert found == [{"source": f"a.{n}.en", "target": f"a.{n}.de"} for n in (1, 2)]
    (problem,) = PairArguments(train_file="a.*.en", train_target_file="a.1.de").problems()
    assert "As many files are needed of each side, not 2 of the sources, 1 of the targets." in problem
    # Each pair by itself, though the sums agree
    put("a.1.en", "x\ny\n"), put("a.2.de", "x\ny\n")
    assert len(PairArguments(train_file="a.*.en", train_target_file="a.*.de").problems()) == 2


def test_a_stream_of_aligned_files_is_known_by_both():
    def fingerprint(target):
        given = PairArguments(train_file="a.en", train_target_file=target, streaming=True)
        raw, _ = data.load(given, TrainingArguments(do_train=True, max_steps=1))
        return data.fingerprint(raw["train"])

    put("a.en", "a\n"), put("a.de", "b\n"), put("b.de", "bb\n")
    assert fingerprint("a.de") == fingerprint("a.de") != fingerprint("b.de")


def test_aligned_files_that_cannot_be_are_told_by_their_flags():
    put("a.en", "a\n"), put("a.tsv", "en\tde\na\tb\n"), put("b.de", "b\n")
    with open("c.en", "wb") as file:
        file.write(b"fine\n\xe9\n")
    found = PairArguments(train_file="a.en", train_target_file="a.ed").problems()
    assert found == ["--train_target_file: a.ed: no such file; did you mean a.en?"]
    found = PairArguments(train_file="a.tsv", train_target_file="a.en").problems()
    assert found == [
        "--train_file: a.tsv is a table, which holds both sides of a pair; give --train_file alone."
    ]
    found = PairArguments(train_file="a.en", train_target_file="c.en").problems()
    assert "--train_target_file: c.en, line 2: byte 0xe9 is not UTF-8" in found[0]
    found = PairArguments(train_file="a.en").problems()
    assert "the extension must be one of" in found[0]
    assert found[1].endswith("name that of the targets: --train_target_file.")


def test_sources_to_predict_may_be_lines_alone():
    found, names = load("test", test_file=put("a.en", "One.\n\nThree.\n"))
    assert found == [{"source": "One."}, {"source": "Three."}]
    assert names == {"source": "source"}
    assert load("test", test_file=put("a.txt", "One.\n"))[0] == [{"source": "One."}]


# Several directions


@pytest.mark.parametrize("streaming", [False, True])
def test_each_row_may_have_its_own_languages(streaming):
    rows = [
        {"translation": {"en": "a", "de": "b"}, "from": "en", "to": "de_DE"},
        {"translation": {"en": "c", "fr": "d"}, "from": "fr", "to": "en"},
        {"translation": {"en": "e", "fr": "f"}, "from": "en", "to": None},
    ]
    flags = {"source_lang_column": "from", "target_lang_column": "to", "streaming": streaming}
    found, names = load(train_file=put("a.jsonl", rows), **flags)
    assert found == [
        {"source": "a", "target": "b", "source language": "en", "target language": "de_DE"},
        {"source": "d", "target": "c", "source language": "fr", "target language": "en"},
    ]
    texts = [{"src": row["source"], "tgt": row["target"], "from": row["source language"]} for row in found]
    texts = [row | {"to": other["target language"]} for row, other in zip(texts, found, strict=True)]
    assert load(train_file=put("b.jsonl", texts), **flags) == (found, names)
    found, _ = load(train_file="a.jsonl", source_lang="en", target_lang_column="to", max_train_samples=1)
    assert found == [{"source": "a", "target": "b", "target language": "de_DE"}]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_whose_languages_do_not_suit_are_told(streaming):
    rows = [
        {"translation": {"en": "a", "de": "b"}, "to": "fr"},
        {"translation": {"en": "a", "de": "b"}, "to": "en"},
        {"translation": {"en": "a", "zh_CN": "b", "zh_TW": "c"}, "to": "zh"},
    ]
    flags = {"source_lang": "en", "target_lang_column": "to", "streaming": streaming}
    told = problems(train_file=put("a.jsonl", rows), **flags)
    assert told == [
        "train, row 1: no text in fr; there are: en, de.",
        "train, row 2: source and target are both in 'en'.",
        "train, row 3: several texts are for zh: zh_CN, zh_TW.",
    ]
    name = put("b.jsonl", [{"source": "a", "target": "b", "to": "en"}])
    assert problems(train_file=name, **flags) == ["train, row 1: source and target are both in 'en'."]
    (problem,) = problems(train_file=put("c.jsonl", [{"source": "a", "target": "b", "to": 5}] * 20), **flags)
    assert problem == "train, row 1: a language's code was expected, not 5."


def test_rows_of_a_chunk_are_tokenized_by_direction_and_stay_in_order():
    calls = []

    def tokenize(part, source_lang, target_lang):
        calls.append((source_lang, target_lang, part["source"]))
        return {"input_ids": [f"{source_lang}>{target_lang} {text}" for text in part["source"]]}

    rows = {"source": ["a", "b", "c", "d"], "to": ["de", "fr", "de", "es"]}
    columns = {"source": "source", "target language": "to"}
    given = SimpleNamespace(source_lang="en", target_lang=None)
    made = pairs.by_direction(tokenize, rows, columns, given)
    assert made == {"input_ids": ["en>de a", "en>fr b", "en>de c", "en>es d"]}
    assert calls == [("en", "de", ["a", "c"]), ("en", "fr", ["b"]), ("en", "es", ["d"])]
    for number in range(4):  # the same without neighbours
        alone = {name: values[number : number + 1] for name, values in rows.items()}
        assert (
            pairs.by_direction(tokenize, alone, columns, given)["input_ids"] == made["input_ids"][number:][:1]
        )
    one = SimpleNamespace(source_lang="en", target_lang="de")
    assert len(pairs.by_direction(tokenize, rows, {"source": "source"}, one)["input_ids"]) == 4
    assert calls[-1] == ("en", "de", ["a", "b", "c", "d"])


def test_what_is_wrong_with_several_directions_is_told_at_once():
    def refuse(part, source_lang, target_lang):
        raise InputError([f"no {target_lang}", "and this"])

    given = SimpleNamespace(source_lang="en", target_lang=None)
    with pytest.raises(InputError) as caught:
        pairs.by_direction(
            refuse,
            {"source": ["a", "b"], "to": ["de", "fr"]},
            {"source": "source", "target language": "to"},
            given,
        )
    assert caught.value.problems == ["no de", "and this", "no fr"]


# Flags


@pytest.mark.parametrize("name", ["a.jsonl", "b.csv"])
def test_rows_in_every_target_language_are_trained_on_evaluated_and_predicted(name):
    if name == "a.jsonl":
        rows = [{"to": to, "translation": {"en": "a", to: f"{to} b"}} for to in ("de", "fr", "de")]
    else:
        rows = "source,target,to\na,de b,de\na,fr b,fr\na,de b,de\n"
    put(name, rows)
    for split in ("train", "validation", "test"):
        found, _ = load(split, **{f"{split}_file": name}, source_lang="en", target_lang_column="to")
        assert [row["target"] for row in found] == ["de b", "fr b", "de b"]
        assert [row["target language"] for row in found] == ["de", "fr", "de"]


def test_flags_that_exclude_each_other_are_told_at_once():
    put("a.en", "a\n"), put("a.de", "b\n")
    given = PairArguments(
        train_file="a.en",
        train_target_file="a.de",
        validation_target_file="a.de",
        source_lang="en",
        target_lang="en",
        source_lang_column="from",
        target_lang_column="to",
        target_column="to",
    )
    told = given.problems()
    expected = [
        "--source_lang and --target_lang are both en: they must differ.",
        "--source_lang is one language for all rows, --source_lang_column gives each its own",
        "--target_lang is one language for all rows, --target_lang_column gives each its own",
        "--validation_target_file needs --validation_file, the sources.",
        "--source_lang_column: --train_file has a text a line, and no columns.",
        "--target_lang_column: --train_file has a text a line, and no columns.",
        "--target_column: --train_file has a text a line, and no columns.",
    ]
    assert len(told) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(told, expected, strict=True)), told


@pytest.mark.parametrize(("name", "rises"), [("ter", False), ("eval_ter", False), ("bleu", True)])
def test_the_best_checkpoint_has_the_lowest_ter(name, rises):
    assert TrainingArguments(metric_for_best_model=name).greater_is_better is rises
