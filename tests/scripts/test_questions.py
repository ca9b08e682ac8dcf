"""Questions about contexts through every form: long and ugly ones in windows, thresholds, what is refused."""

import csv
import json

import numpy as np
import pytest
from harness import all_forms, finish_script, flags, run_python, run_script, start_script

pytestmark = pytest.mark.needs("questions")

# Before a bulletin, so that its answers are far behind characters of several code units, bytes and tokens
UGLY = "He said \"no\",\nthen 'yes': 👩‍👩‍👧‍👦🙂 naïve e\u0301\u0302 नमस्ते,\u00a0東京\u2028«שלום»\t"
WINDOWS = {"max_seq_length": 48, "doc_stride": 12}


def bulletins(samples, name, number):
    return [json.loads(line) for line in (samples / f"{name}.jsonl").read_text().splitlines()[:number]]


def article(rows, title="It"):
    """Rows as SQuAD's second version has them, two questions about the first context."""
    paragraphs = []
    for number, row in enumerate(rows):
        answers = [
            {"text": text, "answer_start": start + len(UGLY)}
            for text, start in zip(*row["answers"].values(), strict=True)
        ]
        asked = {
            "id": f"q{number}",
            "question": row["question"],
            "is_impossible": not answers,
            "answers": answers,
        }
        paragraphs.append({"context": UGLY + row["text"], "qas": [asked]})
    again = {"id": "again", "question": ' "Who"?', "is_impossible": True, "answers": []}
    paragraphs[0]["qas"].append(again)
    return {"title": title, "paragraphs": paragraphs}


@pytest.fixture(scope="session")
def folder(samples, tmp_path_factory):
    """Files as people have them: SQuAD's second version to train and to evaluate, a table to predict."""
    folder = tmp_path_factory.mktemp("questions")
    for name, split, number in (("train", "train", 10), ("dev", "validation", 12)):
        rows = [article(bulletins(samples, split, number))]
        (folder / f"{name}.json").write_text(json.dumps({"version": "v2.0", "data": rows}))
    with (folder / "test.csv").open("w", newline="") as file:
        rows = [(row["question"], UGLY + row["text"]) for row in bulletins(samples, "test", 7)]
        csv.writer(file).writerows([("question", "context"), *rows])
    return folder


@pytest.fixture(scope="session")
def windows_run(shared_run, trained, folder):
    """Two steps, which learn nothing, an evaluation that chooses the threshold, and a prediction."""

    def run(form):
        words = flags(
            model_name_or_path=trained(form),
            train_file=folder / "train.json",
            validation_file=folder / "dev.json",
            test_file=folder / "test.csv",
            do_train=True,
            do_eval=True,
            do_predict=True,
            null_threshold="auto",
            n_best_size=4,
            max_steps=2,
            optim="sgd",
            learning_rate=1e-12,
            per_device_eval_batch_size=5,
            save_strategy="no",
            **WINDOWS,
        )
        return shared_run(form, "windows of questions", *words, record="batches.jsonl")

    return run


def contexts(folder):
    """By id, of the rows to evaluate and of those to predict."""
    paragraphs = json.loads((folder / "dev.json").read_text())["data"][0]["paragraphs"]
    with (folder / "test.csv").open(newline="") as file:
        to_predict = {str(n): row["context"] for n, row in enumerate(csv.DictReader(file), 1)}
    return {
        "eval": {qa["id"]: one["context"] for one in paragraphs for qa in one["qas"]},
        "predict": to_predict,
    }


def test_every_answer_is_what_stands_at_its_place(form, windows_run, folder):
    run = windows_run(form)
    for prefix, texts in contexts(folder).items():
        candidates, found = (
            run.json(f"{prefix}_nbest_predictions.json"),
            run.json(f"{prefix}_predictions.json"),
        )
        odds = run.json(f"{prefix}_null_odds.json")
        assert list(found) == list(candidates) == list(odds) == list(texts)
        threshold = run.json("config.json")["null_score_diff_threshold"]
        for name, text in texts.items():
            assert len(candidates[name]) == 5  # one of them no answer
            spans = [one for one in candidates[name] if one["text"]]
            for one in spans:
                assert one["text"] == text[one["start"] : one["end"]] == one["text"].strip()
            assert len({(one["start"], one["end"]) for one in spans}) == 4
            assert found[name] == ("" if odds[name] > threshold else spans[0]["text"])
            assert sum(one["probability"] for one in candidates[name]) == pytest.approx(1)
    assert any(run.json("predict_predictions.json").values())


def test_rows_have_several_windows_and_one_score(form, windows_run):
    run = windows_run(form)
    results = run.json("eval_results.json")
    assert (results["eval_samples"], results["eval_total"]) == (13, 13)
    batches = map(json.loads, (run.output.parent / "batches.jsonl").read_text().splitlines())
    assert sum(len(batch["numbers"]) for batch in batches) > 2 * (13 + 7)
    assert not {"predict_loss", "predict_exact"} & set(run.json("predict_results.json"))


