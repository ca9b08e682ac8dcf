"""Labels of every kind through every form: several, values, pairs, another model's, and those of GLUE."""

import csv
import json

import numpy as np
import pytest
from harness import all_forms, answers, flags, run_script
from safetensors.numpy import load_file

pytestmark = pytest.mark.first_with("labels")

GLUE_TEXTS = ("premise", "hypothesis")


@pytest.fixture(scope="session")
def rows(samples):
    """A hundred bulletins, each with its topic, several labels or none, and a value."""
    lines = (samples / "train.jsonl").read_text().splitlines()[:100]
    return [
        row
        | {
            "labels": [row["topic"], *["long"] * (len(row["text"]) > 300)] if number % 9 else [],
            "value": -100.0 if number == 3 else len(row["text"]) / 100,
        }
        for number, row in enumerate(map(json.loads, lines))
    ]


@pytest.fixture(scope="session")
def trained_on(shared_run, tiny, rows, tmp_path_factory):
    """Six steps with a new head on labels of one kind, evaluated and predicted."""

    def run(form, kind):
        folder = tmp_path_factory.mktemp(kind)
        if kind == "value":  # from CSV, where numbers are strings
            with open(folder / "rows.csv", "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerows([("text", "value"), *((row["text"], row["value"]) for row in rows)])
        else:
            lines = [json.dumps({"text": row["text"], kind: row[kind]}) + "\n" for row in rows]
            (folder / "rows.jsonl").write_text("".join(lines))
        (file,) = folder.iterdir()
        words = flags(
            model_name_or_path=tiny / "topics-bare",
            train_file=file,
            validation_file=file,
            test_file=file,
            label_column_name=kind,
            do_regression=kind == "value" or None,
            do_train=True,
            do_eval=True,
            do_predict=True,
            max_train_samples=44,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            label_smoothing_factor=0.1 if kind == "labels" else None,
        )
        return shared_run(form, f"labels-{kind}", *words)

    return run


EXPECTED = {
    "labels": ("multi_label_classification", {"accuracy", "f1_macro", "f1_micro"}, 10),
    "value": ("regression", {"pearson", "spearman", "mean_squared_error"}, 1),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_problem_is_told_saved_and_scored(form, kind, trained_on):
    run = trained_on(form, kind)
    problem_type, metrics, outputs = EXPECTED[kind]
    assert f"Problem type {problem_type}" in run.stderr
    config, results = run.json("config.json"), run.json("eval_results.json")
    assert config["problem_type"] == problem_type
    assert len(config.get("id2label", {"0": ""})) == outputs
    assert {f"eval_{name}" for name in metrics} <= set(results)
    predictions = answers(run.output / form.settings["predictions"])
    assert len(predictions) == 100
    weights = load_file(run.output / "model.safetensors")
    assert weights["classifier.weight"].shape == (outputs, 32)
    if kind == "value":
        assert len({value for (value,) in predictions}) > 50
        assert results["eval_loss"] == pytest.approx(results["eval_mean_squared_error"], rel=1e-4)
        assert results["eval_loss"] > 50  # a hundredth of a hundred squared: the row with -100 counts
    else:
        assert set(results["eval_by_label"]) == set(config["label2id"])


@pytest.mark.parametrize("kind", EXPECTED)
def test_training_equals_the_first_forms(first_form, other_form, kind, trained_on):
    """With a head that is new in both."""
    first, other = trained_on(first_form, kind), trained_on(other_form, kind)
    for expected, found in zip(first.log("loss"), other.log("loss"), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    keys = ("eval_loss", *(f"eval_{name}" for name in EXPECTED[kind][1]))
    for key in keys:
        expected, found = (run.json("eval_results.json")[key] for run in (first, other))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), key


def test_model_with_its_own_order_scores_as_transformers_says(form, trained, samples, tmp_path):
    """Labels in another order than that of their letters: what scores 90% must not score 4%."""
    folder, config = tmp_path / "model", json.loads((trained(form) / "config.json").read_text())
    folder.mkdir()
    names = [config["id2label"][str(number)] for number in range(9)]
    order = [*range(1, 9), 0]
    config["id2label"] = {str(new): names[old] for new, old in enumerate(order)}
    config["label2id"] = {names[old]: new for new, old in enumerate(order)}
    weights = load_file(trained(form) / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order]
    from safetensors.numpy import save_file

    for path in trained(form).glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    words = flags(validation_file=samples / "validation.jsonl", max_eval_samples=60, do_eval=True)
    runs = [
        run_script(form, *words, *flags(model_name_or_path=model), folder=tmp_path, output=f"out-{number}")
        for number, model in enumerate((trained(form), folder))
    ]
    expected, found = (run.json("eval_results.json") for run in runs)
    assert expected["eval_accuracy"] > 0.6
    for name in ("eval_accuracy", "eval_loss", "eval_f1_macro"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_labels_that_the_model_does_not_know_are_refused_or_get_a_new_head(form, start, rows, tmp_path):
    lines = [
        json.dumps({"text": row["text"], "label": f"class {n % 4}"}) + "\n" for n, row in enumerate(rows)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(lines[:24]))
    words = flags(model_name_or_path=start(form), train_file="rows.jsonl", do_train=True, max_steps=1)
    refused = run_script(form, *words, folder=tmp_path, expect=2)
    (problem,) = refused.problems
    for part in ("class 0, class 1, class 2, class 3", "--ignore_mismatched_sizes"):
        assert part in problem
    assert not refused.output.exists()
    run = run_script(form, *words, "--ignore_mismatched_sizes", folder=tmp_path)
    assert "classifier.weight has shape [9, 32] in the checkpoint and [4, 32]" in run.stderr
    assert run.json("config.json")["id2label"] == {str(n): f"class {n}" for n in range(4)}


def glue_rows(rows, number, labels):
    texts = [row["text"].split(". ") for row in rows[10 * number : 10 * number + 10]]
    return [
        dict(zip(GLUE_TEXTS, (text[0], text[-1]), strict=True)) | {"label": label, "idx": index}
        for index, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


def test_glue_evaluates_both_sets_of_mnli(form, tiny, rows, tmp_path):
    """By the name run_glue.py, from a local folder in the shape of GLUE's; its test rows have no labels."""
    names = ["entailment", "neutral", "contradiction"]
    splits = {"train": None, "validation_matched": None, "validation_mismatched": None}
    splits |= {"test_matched": -1, "test_mismatched": -1}
    (tmp_path / "glue").mkdir()
    about = ["---", "configs:", "- config_name: default", "  data_files:"]
    for number, (split, label) in enumerate(splits.items()):
        labels = [row % 3 if label is None else label for row in range(10)]
        text = "".join(json.dumps(row) + "\n" for row in glue_rows(rows, number, labels))
        (tmp_path / "glue" / f"{split}.jsonl").write_text(text)
        about += [f"  - split: {split}", f"    path: {split}.jsonl"]
    about += ["dataset_info:", "- config_name: default", "  features:"]
    about += [f"  - name: {name}\n    dtype: string" for name in GLUE_TEXTS]
    about += ["  - name: label\n    dtype:\n      class_label:\n        names:"]
    about += [f"          '{number}': {name}" for number, name in enumerate(names)]
    about += ["  - name: idx\n    dtype: int64", "---"]
    (tmp_path / "glue/README.md").write_text("\n".join(about) + "\n")
    glue = form.script.with_name(form.script.name.replace("classification", "glue"))
    named = type(form)(form.task, form.name, glue, form.settings)
    words = flags(
        model_name_or_path=tiny / "topics-bare",
        task_name="mnli",
        dataset_name="glue",
        do_train=True,
        do_eval=True,
        do_predict=True,
        max_steps=1,
        logging_steps=1,
    )
    run = run_script(named, *words, folder=tmp_path)
    assert run.json("config.json")["id2label"] == {str(n): name for n, name in enumerate(names)}
    first, second = run.json("eval_results.json"), run.json("eval_mm_results.json")
    assert {"eval_accuracy", "eval_loss"} <= set(first)
    assert {"eval_mm_accuracy", "eval_mm_loss"} <= set(second)
    assert first["eval_loss"] != second["eval_mm_loss"]
    assert {"eval_accuracy", "eval_mm_accuracy"} <= set(run.json("all_results.json"))
    assert "test_mm: the label is missing in 10 of 10 rows" in run.stderr
    for name in ("predictions.tsv", "predictions_mm.tsv"):
        assert {label for label, _ in answers(run.output / name)} <= set(names)
    assert "predict_accuracy" not in run.json("predict_results.json")


def test_pairs_of_texts_reach_the_model_with_their_types(form, start, rows, tmp_path):
    """Both texts, cut to the longest length together."""
    lines = [json.dumps(dict(a=row["text"], b=row["summary"], topic=row["topic"])) + "\n" for row in rows[:6]]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    words = flags(model_name_or_path=start(form), validation_file="rows.jsonl", text_column_names="a,b")
    run_script(form, *words, *flags(do_eval=True, max_seq_length=40), folder=tmp_path, record="batches.jsonl")
    batches = [json.loads(line)["arrays"] for line in (tmp_path / "batches.jsonl").read_text().splitlines()]
    ids = np.concatenate([batch["input_ids"] for batch in batches])
    assert ids.shape == (6, 40)
    end = json.loads((start(form) / "tokenizer.json").read_text())["added_tokens"]
    (end,) = (token["id"] for token in end if token["content"] == "</s>")
    assert ((ids == end).sum(axis=1) == 2).all()
    assert {tuple(np.shape(batch["token_type_ids"])) for batch in batches} == {(6, 40)}


def test_the_first_form_trains_as_transformers_does(samples, tiny, tmp_path):
    """The loss of a step is that of the model's own `problem_type`, computed by transformers."""
    form = next(form for form in all_forms() if form.tests.get("labels"))
    code = """if True:
        import json, sys, torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        folder, file = sys.argv[1:]
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        rows = [json.loads(line) for line in open(file)][:12]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        batch = tokenizer([row["text"] for row in rows], padding=True, truncation=True, max_length=128,
                          return_tensors="pt")
        labels = torch.tensor([model.config.label2id[row["topic"]] for row in rows])
        print(model(**batch, labels=labels).loss.item())
    """
    from harness import run_python

    expected = float(run_python("-c", code, tiny / "topics", samples / "validation.jsonl").splitlines()[-1])
    words = flags(model_name_or_path=tiny / "topics", validation_file=samples / "validation.jsonl")
    run = run_script(form, *words, *flags(do_eval=True, max_eval_samples=12), folder=tmp_path)
    assert run.json("eval_results.json")["eval_loss"] == pytest.approx(expected, rel=1e-5)
