"""Pairs of languages in whole runs: what stands in their files reaches the models that were made to
translate, in the language and the vocabulary of each side."""

import csv
import json

import pytest
import transformers
import translators
from harness import alike, answers, approximately, flags, run_python, run_script, without_times

# Learnt by heart: as a Marian cuts them, each beside its reference
LEARNT = dict(zip(translators.ENGLISH, translators.GERMAN, strict=True))
# Some sources with a target in either language, and the language
TWICE = [
    (source, target, code)
    for texts, code in ((translators.GERMAN, "de"), (translators.FRENCH, "fr"))
    for source, target in zip(translators.ENGLISH[:2], texts, strict=False)
]
SETTINGS = dict(
    do_train=True,
    do_predict=True,
    predict_with_generate=True,
    per_device_train_batch_size=4,
    learning_rate=5e-3,
    warmup_steps=10,
    max_source_length=64,
    max_target_length=48,
    logging_steps=1,
    save_strategy="no",
)

pytestmark = pytest.mark.needs("pairs")


def ugly(text):
    """A text with what is a separator elsewhere, for each of which the tokenizers read a space."""
    return text.replace(" ", "\t", 1).replace(" ", "\u2028", 1)


def unseen(code):
    """Rows that no model has learnt, in a language."""
    return [(text, "?", code) for text in ("the red dog", "a house is green", "small garden", "old dog runs")]


@pytest.fixture(scope="session")
def aligned(shared_run, tiny, tmp_path_factory):
    """A Marian learns aligned files by heart: tabs and U+2028 in lines that end with CRLF, a quotation mark
    that nothing closes, and on each side an empty line."""
    folder = tmp_path_factory.mktemp("aligned")
    sources = [ugly(source) for source in LEARNT] + ["", '"the dog']
    targets = [*LEARNT.values(), "der hund", ""]
    (folder / "a.en").write_bytes("".join(f"{line}\r\n" for line in sources).encode())
    (folder / "a.de").write_bytes("\n".join(targets).encode() + b"\n")
    files = {f"{split}_file": folder / "a.en" for split in ("train", "test")}
    files |= {f"{split}_target_file": folder / "a.de" for split in ("train", "test")}
    words = flags(model_name_or_path=tiny / "marian", **files, **SETTINGS, max_steps=90)
    return lambda form: shared_run(form, "aligned", *words, record="batches.jsonl")


