"""Pairs of languages in whole runs: what stands in their files reaches the models that were made to
translate, in the language and the vocabulary of each side."""

import csv
import json

import pytest
import transformers
import translators
from harness import alike, answers, approximately, flags, run_script, without_times

# Learnt by heart: as a Marian cuts them, each beside its reference
LEARNT = dict(zip(translators.ENGLISH, translators.GERMAN, strict=True))
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
    """An M2M100 learns by heart a TSV with tabs and lines in quotes."""
    folder = tmp_path_factory.mktemp("tabular")
    with (folder / "a.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["number", "en", "de"])
        writer.writerows(
            [number, ugly(source), target] for number, (source, target) in enumerate(LEARNT.items())
        )
    files = {f"{split}_file": folder / "a.tsv" for split in ("train", "test")}
    languages = {"source_lang": "en", "target_lang": "de"}
    words = flags(model_name_or_path=tiny / "m2m100", **files, **languages, **SETTINGS, max_steps=150)
    return lambda form: shared_run(form, "tabular", *words, record="batches.jsonl")


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
    english, german = map(tokenizer.get_lang_id, ("en", "de"))
    seen = recorded(run)
    assert len(seen) == len(LEARNT)
    assert {(source[0], target[0]) for source, target in seen} == {(english, german)}
    texts = [{tokenizer.decode(ids[1:-1]) for ids in side} for side in zip(*seen, strict=True)]
    assert texts == [set(LEARNT), set(LEARNT.values())]
    assert (run.output / "sentencepiece.bpe.model").exists()


@pytest.mark.parametrize("name", ["aligned", "tabular"])
def test_losses_and_answers_of_translators_equal_the_first_forms(first_form, other_form, name, request):
    runs = [request.getfixturevalue(name)(form) for form in (first_form, other_form)]
    expected, found = ([entry["loss"] for entry in run.log("loss")] for run in runs)
    assert found[:40] == pytest.approx(expected[:40], rel=1e-4)
    expected, found = (answers(run.output / first_form.settings["predictions"]) for run in runs)
    assert len({row[0] for row in expected if row}) >= len(LEARNT)
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
