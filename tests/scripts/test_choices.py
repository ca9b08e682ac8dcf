"""Choices through every form: rows with different numbers of them, each by itself and in parts, and what is
wrong with them."""

import json

import numpy as np
import pytest
from harness import all_forms, answers, flags, run_python, run_script
from safetensors.numpy import load_file

from triptych.batching.draws import IN_EVALUATION

pytestmark = pytest.mark.first_with("choices")


def first_rows(files, split, count):
    return [json.loads(line) for line in files[f"{split}_file"].read_text().splitlines()[:count]]


def test_rows_are_scored_as_transformers_scores_each_alone(trained, files, tmp_path):
    """In batches with rows of three to five choices, by the first form; others are held to it elsewhere."""
    form = next(form for form in all_forms() if form.tests.get("choices"))
    code = """if True:
        import json, sys, torch
        from transformers import AutoModelForMultipleChoice, AutoTokenizer

        model = AutoModelForMultipleChoice.from_pretrained(sys.argv[1]).eval()
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        found = []
        for row in json.loads(sys.argv[2]):
            pairs = [row["summary"]] * len(row["choices"]), row["choices"]
            read = tokenizer(*pairs, padding=True, return_tensors="pt")
            read = {name: ids[None] for name, ids in read.items()}
            with torch.no_grad():
                made = model(**read, labels=torch.tensor(["ABCDE".index(row["choice"])]))
            found.append([made.loss.item(), *made.logits[0].softmax(0).tolist()])
        print(json.dumps(found))
    """
    rows = first_rows(files, "test", 24)
    assert {len(row["choices"]) for row in rows} == {3, 4, 5}
    every = json.loads(run_python("-c", code, trained(form), json.dumps(rows)).splitlines()[-1])
    words = flags(model_name_or_path=trained(form), test_file=files["test_file"], do_predict=True)
    words += flags(max_predict_samples=24, per_device_eval_batch_size=7)
    run = run_script(form, *words, folder=tmp_path)
    loss = run.json("predict_results.json")["predict_loss"]
    assert loss == pytest.approx(np.mean([one[0] for one in every]), rel=1e-5)
    for (number, text, share), row, (_, *shares) in zip(
        answers(run.output / "predictions.tsv"), rows, every, strict=True
    ):
        assert int(number) == np.argmax(shares) + 1
        assert text == row["choices"][np.argmax(shares)]
        assert float(share) == pytest.approx(max(shares), abs=1e-4)


@pytest.fixture(scope="session")
def short_run(shared_run, start, files):
    """Two epochs of plain gradient descent, with label smoothing, over rows of three to five choices."""

    def run(form, name, **others):
        settings = dict(
            model_name_or_path=start(form),
            **files,
            do_train=True,
            do_eval=True,
            max_train_samples=10,
            max_eval_samples=7,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=7,
            num_train_epochs=2,
            label_smoothing_factor=0.2,
            learning_rate=0.05,
            optim="sgd",
            logging_steps=1,
            save_strategy="no",
        )
        return shared_run(form, f"choices-{name}", *flags(**settings | others), record="batches.jsonl")

    return run


def test_batches_computed_in_parts_change_no_number(form, short_run):
    """Parts of a row each: five choices that count as 64 tokens long are 320."""
    whole, parts = short_run(form, "whole"), short_run(form, "parts", max_tokens_per_batch=600)
    for expected, found in zip(whole.log(), parts.log(), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert parts.log("loss") != whole.log("loss"), "rounded alike: computed as a whole?"
    before, after = (load_file(run.output / "model.safetensors") for run in (whole, parts))
    for name, weights in before.items():
        np.testing.assert_allclose(after[name], weights, rtol=0, atol=1e-6, err_msg=name)


def test_no_batch_has_more_tokens_than_allowed(form, short_run):
    lines = (short_run(form, "parts", max_tokens_per_batch=600).output.parent / "batches.jsonl").read_text()
    recorded = map(json.loads, lines.splitlines())
    if form.name == "pytorch-trainer":  # which cuts batches for training after they are recorded
        recorded = (one for one in recorded if max(one["numbers"]) >= IN_EVALUATION)
    batches = [one["arrays"] for one in recorded]
    sizes = [np.size(one["input_ids"]) for one in batches]
    assert sizes
    assert max(sizes) <= 600
    masks = [np.array(one["attention_mask"]) for one in batches]
    exist = [np.array(one["is_choice"]) for one in batches]
    for mask, is_choice in zip(masks, exist, strict=True):
        assert mask.ndim == 3
        assert mask.shape[:2] == is_choice.shape
        assert (mask.sum(axis=2)[is_choice == 0] == 1).all()


@pytest.mark.neutral
def test_what_is_wrong_is_told_at_once(form, start, tmp_path):
    good = {"context": "a b", "choices": ["c", "d"], "label": "A"}
    wrong = [{"label": "C"}, {"choices": ["c"]}, {"label": None}]
    lines = [json.dumps(good | change) for change in ({}, {"label": "B"}, *wrong)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    words = flags(model_name_or_path=start(form), train_file="rows.jsonl", context_column="context")
    run = run_script(form, *words, "--do_train", folder=tmp_path, expect=2)
    expected = (
        "row 3: the label 'C' is beyond",
        "row 4: there is a single choice",
        "row 5: the label is missing",
    )
    assert len(run.problems) == 3
    for problem, what in zip(run.problems, expected, strict=True):
        assert what in problem
    (tmp_path / "rows.jsonl").write_text(lines[0] + "\n" + lines[1] + "\n")
    long = [*words, "--do_train", "--max_seq_length", "3"]
    (problem,) = run_script(form, *long, folder=tmp_path, expect=2).problems[:1]
    assert "train, row 1: the question with choice 1 needs" in problem
    assert not run.output.exists()
