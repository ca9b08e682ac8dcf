"""Tags of words on real text, for `make test-real`: a pretrained model fine-tuned to tell what the names in
Python's own sources are, and Japanese names learnt from 450 sentences, both beside a look-up of words."""

import json
from collections import Counter, defaultdict

import pytest
from harness import ROOT, flags, run_python
from measuring import NO_DROPOUT, PRETRAINED, largest_difference, learn, print_table

from triptych import metrics

ROWS = 1600
JAPANESE = ROOT / "build/japanese/hironsan/corpus/iob_sents.txt"  # see the Makefile
SMALL = (
    "hidden_size=128,intermediate_size=256,num_hidden_layers=2,num_attention_heads=4,initializer_range=0.05"
)
TABLE = (
    *("model", "precision", "recall", "F1", "macro F1", "loss"),
    *("largest difference", "CPU seconds", "memory, GB"),
)
Rows = list[tuple[list[str], list[str]]]  # words and their tags


def look_up(train: Rows, held_out: Rows) -> dict[str, float]:
    """The metrics of a baseline that gives each word the tag that it has most often in the training rows, and
    O where it has not been seen."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for tokens, tags in train:
        for token, tag in zip(tokens, tags, strict=True):
            counts[token][tag] += 1
    likeliest = {token: found.most_common(1)[0][0] for token, found in counts.items()}
    answers = [[likeliest.get(token, "O") for token in tokens] for tokens, _ in held_out]
    wanted = [tags for _, tags in held_out]
    return metrics.load("entities").compute(predictions=answers, references=wanted, scheme="iob2")


def row_of_table(name, results, prefix="", run=None, first=None):
    """Figures of a run, or of a baseline, which has no more than its metrics."""
    rates = [100 * results[f"{prefix}{rate}"] for rate in ("precision", "recall", "f1", "f1_macro")]
    if run is None:
        return [name, *rates, *4 * [None]]
    difference = largest_difference(run.losses, first.losses) if first else None
    return [name, *rates, results["eval_loss"], difference, run.seconds, run.memory]


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    run_python("-m", "triptych.samples", "sources", folder, "--rows", ROWS)
    return folder


@pytest.mark.timeout(7200)
def test_a_pretrained_model_tells_names_in_sources_better_than_a_look_up_and_alike_in_every_form(
    sources, forms, tmp_path, capsys
):
    held_out = [sources / "validation.jsonl", sources / "test.jsonl"]
    words = flags(
        config_overrides=NO_DROPOUT,
        train_file=sources / "train.jsonl",
        validation_file=",".join(map(str, held_out)),
        do_train=True,
        do_eval=True,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=64,
        group_by_length=True,
        num_train_epochs=2,
        learning_rate=2e-4,
        warmup_ratio=0.1,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    pretrained = flags(model_name_or_path=PRETRAINED)
    scratch = flags(config_name=PRETRAINED, tokenizer_name=PRETRAINED)
    taggers = [form for form in forms if form.task == "token-classification"]
    learnt = {form.name: learn(form, [*pretrained, *words], tmp_path / form.name) for form in taggers}
    from_scratch = learn(taggers[0], [*scratch, *words], tmp_path / "scratch")

    def read(*files):
        rows = [json.loads(line) for file in files for line in file.open()]
        return [(row["tokens"], row["ner_tags"]) for row in rows]

    baseline = look_up(read(sources / "train.jsonl"), read(*held_out))
    first = learnt[taggers[0].name]
    rows = [row_of_table(name, run.results, "eval_", run, first) for name, run in learnt.items()]
    rows.append(row_of_table(f"{taggers[0].name}, from scratch", from_scratch.results, "eval_", from_scratch))
    rows.append(row_of_table("the word's most frequent tag", baseline))
    print_table(TABLE, rows, capsys)
    scores = [run.results["eval_f1"] for run in learnt.values()]
    assert max(scores) - min(scores) <= 0.01, "the forms do not learn alike"
    assert min(scores) > max(baseline["f1"], from_scratch.results["eval_f1"])


@pytest.fixture(scope="session")
def japanese(tmp_path_factory):
    """The sentences of hironsancorpus, cut into words by MeCab, as files of two columns, and a tokenizer.

    Its own file has ten columns for some words and twelve for others. The last tenth is for tests, as there.
    """
    folder = tmp_path_factory.mktemp("japanese")
    sentences = JAPANESE.read_text(encoding="utf-8").strip().split("\n\n")
    found = [[line.split("\t") for line in sentence.split("\n")] for sentence in sentences]
    begins_test = int(0.9 * len(found))
    for name, part in (("train", found[:begins_test]), ("test", found[begins_test:])):
        lines = ["".join(f"{token}\t{tag}\n" for token, *_, tag in sentence) for sentence in part]
        (folder / f"{name}.conll").write_text("\n".join(lines), encoding="utf-8")
    run_python(
        "-m",
        "triptych.samples",
        "tokenizer",
        folder / "tokenizer",
        "--files",
        folder / "train.conll",
        "--columns",
        "tokens",
    )
    return folder


@pytest.mark.timeout(3600)
def test_japanese_names_are_learnt_from_scratch_and_written_with_their_places(
    japanese, forms, tmp_path, capsys
):
    words = flags(
        model_type="bert",
        config_overrides=f"{SMALL},{NO_DROPOUT}",
        tokenizer_name=japanese / "tokenizer",
        train_file=japanese / "train.conll",
        validation_file=japanese / "test.conll",
        test_file=japanese / "test.conll",
        repair_tags=True,  # two sentences begin a name with I-
        do_train=True,
        do_eval=True,
        do_predict=True,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        group_by_length=True,
        num_train_epochs=20,
        learning_rate=1e-3,
        warmup_ratio=0.1,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    taggers = [form for form in forms if form.task == "token-classification"]
    chosen = dict.fromkeys((taggers[0], taggers[-1]))
    learnt = {form.name: learn(form, words, tmp_path / form.name) for form in chosen}
    held_out = read_columns(japanese / "test.conll")
    baseline = look_up(read_columns(japanese / "train.conll"), held_out)
    rows = [row_of_table(name, run.results, "eval_", run) for name, run in learnt.items()]
    rows.append(row_of_table("the word's most frequent tag", baseline))
    print_table(TABLE, rows, capsys)
    first = learnt[taggers[0].name]
    for name, run in learnt.items():
        assert run.results["eval_f1"] > 0.2, name
        assert abs(run.losses[0] / first.losses[0] - 1) <= 1e-5, name
        output = tmp_path / name / "out"
        predicted = read_columns(output / "predictions.conll")
        assert [tokens for tokens, _ in predicted] == [tokens for tokens, _ in held_out], name
        texts = [" ".join(tokens) for tokens, _ in held_out]
        entities = [json.loads(line) for line in (output / "entities.jsonl").open()]
        assert entities, name
        for one in entities:
            assert texts[one["row"] - 1][one["start"] : one["end"]] == one["text"], one


def read_columns(path) -> Rows:
    """Words and tags of a file of columns, the first two."""
    sentences = path.read_text(encoding="utf-8").strip().split("\n\n")
    columns = [[line.split("\t")[:2] for line in sentence.split("\n")] for sentence in sentences]
    return [tuple(map(list, zip(*rows, strict=True))) for rows in columns]