def test_the_threshold_is_that_of_the_best_f1_and_stays_with_the_model(form, windows_run, folder, tmp_path):
    run = windows_run(form)
    results = run.json("eval_results.json")
    assert results["eval_f1"] == pytest.approx(results["eval_best_f1"])
    assert results["eval_best_f1"] >= max(results["eval_f1"], 100 * results["eval_NoAns_total"] / 13)
    assert run.json("config.json")["null_score_diff_threshold"] == results["eval_best_f1_thresh"]
    words = flags(
        model_name_or_path=run.output, test_file=folder / "test.csv", do_predict=True, n_best_size=4
    )
    again = run_script(form, *words, *flags(null_threshold="auto", **WINDOWS), folder=tmp_path)
    for name in ("predict_predictions.json", "predict_null_odds.json"):
        assert list(again.json(name).values()) == list(run.json(name).values()) or name.endswith("odds.json")
    found, expected = (list(one.json("predict_null_odds.json").values()) for one in (again, run))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_windows_are_answered_as_by_the_first_form(first_form, other_form, windows_run):
    first, other = windows_run(first_form), windows_run(other_form)
    for prefix in ("eval", "predict"):
        name = f"{prefix}_nbest_predictions.json"
        for expected, found in zip(first.json(name).values(), other.json(name).values(), strict=True):
            scores = {(one["start"], one["end"]): one["score"] for one in expected}
            for one in found[:2]:  # of others, equals may have changed places
                assert one["score"] == pytest.approx(scores[one["start"], one["end"]], rel=1e-4, abs=1e-4)
        assert first.json(f"{prefix}_predictions.json") == other.json(f"{prefix}_predictions.json")
    losses = [one.json("eval_results.json")["eval_loss"] for one in (first, other)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_first_form_computes_the_loss_of_transformers_without_padding(windows_run, trained, folder):
    """Of each window by itself, whose targets are found anew: by the characters of its tokens."""
    form = next(form for form in all_forms() if form.tests.get("questions"))
    code = """if True:
        import json, sys, torch
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer
        model = AutoModelForQuestionAnswering.from_pretrained(sys.argv[1]).eval()
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        losses = []
        for paragraph in json.load(open(sys.argv[2]))["data"][0]["paragraphs"]:
            for qa in paragraph["qas"]:
                windows = tokenizer(
                    qa["question"].strip(), paragraph["context"], truncation="only_second", max_length=48,
                    stride=12, return_overflowing_tokens=True, return_offsets_mapping=True,
                )
                for n, ids in enumerate(windows["input_ids"]):
                    places = [0, 0]
                    spans = [
                        (place, *span)
                        for place, (span, part) in enumerate(
                            zip(windows["offset_mapping"][n], windows.sequence_ids(n))
                        )
                        if part == 1
                    ]
                    for one in qa["answers"][:1]:
                        start, end = one["answer_start"], one["answer_start"] + len(one["text"])
                        inside = [place for place, a, b in spans if b > start and a < end]
                        if spans[0][1] <= start and spans[-1][2] >= end:
                            places = [inside[0], inside[-1]]
                    start, end = map(torch.tensor, places)
                    with torch.no_grad():
                        out = model(torch.tensor([ids]), start_positions=start[None], end_positions=end[None])
                    losses.append(out.loss.item())
        print(len(losses), sum(losses) / len(losses))
    """
    _, expected = run_python("-c", code, trained(form), folder / "dev.json").splitlines()[-1].split()
    found = windows_run(form).json("eval_results.json")["eval_loss"]
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_how_far_batches_are_padded_changes_no_loss_and_no_answer(form, windows_run, folder, tmp_path):
    """Nor what smoothing adds to it: of all places that are there."""
    run = windows_run(form)
    words = flags(model_name_or_path=run.output, validation_file=folder / "dev.json", do_eval=True)
    words += flags(null_threshold="auto", n_best_size=4, pad_to_max_length=True, **WINDOWS)
    padded = run_script(form, *words, *flags(per_device_eval_batch_size=1), folder=tmp_path)
    losses = [one.json("eval_results.json")["eval_loss"] for one in (run, padded)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert padded.json("eval_predictions.json") == run.json("eval_predictions.json")


def put_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def test_bad_rows_are_told_all_at_once_with_nothing_written(form, tiny, tmp_path):
    good = {
        "id": "a",
        "question": "Who?",
        "context": "🙂 Ada won.",
        "answers": {"text": ["Ada"], "answer_start": [2]},
    }
    moved = {"text": ["Ada"], "answer_start": [3]}
    nothing = {"text": [], "answer_start": []}
    put_rows(tmp_path / "train.jsonl", [good, good | {"answers": moved}])
    put_rows(tmp_path / "dev.jsonl", [good, good | {"id": "b", "answers": nothing}])
    first = {"text": ["Ada"], "answer_start": [0]}
    asked = {"id": "b", "question": "Who? " * 99, "context": "Ada " * 99, "answers": first}
    put_rows(tmp_path / "long.jsonl", [good, asked])
    (tmp_path / "characters").mkdir()
    (tmp_path / "characters/tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')

    def refused(**given):
        given |= {"model_name_or_path": tiny / "questions-bare", "do_train": True, "output_dir": "out"}
        words = flags(**given, do_eval="validation_file" in given or None)
        process = start_script(form, words, tmp_path, as_written=True)
        run = finish_script(process, form, tmp_path / "out", expect=2)
        assert not run.output.exists()
        return run.problems

    found = refused(train_file="train.jsonl", validation_file="dev.jsonl")
    assert len(found) == 3
    assert 'train, row 2: the answer "Ada" is not at answer_start 3, where "da " stands' in found[0]
    assert "'a' (rows 1, 2)" in found[1]
    assert "validation: 1 of 2 rows have no answer: row 2. Give --version_2_with_negative" in found[2]
    (problem,) = refused(train_file="long.jsonl", max_seq_length=64, doc_stride=16)
    assert "train, row 2" in problem
    assert "--max_seq_length 64" in problem
    (problem,) = refused(train_file="long.jsonl", max_seq_length=20, doc_stride=17)
    assert "--doc_stride 17" in problem
    (problem,) = refused(train_file="long.jsonl", tokenizer_name="characters")
    assert "a CanineTokenizer, is in Python alone and does not say which characters" in problem
