"""Own files in every format: what stands in them reaches the model, row by row and character by character."""

import csv
import gzip
import json
from collections import Counter

import pytest
from harness import flags, rows_answered, run_python, run_script
from tokenizers import Tokenizer

UGLY = [
    'He said "no", then "yes"',
    "comma, semicolon; tab\tand | pipe",
    "two\nlines\n\nand a third",
    "naïve café, 東京 🙂 العربية",
    "  spaces around  ",
    "'single', `back`, \\n backslash, {\"json\": [1]}",
    "007",
    "NA",
    "null",
    "=1+1",
    "#hash",
]


def ugly_rows(name):
    """Rows that no other file holds."""
    return [
        {"id": str(n), "Body": f"{text} of {name}", "Headline": f"{n} {text}"} for n, text in enumerate(UGLY)
    ]


def write(path, rows):
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    path.parent.mkdir(exist_ok=True)
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if kind in ("csv", "tsv"):
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
        elif kind == "jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            json.dump(rows, file, indent=1)


def write_parquet(path, rows, framework):
    code = (
        "import json, sys, pyarrow, pyarrow.parquet as p; "
        "p.write_table(pyarrow.Table.from_pylist(json.loads(sys.argv[2])), sys.argv[1])"
    )
    run_python("-c", code, path, json.dumps(rows), framework=framework)


def token_rows(rows, tokenizer, names):
    """How often which text has which target: token ids, or the label's number in order of the names."""
    ids = {row["Headline"]: tuple(tokenizer.encode(row["Headline"]).ids) for row in rows}
    if names:
        ids = {name: number for number, name in enumerate(sorted(ids))}
    return Counter((tuple(tokenizer.encode(row["Body"]).ids), ids[row["Headline"]]) for row in rows)


@pytest.mark.sampled
def test_every_row_of_every_format_reaches_the_model(form, tiny, start, tmp_path):
    if formats := form.tests.get("formats"):
        pytest.skip(f"its rows are more than two columns of texts: {formats} has their formats")
    names = ["a.csv", "b.TSV", "c.Json", "d.jsonl", "e.csv.gz", "f.TSV.GZ"]
    rows = {name: ugly_rows(name) for name in [*names, "v.jsonl.gz", "v.parquet", "t/1.CSV", "t/2.CSV"]}
    for name in rows:
        if name != "v.parquet":
            write(tmp_path / name, rows[name])
    write_parquet(tmp_path / "v.parquet", rows["v.parquet"], form.framework)
    empty = [{"id": "8", "Body": "", "Headline": "x"}, {"id": "9", "Body": "x", "Headline": None}]
    write(tmp_path / "z.jsonl", [*ugly_rows("z"), *empty])
    write(tmp_path / "t/3.CSV", [{"id": "9", "Body": "x", "Headline": " \n"}, *ugly_rows("t/3")])

    words = flags(
        model_name_or_path=tiny / form.tests["bare"],
        train_file=",".join([*names, "z.jsonl"]),
        validation_file="v.*",
        test_file="t/*.CSV",
        **{form.tests["text"]: "Body", form.tests["target"]: "Headline"},
        max_train_samples=1000,
        max_eval_samples=1000,
        max_predict_samples=1000,
        do_train=True,
        do_eval=True,
        do_predict=True,
        num_train_epochs=1,
        preprocessing_num_workers=2,
        max_target_length=60 if form.tests.get("generates") else None,
    )
    run = run_script(form, *words, folder=tmp_path, record="batches.jsonl")
    assert "train: 2 of 79 rows dropped" in run.stderr
    # A text without a label is predicted all the same.
    labels = form.tests.get("labels")
    assert ("test: 1 of 34 rows dropped" in run.stderr) == (not labels)
    assert ("the label is missing in 1 of 34 rows" in run.stderr) == bool(labels)
    predicted = 34 if labels else 33
    assert [run.json(f"{s}_results.json")[f"{s}_samples"] for s in ("train", "eval", "predict")] == [
        77,
        22,
        predicted,
    ]
    # A line for each row of the file, or a row with its number
    assert rows_answered(run.output / form.settings["predictions"]) == 34

    tokenizer = Tokenizer.from_file(str(tiny / form.tests["bare"] / "tokenizer.json"))
    batches = map(json.loads, (tmp_path / "batches.jsonl").read_text().splitlines())
    found = Counter()
    for taken in (batch["rows"] for batch in batches if "labels" in batch["rows"]):
        targets = (tuple(target) if isinstance(target, list) else target for target in taken["labels"])
        found.update(zip(map(tuple, taken["input_ids"]), targets, strict=True))
    everything = [row for name in rows for row in rows[name]] + ugly_rows("z") + ugly_rows("t/3")
    expected = token_rows(everything, tokenizer, labels)
    if labels:
        expected[tuple(tokenizer.encode("x").ids), -100] = 1  # the one without a label
    assert found == expected


