"""Hidden tokens, through every form: the same ones, filled, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from harness import alike, flags, run_script

from triptych.batching.draws import IN_EVALUATION

pytestmark = pytest.mark.needs("masks")

EPOCHS, SIZE, SAVED = 3, 4, 5


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def batches(run):
    """The batches of training by the draws of their rows; workers may have prepared more of them."""
    found = read(run.output.parent / "batches.jsonl")
    return {tuple(one["numbers"]): one for one in found if max(one["numbers"]) < IN_EVALUATION}


@pytest.fixture(scope="session")
def words_run(shared_run, start, files):
    """Three epochs of blocks in which whole words are hidden, with dropout; evaluated and saved in the midst
    of the second."""

    def words(form, workers):
        return flags(
            model_name_or_path=start(form),
            config_overrides=form.tests["dropout"],
            train_file=files["train_file"],
            validation_file=files["validation_file"],
            line_by_line=False,
            whole_word_mask=True,
            mlm_probability=0.2,
            max_seq_length=100,
            do_train=True,
            max_train_samples=20,
            max_eval_samples=9,
            per_device_train_batch_size=SIZE,
            per_device_eval_batch_size=7 if workers else 2,
            num_train_epochs=EPOCHS,
            learning_rate=1e-2,
            logging_steps=1,
            eval_strategy="steps",
            save_steps=SAVED,
            eval_steps=SAVED,
            dataloader_num_workers=workers or None,
        )

    def run(form, workers=0):
        return shared_run(form, f"masks-{workers}", *words(form, workers), record="batches.jsonl")

    return words, run


@pytest.mark.neutral
def test_tokens_are_hidden_anew_in_each_epoch_and_as_before_in_each_evaluation(form, words_run):
    run = words_run[1](form)
    hidden, shares = {}, []
    for numbers, batch in batches(run).items():
        arrays = batch["arrays"]
        for number, row, places, mask in zip(
            numbers, batch["rows"]["input_ids"], arrays["places"], arrays["attention_mask"], strict=True
        ):
            hidden[number] = [place for place in places if place >= 0]
            shares.append(len(hidden[number]) / sum(mask))
            assert all(row[place] not in (0, 1, 2, 800) for place in hidden[number])
    rows = len(hidden) // EPOCHS
    assert rows >= 8
    for row in range(rows):
        of_epochs = [hidden[row + epoch * rows] for epoch in range(EPOCHS)]
        assert len({tuple(each) for each in of_epochs}) == EPOCHS
    assert np.mean(shares) == pytest.approx(0.2, abs=0.03)
    evaluated = [
        one for one in read(run.output.parent / "batches.jsonl") if max(one["numbers"]) >= IN_EVALUATION
    ]
    by_rows = {}
    for one in evaluated:
        assert by_rows.setdefault(tuple(one["numbers"]), one["arrays"]) == one["arrays"]
    assert len(evaluated) >= 2 * len(by_rows) > 2


def test_masks_and_losses_are_the_first_forms_with_workers_and_after_a_stop(
    first_form, other_form, words_run, tmp_path
):
    """In three epochs; evaluated in other batches."""
    words, run = words_run
    first, other = run(first_form), run(other_form, workers=2)
    expected, found = batches(first), batches(other)
    assert len(expected) >= 3 * EPOCHS
    assert {numbers: found[numbers]["arrays"] for numbers in expected} == {
        numbers: one["arrays"] for numbers, one in expected.items()
    }
    shutil.copytree(other.output, tmp_path / "out")
    for path in (tmp_path / "out").glob("checkpoint-*"):
        if path.name != f"checkpoint-{SAVED}":
            shutil.rmtree(path)
    continued = run_script(
        other_form, *words(other_form, 2), folder=tmp_path, record=tmp_path / "batches.jsonl"
    )
    assert f"Continuing after step {SAVED}" in continued.stderr
    assert continued.log() == other.log()
    again = batches(continued)
    assert len(again) < len(expected)
    assert all(
        again[numbers]["arrays"] == one["arrays"] for numbers, one in expected.items() if numbers in again
    )
    one, two = (each.log("eval_loss") for each in (first, other))
    if first_form.framework != other_form.framework:  # dropout draws other numbers
        one, two = ([] for _ in range(2))
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="session")
def short_texts(tmp_path_factory):
    """Texts of two tokens, of which hardly one is hidden, and one that cannot be."""
    path = tmp_path_factory.mktemp("short") / "short.txt"
    path.write_text("".join(f"{letter}\n" for letter in "abcdefghijklmnop") + "<mask>\n")
    return path


def test_steps_without_a_target_change_nothing_and_are_counted(form, start, short_texts, tmp_path):
    words = flags(
        model_name_or_path=start(form),
        train_file=short_texts,
        do_train=True,
        mlm_probability=0.4,
        per_device_train_batch_size=1,
        num_train_epochs=1,
        learning_rate=1e-3,
        logging_steps=1,
        optim="sgd",
        save_strategy="no",
    )
    run = run_script(form, *words, folder=tmp_path)
    assert "train: 1 of 17 rows dropped, without a token to mask" in run.stderr
    log = run.log("loss")
    without = [entry for entry in log if entry.get("steps_without_targets")]
    assert 3 < len(without) < len(log) - 3
    assert all((entry["loss"], entry["grad_norm"]) == (0, 0) for entry in without)
    assert all(entry["steps_without_targets"] == 1 for entry in without)
    assert all(entry["loss"] > 0 for entry in log if entry not in without)
    assert np.isfinite([entry["loss"] for entry in log]).all()


@pytest.fixture(scope="session")
def filled(shared_run, trained, samples, tmp_path_factory):
    """Bulletins with one or two words replaced by mask tokens, long ones and an empty row between them."""
    path = tmp_path_factory.mktemp("masks") / "masks.jsonl"
    rows = [row["text"] for row in read(samples / "test.jsonl")[:6]]
    texts = []
    for number, text in enumerate(rows):
        parts = text.split(" ")
        for place in (5, 9)[: 1 + number % 2]:
            parts[place] = "<mask>"
        texts.append(" ".join(parts))
    texts[1] = f"{rows[5]} {texts[1]}"  # the masks are in its second half
    texts.insert(2, "")
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def run(form):
        words = flags(model_name_or_path=trained(form), test_file=path, do_predict=True, max_seq_length=120)
        return shared_run(form, "masks-filled", *words)

    return run


@pytest.mark.crossed
def test_masks_of_texts_are_filled(form, filled, trained):
    run = filled(form)
    heads, *lines = (line.split("\t") for line in (run.output / "predictions.tsv").read_text().splitlines())
    assert heads == [
        "row",
        *(f"{name}_{number}" for number in range(1, 6) for name in ("filling", "probability")),
        "token",
        "nats",
    ]
    assert [int(line[0]) for line in lines] == [1, 2, 2, 4, 5, 5, 6, 7, 7]
    for line in lines:
        assert line[-2:] == ["", ""]
        shares = [float(share) for share in line[2:-2:2]]
        assert shares == sorted(shares, reverse=True)
        assert len({*line[1:-2:2]}) == 5
        assert 0 < sum(shares) <= 1.001
    results = run.json("predict_results.json")
    assert "predict_loss" not in results
    assert results["predict_samples"] == 6


def test_masks_are_filled_as_by_the_first_form(first_form, other_form, filled):
    expected, found = (
        [line.split("\t") for line in (filled(form).output / "predictions.tsv").read_text().splitlines()]
        for form in (first_form, other_form)
    )
    assert len(expected) == len(found) == 10
    assert all(alike(one, two) for one, two in zip(found, expected, strict=True)), (found, expected)


@pytest.mark.neutral
def test_models_and_tokenizers_without_masks_are_refused(form, tiny, samples, files, tmp_path):
    words = flags(train_file=files["train_file"], do_train=True)
    scratch = flags(model_type="bert", tokenizer_name=samples / "tokenizer")
    (problem,) = run_script(form, *scratch, *words, folder=tmp_path, expect=2).problems
    assert "has no mask token" in problem
    writer = flags(model_type="bart", tokenizer_name=samples / "tokenizer-masked")
    (problem,) = run_script(form, *writer, *words, folder=tmp_path, expect=2).problems
    assert "run_denoising.py" in problem
    assert not (tmp_path / "out").exists()


@pytest.mark.neutral
def test_texts_without_a_token_to_mask_are_refused(form, start, tmp_path):
    (tmp_path / "train.txt").write_text("<mask>\n<mask><mask>\n")
    words = flags(model_name_or_path=start(form), train_file="train.txt", do_train=True)
    (problem,) = run_script(form, *words, folder=tmp_path, expect=2).problems
    assert problem == "train: not one of 2 rows has a token that could be masked."
    assert not (tmp_path / "out").exists()
