"""Tags of words through every form: windows, places in ugly texts, legal sequences, and what is refused."""

import json

import numpy as np
import pytest
from harness import all_forms, flags, run_python, run_script
from safetensors.numpy import load_file, save_file

from triptych.data.words import split

pytestmark = pytest.mark.first_with("spans")

LONG = 2000  # words of one row
# A no-break space, emoji of several characters, right to left, marks, a word longer than any window
UGLY = [
    "\u00a0",
    "a\u00a0b",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "שלום",
    "مرحبا",
    "\u202eabc\u202c",
    "नमस्ते",
    "e\u0301\u0302",
    "\u0301",
    "東京",
]
UGLY += ["ﬁ", "x" * 300, "\u200b", "a\u2028b", "\x0bc", "#hash", "-DASH-", "'"]


def put_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def bulletins(samples, number):
    lines = (samples / "test.jsonl").read_text().splitlines()[:number]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def word_by_word(tiny, tmp_path_factory):
    """A model that reads each token by itself, wherever it stands: without attention and positions. It finds
    much, and is sure of what it says, so that rounding changes no tag."""
    folder = tmp_path_factory.mktemp("word-by-word")
    for path in (tiny / "entities").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    for name, array in weights.items():
        if "attention.output.dense" in name or "position_embeddings" in name:
            array[:] = 0
    weights["classifier.weight"] *= 20
    outside = json.loads((folder / "config.json").read_text())["label2id"]["O"]
    weights["classifier.bias"][outside] -= 3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def rows(samples):
    """One row of LONG words, which are bulletins, and one of ugly ones among others."""
    every = [row["text"][a:b] for row in bulletins(samples, 60) for a, b in split(row["text"])]
    assert len(every) > LONG
    return [every[:LONG], [word for pair in zip(UGLY, every, strict=False) for word in pair]]


@pytest.fixture(scope="session")
def texts(samples):
    """Bulletins with their entities as spans, behind words of many kinds."""
    ugly = "e\u0301\u0302 नमस्ते\u00a0👩‍👩‍👧‍👦 שלום\u2028\r\n東京 "
    return [
        {"text": ugly + row["text"], "entities": [moved(span, len(ugly)) for span in row["entities"]]}
        for row in bulletins(samples, 12)
    ]


def moved(span, places):
    return span | {"start": span["start"] + places, "end": span["end"] + places}


@pytest.fixture(scope="session")
def windows_run(shared_run, word_by_word, rows, tmp_path_factory):
    """The rows from a CoNLL file, in windows of 32 tokens."""
    path = tmp_path_factory.mktemp("windows") / "rows.conll"
    sentences = ["".join(f"{word}\tO\r\n" for word in row) for row in rows]
    path.write_text("\r\n# a comment\r\n-DOCSTART-\tO\r\n\r\n" + "\r\n".join(sentences), newline="")
    about = {"test_file": path, "max_seq_length": 32, "stride": 8, "scheme": "iob2", "do_predict": True}
    return lambda form: shared_run(form, "windows", *flags(model_name_or_path=word_by_word, **about))


@pytest.fixture(scope="session")
def texts_run(shared_run, word_by_word, texts, tmp_path_factory):
    """Texts whose tags are spans, evaluated and predicted, in sequences that the scheme allows."""
    path = tmp_path_factory.mktemp("texts") / "rows.jsonl"
    put_rows(path, texts)
    files = {"validation_file": path, "test_file": path, "constrained_decoding": True}
    given = flags(model_name_or_path=word_by_word, **files, do_eval=True, do_predict=True)
    return lambda form: shared_run(form, "texts", *given)


@pytest.fixture(scope="session")
def mended_run(shared_run, word_by_word, texts, rows, tmp_path_factory):
    """Rows of a stream whose tags begin with I-, in windows, with the tags of all tokens; and the evaluation
    of `texts_run` by that loss, as nothing was learned."""
    folder = tmp_path_factory.mktemp("mended")
    put_rows(folder / "texts.jsonl", texts)
    parts = [rows[0][start : start + 40] for start in range(0, 800, 40)]
    tags = [["I-LOC" if word[0].isupper() else "O" for word in part] for part in parts]
    pairs = zip(parts, tags, strict=True)
    put_rows(folder / "rows.jsonl", [{"tokens": part, "ner_tags": of_part} for part, of_part in pairs])
    given = flags(
        model_name_or_path=word_by_word,
        train_file=folder / "rows.jsonl",
        validation_file=folder / "texts.jsonl",
        do_train=True,
        do_eval=True,
        streaming=True,
        repair_tags=True,
        label_all_tokens=True,
        max_seq_length=32,
        stride=8,
        max_steps=2,
        gradient_accumulation_steps=2,
        optim="sgd",
        learning_rate=1e-12,
        logging_steps=1,
        save_strategy="no",
    )
    return lambda form: shared_run(form, "mended", *given)