@pytest.fixture(scope="session")
def tabular(shared_run, tiny, tmp_path_factory):
    """An M2M100 learns by heart a TSV with tabs and lines in quotes, each source in two languages."""
    folder = tmp_path_factory.mktemp("tabular")
    with (folder / "a.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["number", "source", "target", "to"])
        writer.writerows([number, ugly(source), *rest] for number, (source, *rest) in enumerate(TWICE))
    with (folder / "b.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["source", "target", "to"])
        writer.writerows([*TWICE, *unseen("fr"), *unseen("de")])
    files = {"train_file": folder / "a.tsv", "test_file": folder / "b.tsv"}
    languages = {"source_lang": "en", "target_lang_column": "to"}
    words = flags(model_name_or_path=tiny / "m2m100", **files, **languages, **SETTINGS, max_steps=150)
    return lambda form: shared_run(form, "tabular", *words, record="batches.jsonl")


@pytest.fixture(scope="session")
def directions(shared_run, tiny, tmp_path_factory):
    """An mBART of 2020, which begins with the language of what it says, learns by heart pairs with a
    direction of their own, and answers by beams."""
    folder = tmp_path_factory.mktemp("directions")
    codes = {"de": "de_DE", "fr": "fr_XX"}
    for name, rows in (("a", TWICE), ("b", [*TWICE, *unseen("fr"), *unseen("de")])):
        pairs = [
            {"translation": {"en": source, code: target}, "from": "en_XX", "to": codes[code]}
            for source, target, code in rows
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    files = {"train_file": folder / "a.jsonl", "test_file": folder / "b.jsonl"}
    languages = {"source_lang_column": "from", "target_lang_column": "to"}
    changes = SETTINGS | {"num_beams": 3, "max_steps": 100}
    words = flags(model_name_or_path=tiny / "mbart-2020", **files, **languages, **changes)
    return lambda form: shared_run(form, "directions", *words, record="batches.jsonl")


def recorded(run):
    """The different token ids of sources and targets that the model saw in training."""
    batches = map(json.loads, (run.output.parent / "batches.jsonl").read_text().splitlines())
    return {
        (tuple(source), tuple(target))
        for batch in batches
        for source, target in zip(batch["rows"]["input_ids"], batch["rows"]["labels"], strict=True)
    }


def test_aligned_lines_reach_a_marian_in_the_vocabulary_of_each_side(form, aligned, tiny):
    run = aligned(form)
    assert "train: 2 of 6 rows dropped, source or target being empty: row 5, 6." in run.stderr
    tokenizer = transformers.MarianTokenizer.from_pretrained(tiny / "marian")
    expected = {
        (tuple(tokenizer(source)["input_ids"]), tuple(tokenizer(text_target=target)["input_ids"]))
        for source, target in LEARNT.items()
    }
    assert recorded(run) == expected
    for name in ("source.spm", "target.spm", "vocab.json"):
        assert (run.output / name).read_bytes() == (tiny / "marian" / name).read_bytes()


def test_lines_learnt_by_heart_are_said_in_their_places(form, aligned, tiny):
    """Which they are not where generation begins from another token than training, or pads what it says."""
    run = aligned(form)
    said = (run.output / form.settings["predictions"]).read_text().split("\n")
    assert said == [*LEARNT.values(), "", "", ""]
    with (run.output / "predictions.tsv").open(newline="") as file:
        table = list(csv.reader(file, delimiter="\t"))
    assert table[0] == ["row", "source", "prediction", "reference", "chrf"]
    assert table[1:] == [
        [str(number), ugly(source), target, target, "100.0"]
        for number, (source, target) in enumerate(LEARNT.items(), 1)
    ]
    results = run.json("predict_results.json")
    assert results["predict_samples"] == 4
    for metric in ("bleu", "chrf"):
        assert results[f"predict_{metric}"] == pytest.approx(100)
    tokenizer = transformers.MarianTokenizer.from_pretrained(tiny / "marian")
    ids = tokenizer(text_target=list(LEARNT.values()))["input_ids"]
    assert results["predict_gen_len"] == sum(map(len, ids)) / len(ids)  # their ends with them


def test_a_table_reaches_an_m2m100_in_the_language_of_each_side(form, tabular, tiny):
    run = tabular(form)
    tokenizer = transformers.M2M100Tokenizer.from_pretrained(tiny / "m2m100")
    english = tokenizer.get_lang_id("en")
    rows = [*TWICE, *unseen("fr"), *unseen("de")]
    expected = {(english, source, tokenizer.get_lang_id(code), target) for source, target, code in rows}
    found = {
        (source[0], tokenizer.decode(source[1:-1]), target[0], tokenizer.decode(target[1:-1]))
        for source, target in recorded(run)
    }
    assert found == expected
    assert (run.output / "sentencepiece.bpe.model").exists()


@pytest.mark.parametrize("name", ["tabular", "directions"])
def test_each_row_is_said_in_its_own_language(form, name, request):
    """The same sources in two languages, one row after the other in one batch."""
    run = request.getfixturevalue(name)(form)
    said = (run.output / form.settings["predictions"]).read_text().splitlines()
    assert said[: len(TWICE)] == [target for _, target, _ in TWICE]
    found = run.json("predict_results.json")
    scores = found["predict_by_direction"]
    english, german, french = ("en", "de", "fr") if name == "tabular" else ("en_XX", "de_DE", "fr_XX")
    assert {direction: about["rows"] for direction, about in scores.items()} == {
        f"{english}-{german}": 6,
        f"{english}-{french}": 6,
    }
    for metric in ("bleu", "chrf"):
        mean = sum(about[metric] for about in scores.values()) / 2
        assert found[f"predict_{metric}"] == pytest.approx(mean)


# Answers of transformers, JSON, to the rows of each language alone, whose token is given with each source
ALONE = """if True:
    import json, sys
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    folder, english, setting, beams, rows = *sys.argv[1:4], *map(json.loads, sys.argv[4:])
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang=english)
    answers = {}
    for token in {token for _, token in rows}:
        numbers = [number for number, row in enumerate(rows) if row[1] == token]
        batch = tokenizer([rows[number][0] for number in numbers], padding=True, return_tensors="pt")
        own = tokenizer.convert_tokens_to_ids(token)
        ids = model.generate(**batch, **{setting: own}, num_beams=beams, max_length=48)
        for number, row in zip(numbers, ids.tolist()):
            text = [one for one in row if one not in (own, *tokenizer.all_special_ids)]
            answers[number] = tokenizer.decode(text)
    print(json.dumps([answers[number] for number in range(len(rows))]))
"""


@pytest.mark.parametrize(
    ("name", "english", "setting", "tokens", "beams"),
    [
        ("tabular", "en", "forced_bos_token_id", {"de": "__de__", "fr": "__fr__"}, 1),
        ("directions", "en_XX", "decoder_start_token_id", {"de": "de_DE", "fr": "fr_XX"}, 3),
    ],
)
def test_rows_of_several_languages_get_what_transformers_answers_to_those_of_each_alone(
    form, name, english, setting, tokens, beams, request
):
    run = request.getfixturevalue(name)(form)
    rows = [(source, tokens[code]) for source, _, code in [*TWICE, *unseen("fr"), *unseen("de")]]
    asked = run_python("-c", ALONE, run.output, english, setting, beams, json.dumps(rows))
    expected = json.loads(asked.splitlines()[-1])
    assert (run.output / form.settings["predictions"]).read_text().splitlines() == expected
    assert len(set(expected)) >= len(TWICE)


@pytest.mark.parametrize("name", ["aligned", "tabular", "directions"])
def test_losses_and_answers_of_translators_equal_the_first_forms(first_form, other_form, name, request):
    runs = [request.getfixturevalue(name)(form) for form in (first_form, other_form)]
    expected, found = ([entry["loss"] for entry in run.log("loss")] for run in runs)
    assert found[:40] == pytest.approx(expected[:40], rel=1e-4)
    expected, found = (answers(run.output / first_form.settings["predictions"]) for run in runs)
    assert len({row[0] for row in expected if row}) >= len(LEARNT)
    if name != "aligned":  # The others were also asked for what they have not learnt.
        assert all(map(alike, found[: len(TWICE)], expected[: len(TWICE)]))
        return
    assert all(map(alike, found, expected))
    expected, found = (without_times(run.json("predict_results.json")) for run in runs)
    del expected["predict_loss"], found["predict_loss"]
    assert found == approximately(expected, rel=1e-4)


def test_languages_of_the_wrong_kind_are_told_with_those_that_are_like_them(form, tiny, files, tmp_path):
    words = flags(train_file=files["train_file"], do_train=True)
    for model, near in (("nllb", "eng_Latn"), ("mbart", "en_XX")):
        run = run_script(form, *words, "--model_name_or_path", tiny / model, folder=tmp_path, expect=2)
        source, target = run.problems
        assert source.startswith("--source_lang en: not one of the tokenizer's")
        assert near in source
        assert target.startswith("--target_lang xx: ")
        assert not run.output.exists()


def test_files_that_are_not_aligned_are_told_with_the_lines_of_both(form, start, tmp_path):
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.de").write_text("eins\n")
    words = flags(model_name_or_path=start(form), train_file="a.en", train_target_file="a.de", do_train=True)
    (problem,) = run_script(form, *words, folder=tmp_path, expect=2).problems
    for part in ("--train_file", "a.en has 2 lines", "a.de has 1 lines"):
        assert part in problem