@pytest.mark.crossed
def test_prediction_needs_nothing_but_texts(form, trained, tmp_path, samples):
    """Questions are among these, and choices. Arguments may come from YAML; a text file has one column."""
    rows = [json.loads(line) for line in (samples / "test.jsonl").read_text().splitlines()[:5]]
    name, lines = form.to_predict([*rows[:3], None, *rows[3:]])
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    (tmp_path / "run.yaml").write_text(
        f"model_name_or_path: {trained(form)}\n"
        f"test_file: {name}\n"
        "do_predict: true\n"
        "max_predict_samples: 100  # more than there are\n"
        + "".join(f"{name}: {value}\n" for name, value in form.longest(100).items())
        + "output_dir: out\n"
    )
    run = run_script(form, "run.yaml", folder=tmp_path, output=None)
    run.output = tmp_path / "out"
    assert "test: 1 of 6 rows dropped" in run.stderr
    # A line for each row of the file, or a row with its number
    number = 6 if form.settings["predictions"].endswith(".txt") else 5
    assert rows_answered(run.output / form.settings["predictions"]) == number
    results = run.json("predict_results.json")
    assert results["predict_samples"] == 5
    scored = {"predict_loss", f"predict_{form.tests['best']}"} & set(results)
    assert bool(scored) == form.tests.get("self_supervised", False)
    assert not (run.output / "model.safetensors").exists()


@pytest.mark.sampled
def test_streamed_rows_train(form, start, files, shared_run, samples):
    run = streamed(form, start, files, shared_run)
    recorded = [json.loads(line) for line in (run.output.parent / "batches.jsonl").read_text().splitlines()]
    known = [json.loads(line) for line in files["train_file"].open()]
    if form.tests.get("pictures"):
        rows = [name for batch in recorded for name in batch["rows"]["picture"]]
        in_file = [form.text(row) for row in known]
    else:
        rows = [str(ids) for batch in recorded for ids in batch["rows"]["input_ids"]]
        tokenizer = Tokenizer.from_file(str(samples / "tokenizer/tokenizer.json"))
        in_file = [str(form.input_ids(row, tokenizer)) for row in known]
    assert len(run.log("loss")) == 3
    assert len(rows) >= 24
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(in_file)
    assert rows != in_file[: len(rows)]  # shuffled


@pytest.mark.first_task
def test_streamed_batches_equal_the_first_forms(first_form, other_form, start, files, shared_run):
    first, other = (streamed(form, start, files, shared_run) for form in (first_form, other_form))
    expected, found = (
        (run.output.parent / "batches.jsonl").read_text().splitlines()[:6] for run in (first, other)
    )
    assert found == expected
    for one, two in zip(first.log("loss"), other.log("loss"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


def streamed(form, start, files, shared_run):
    words = flags(
        model_name_or_path=start(form),
        train_file=files["train_file"],
        streaming=True,
        do_train=True,
        max_steps=3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        logging_steps=1,
    )
    return shared_run(form, "streamed", *words, record="batches.jsonl")