def tagged(run):
    """Words, tags and probabilities by row, of predictions.conll."""
    blocks = (run.output / "predictions.conll").read_text().removesuffix("\n\n").split("\n\n")
    return [list(zip(*(line.split("\t") for line in block.split("\n")), strict=True)) for block in blocks]


def entities(run):
    lines = (run.output / "entities.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def spans(tags, places):
    """Start, end, label of the entities of a row: I- goes on with the same label before it."""
    found, before = [], "O"
    for tag, (start, end) in zip(tags, places, strict=True):
        if tag[0] == "I" and before[1:] == tag[1:]:
            found[-1][1] = end
        elif tag != "O":
            found.append([start, end, tag[2:]])
        before = tag
    return [tuple(one) for one in found]


def is_legal(tags):
    pairs = zip(("O", *tags), tags, strict=False)
    return all(tag[0] != "I" or before[1:] == tag[1:] for before, tag in pairs)


def test_no_word_is_lost_or_moved_by_windows_and_batches(form, windows_run, word_by_word, rows, tmp_path):
    """By a model that looks at one word alone, a row of 2,000 words has the tags of its words in short rows,
    which here have none to be scored by."""
    found = tagged(windows_run(form))
    assert [len(tags) for _, tags, _ in found] == [LONG, 2 * len(UGLY)]
    every = [word for row in rows for word in row]
    put_rows(tmp_path / "rows.jsonl", [{"tokens": every[n : n + 15]} for n in range(0, len(every), 15)])
    words = flags(model_name_or_path=word_by_word, test_file="rows.jsonl", max_tokens_per_batch=400)
    short = run_script(form, *words, *flags(do_predict=True), folder=tmp_path)
    expected = tagged(short)
    assert len(expected) == -(-len(every) // 15)
    for place in (0, 1):
        assert [one for row in found for one in row[place]] == [one for row in expected for one in row[place]]
    probabilities = ([float(one) for row in rows for one in row[2]] for rows in (found, expected))
    np.testing.assert_allclose(*probabilities, rtol=0, atol=1.01e-4)
    assert len({tag for row in found for tag in row[1]}) > 3
    assert not {"predict_loss", "predict_accuracy"} & set(short.json("predict_results.json"))
    assert {"predict_loss", "predict_accuracy"} <= set(windows_run(form).json("predict_results.json"))


def test_every_file_of_predictions_has_all_words_in_their_places(form, windows_run, rows):
    run = windows_run(form)
    lines = (run.output / "predictions.txt").read_text().split("\n")[:-1]
    found, marked = tagged(run), entities(run)
    assert len(lines) == len(found) == len(rows) == 2
    for number, (row, line, (tokens, tags, shares)) in enumerate(zip(rows, lines, found, strict=True), 1):
        assert list(tokens) == [word.replace("\u2028", " ").replace("\x0b", " ") for word in row]
        assert line.split(" ") == list(tags)
        ends = np.cumsum([len(word) + 1 for word in row]) - 1
        places = [(end - len(word), end) for word, end in zip(row, ends, strict=True)]
        of_row = [one for one in marked if one["row"] == number]
        assert [(one["start"], one["end"], one["label"]) for one in of_row] == spans(tags, places)
        text = " ".join(row)
        for one in of_row:
            assert one["text"] == text[one["start"] : one["end"]]
            inside = [
                float(share)
                for share, (start, _) in zip(shares, places, strict=True)
                if one["start"] <= start < one["end"]
            ]
            assert one["probability"] == pytest.approx(np.prod(inside), abs=1e-3)
    assert len(marked) > 500
    of_ugly = {one["text"] for one in marked if one["row"] == 2}
    assert sum(any(word in text for text in of_ugly) for word in UGLY) > 5


def test_places_are_those_in_the_given_texts(form, texts_run, texts):
    run = texts_run(form)
    found = [set() for _ in texts]
    for one in entities(run):
        assert one["text"] == texts[one["row"] - 1]["text"][one["start"] : one["end"]]
        found[one["row"] - 1].add((one["start"], one["end"], one["label"]))
    for (_, tags, _), row, of_row in zip(tagged(run), texts, found, strict=True):
        assert of_row == set(spans(tags, split(row["text"])))
    wanted = [{(one["start"], one["end"], one["label"]) for one in row["entities"]} for row in texts]
    right = sum(len(one & other) for one, other in zip(found, wanted, strict=True))
    results = run.json("predict_results.json")
    assert results["predict_precision"] == pytest.approx(right / sum(map(len, found)))
    assert results["predict_recall"] == pytest.approx(right / sum(map(len, wanted)))
    assert results["predict_f1"] == run.json("eval_results.json")["eval_f1"]


def test_constrained_decoding_gives_only_sequences_that_the_scheme_allows(form, texts_run, windows_run):
    """The tags that the same model gives the same words each by itself are not."""
    plain = {
        word: tag
        for words, tags, _ in tagged(windows_run(form))
        for word, tag in zip(words, tags, strict=True)
    }
    rows = tagged(texts_run(form))
    assert not any(is_legal([plain.get(word, "O") for word in words]) for words, _, _ in rows)
    assert all(is_legal(tags) for _, tags, _ in rows)
    assert len({tag for _, tags, _ in rows for tag in tags}) > 3


def test_all_tokens_of_words_change_the_loss_and_no_answer(form, mended_run, texts_run):
    """Of the same rows, in windows or not; trained on a stream with its tags mended."""
    first, every = (run(form).json("eval_results.json") for run in (texts_run, mended_run))
    assert every["eval_loss"] != pytest.approx(first["eval_loss"], rel=1e-3)
    assert every["eval_samples"] == first["eval_samples"] == 12
    supports = [
        {name: row["support"] for name, row in one["eval_by_label"].items()} for one in (first, every)
    ]
    assert supports[0] == supports[1]
    assert len(mended_run(form).log("loss")) == 2


def test_streamed_windows_with_mended_tags_equal_the_first_forms(first_form, other_form, mended_run):
    for expected, found in zip(mended_run(first_form).log(), mended_run(other_form).log(), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_first_form_computes_the_loss_of_transformers(
    texts_run, mended_run, word_by_word, texts, tmp_path
):
    """A mean over the first tokens of words, and over all tokens, of which the further ones are inside."""
    form = next(form for form in all_forms() if form.tests.get("spans"))
    code = """if True:
        import json, sys, torch
        from transformers import AutoModelForTokenClassification, AutoTokenizer
        model = AutoModelForTokenClassification.from_pretrained(sys.argv[1]).eval()
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        losses = {False: 0, True: 0}
        tokens = {False: 0, True: 0}
        for words, tags in json.load(open(sys.argv[2])):
            batch = tokenizer(words, is_split_into_words=True, return_tensors="pt")
            ids = batch.word_ids()
            for everything in losses:
                labels = []
                for place, word in enumerate(ids):
                    is_first = place == 0 or ids[place - 1] != word
                    tag = None if word is None else tags[word]
                    if tag is not None and not is_first:
                        tag = tag.replace("B-", "I-") if everything else None
                    labels.append(-100 if tag is None else model.config.label2id[tag])
                labels = torch.tensor([labels])
                count = (labels != -100).sum().item()
                losses[everything] += model(**batch, labels=labels).loss.item() * count
                tokens[everything] += count
        print(*(losses[everything] / tokens[everything] for everything in losses))
    """
    rows = []
    for row in texts:
        places = split(row["text"])
        begun = {one["start"]: f"B-{one['label']}" for one in row["entities"]}
        inside = {n: f"I-{one['label']}" for one in row["entities"] for n in range(one["start"], one["end"])}
        tags = [begun.get(start, inside.get(start, "O")) for start, _ in places]
        tokens = [row["text"][start:end] for start, end in places]
        # In parts that the model has positions for: it reads each token by itself
        rows += [[tokens[n : n + 40], tags[n : n + 40]] for n in range(0, len(tokens), 40)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    printed = run_python("-c", code, word_by_word, tmp_path / "rows.json").splitlines()[-1]
    for run, expected in zip((texts_run, mended_run), printed.split(), strict=True):
        assert run(form).json("eval_results.json")["eval_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_parts_of_speech_of_a_treebank_replace_the_head_and_are_scored_by_word(form, tiny, rows, tmp_path):
    universal = [
        "\n".join(
            f"{n}\t{word}\t_\t{'PROPN' if word[0].isupper() else 'X'}\t_\t_\t0\troot\t_\t_"
            for n, word in enumerate(rows[0][start : start + 9], 1)
        )
        for start in range(0, 180, 9)
    ]
    (tmp_path / "rows.conllu").write_text("# text\n" + "\n\n".join(universal) + "\n")
    files = {f"{split}_file": "rows.conllu" for split in ("train", "validation", "test")}
    settings = flags(model_name_or_path=tiny / "entities", task_name="pos", **files, max_steps=2)
    settings += flags(do_train=True, do_eval=True, do_predict=True, save_strategy="no")
    refused = run_script(form, *settings, folder=tmp_path, expect=2)
    (problem,) = refused.problems
    for part in ("PROPN, X", "B-PER", "--ignore_mismatched_sizes"):
        assert part in problem
    assert not refused.output.exists()

    settings += flags(ignore_mismatched_sizes=True, return_entity_level_metrics=False)
    run = run_script(form, *settings, folder=tmp_path)
    assert set(run.json("config.json")["label2id"]) == {"PROPN", "X"}
    (tags,) = (tags for words, tags, _ in tagged(run)[:1])
    assert set(tags) <= {"PROPN", "X"}
    assert len(tagged(run)) == 20
    scores = {"eval_accuracy", "eval_f1_macro"}
    speed = {f"eval_{name}" for name in ("loss", "runtime", "samples", "samples_per_second")}
    assert set(run.json("eval_results.json")) == scores | speed
    assert not (run.output / "entities.jsonl").exists()


def test_bad_tags_are_told_all_at_once_with_nothing_written(form, tiny, tmp_path):
    good = {"tokens": ["Ada", "met", "Bo"], "ner_tags": ["B-PER", "O", "B-PER"]}
    cut = {"text": "Ada Walsh sang.", "entities": [{"start": 0, "end": 6, "label": "PER"}]}
    beyond = {"text": "Ada sang.", "entities": [{"start": 4, "end": 99, "label": "PER"}]}
    put_rows(tmp_path / "numbers.jsonl", [good, good | {"ner_tags": ["O", "O"]}])
    put_rows(tmp_path / "spans.jsonl", [cut, beyond])
    put_rows(tmp_path / "order.jsonl", [good, good | {"ner_tags": ["I-PER", "O", "O"]}])
    put_rows(tmp_path / "unseen.jsonl", [good | {"ner_tags": ["B-LOC", "O", "O"]}])
    put_rows(tmp_path / "empty.jsonl", [good, {"tokens": [], "ner_tags": []}])

    def refused(**given):
        given |= {"model_name_or_path": tiny / "entities-bare", "do_train": True, "do_eval": True}
        run = run_script(form, *flags(**given), folder=tmp_path, expect=2)
        assert not run.output.exists()
        return run

    found = refused(train_file="numbers.jsonl", validation_file="spans.jsonl").problems
    assert len(found) == 3
    assert "train, row 2: number of tokens 3, of tags 2" in found[0]
    assert "validation, row 1: the span 0 to 6 (PER), '[Ada Wa]lsh sang.', cuts a word" in found[1]
    assert "validation, row 2: the span 4 to 99 (PER)" in found[2]
    found = refused(train_file="order.jsonl", validation_file="unseen.jsonl").problems
    assert len(found) == 2
    assert "train: 1 of 2 rows" in found[0]
    assert "'I-PER' at the start (word 1) in row 2" in found[0]
    assert "--repair_tags" in found[0]
    assert "'B-LOC'" in found[1]
    (tmp_path / "characters").mkdir()
    (tmp_path / "characters/tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')
    run = refused(tokenizer_name="characters", train_file="empty.jsonl", validation_file="empty.jsonl")
    assert "train: 1 of 2 rows dropped" in run.stderr
    (problem,) = run.problems
    assert "The tokenizer of characters, a CanineTokenizer, is in Python alone" in problem
