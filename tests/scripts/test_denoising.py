"""Texts that are restored, through every form: corrupted alike everywhere, continued, filled, and what is
refused."""

import json
import shutil

import numpy as np
import pytest
from harness import alike, answers, flags, run_script
from safetensors.numpy import load_file

from triptych.batching.draws import IN_EVALUATION

pytestmark = pytest.mark.needs("denoises")

EPOCHS = 3
STEPS, SAVED = 6, 3  # of the run that is continued
KINDS = {"bart-with-holes": {"objective": "infilling"}, "t5-1.1": {"noise_density": 0.3}}


def batches(run):
    """The batches of training by the draws of their rows; workers may have prepared more of them."""
    lines = map(json.loads, (run.output.parent / "batches.jsonl").read_text().splitlines())
    return {tuple(one["numbers"]): one for one in lines if max(one["numbers"]) < IN_EVALUATION}


@pytest.fixture(scope="session")
def restored_run(shared_run, tiny, files):
    """Three epochs on blocks, without dropout; an evaluation, and a prediction row by row.
    All but the first form of the task have workers."""

    def run(form, model):
        words = flags(
            model_name_or_path=tiny / model,
            **files,
            **KINDS[model],
            line_by_line=False,
            do_train=True,
            do_eval=True,
            do_predict=True,
            max_train_samples=40,
            max_eval_samples=12,
            max_predict_samples=12,
            max_seq_length=128,
            per_device_train_batch_size=8,
            num_train_epochs=EPOCHS,
            learning_rate=1e-3,
            dataloader_num_workers=None if form.is_first_of_its_task else 2,
            logging_steps=1,
            save_strategy="no",
        )
        return shared_run(form, f"restored-{model}", *words, record="batches.jsonl")

    return run


@pytest.mark.parametrize("model", KINDS)
def test_blocks_are_corrupted_and_restored_as_by_the_first_form(first_form, other_form, model, restored_run):
    """The batches byte for byte, and what comes of them."""
    first, other = (restored_run(form, model) for form in (first_form, other_form))
    expected, found = (run.log("loss") for run in (first, other))
    corrupted = [batches(run) for run in (first, other)]
    assert len(corrupted[0]) == len(expected) > 2 * EPOCHS
    for numbers, batch in corrupted[0].items():
        assert corrupted[1][numbers]["arrays"] == batch["arrays"], numbers
    for one, two in zip(expected, found, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    for split in ("eval", "predict"):
        one, two = (run.json(f"{split}_results.json") for run in (first, other))
        for name in ("loss", "accuracy"):
            assert two[f"{split}_{name}"] == pytest.approx(one[f"{split}_{name}"], rel=1e-5)
    # Without perplexities, which follow from the nats, and are of eight digits with random weights
    one, two = ([row[:2] for row in answers(run.output / "predictions.tsv")] for run in (first, other))
    assert len({row[1] for row in one}) == 12
    assert all(map(alike, one, two))
    expected, found = (load_file(run.output / "model.safetensors") for run in (first, other))
    assert set(expected) == set(found)
    for name, values in expected.items():
        # Adam moves what has hardly a gradient by up to the learning rate, 1e-3
        np.testing.assert_allclose(found[name], values, rtol=0, atol=5e-4, err_msg=name)


@pytest.mark.neutral
@pytest.mark.parametrize("model", KINDS)
def test_an_epoch_corrupts_the_same_blocks_anew(form, model, restored_run):
    read = {}
    for numbers, batch in batches(restored_run(form, model)).items():
        read |= dict(
            zip(
                numbers,
                zip(batch["rows"]["input_ids"], batch["arrays"]["input_ids"], strict=True),
                strict=True,
            )
        )
    rows = len({str(whole) for whole, _ in read.values()})
    assert rows > 16
    assert len(read) >= EPOCHS * rows
    for row in range(rows):
        whole, corrupted = zip(*(read[row + epoch * rows] for epoch in range(EPOCHS)), strict=True)
        assert whole[0] == whole[1] == whole[2]
        assert len({*map(str, corrupted)}) == EPOCHS


@pytest.mark.neutral
def test_evaluation_is_the_same_in_any_batch(form, tiny, files, restored_run, tmp_path):
    expected = restored_run(form, "bart-with-holes")
    words = flags(model_name_or_path=expected.output, validation_file=files["validation_file"], do_eval=True)
    words += flags(max_eval_samples=12, max_seq_length=128, objective="infilling", line_by_line=False)
    words += flags(per_device_eval_batch_size=3, dataloader_num_workers=2, pad_to_max_length=True)
    results = run_script(form, *words, folder=tmp_path).json("eval_results.json")
    for name in ("eval_loss", "eval_perplexity", "eval_accuracy"):
        assert results[name] == pytest.approx(expected.json("eval_results.json")[name], rel=2e-6)


@pytest.fixture(scope="session")
def continued_words(tiny, files):
    """A run on blocks of streamed rows, with dropout and a state."""
    return flags(
        model_name_or_path=tiny / "bart-with-holes",
        objective="infilling",
        config_overrides="dropout=0.1",
        train_file=files["train_file"],
        validation_file=files["validation_file"],
        streaming=True,
        line_by_line=False,
        max_seq_length=64,
        do_train=True,
        max_train_samples=40,
        max_eval_samples=4,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        max_steps=STEPS,
        learning_rate=1e-2,
        logging_steps=1,
        save_steps=SAVED,
        eval_strategy="steps",
        eval_steps=SAVED,
    )


def test_run_is_continued_from_its_checkpoint(form, continued_words, shared_run, tmp_path):
    """As if the run had been killed behind that: to the same losses and weights, to the last bit."""
    whole = shared_run(form, "restored-continued", *continued_words, record="batches.jsonl")
    shutil.copytree(whole.output, tmp_path / "out")
    shutil.rmtree(tmp_path / f"out/checkpoint-{STEPS}")
    (tmp_path / "out/model.safetensors").unlink()
    continued = run_script(form, *continued_words, folder=tmp_path)
    assert f"Continuing after step {SAVED}" in continued.stderr
    assert continued.log() == whole.log()
    assert (continued.output / "model.safetensors").read_bytes() == (
        whole.output / "model.safetensors"
    ).read_bytes()


@pytest.mark.neutral
def test_blocks_of_a_stream_are_cut_from_all_texts(form, continued_words, shared_run):
    run = shared_run(form, "restored-continued", *continued_words, record="batches.jsonl")
    lengths = [len(ids) for batch in batches(run).values() for ids in batch["rows"]["input_ids"]]
    assert len(lengths) >= 6 * STEPS
    assert max(lengths) == 64
    assert lengths.count(64) > 0.7 * len(lengths)


@pytest.fixture(scope="session")
def holes(samples, tmp_path_factory):
    """Twenty bulletins with two holes, an empty row, and one without a hole."""
    path = tmp_path_factory.mktemp("holes") / "rows.jsonl"
    lines = (samples / "test.jsonl").read_text().splitlines()[:20]
    texts = [json.loads(line)["text"].split() for line in lines]
    found = {}
    for name, marks in (("spans", ("<extra_id_0>", "<extra_id_1>")), ("infilling", ("<mask>", "<mask>"))):
        rows = [" ".join([*words[:2], marks[0], *words[4:7], marks[1], *words[9:12]]) for words in texts]
        rows[3:3] = [""]
        rows.append(" ".join(texts[0][:5]))
        found[name] = path.with_name(f"{name}.jsonl")
        found[name].write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return found


@pytest.fixture(scope="session")
def filled(shared_run, trained, tiny, holes):
    def run(form, objective, **changes):
        words = flags(
            model_name_or_path=trained(form) if objective == "infilling" else tiny / "t5-with-holes",
            objective=objective,
            test_file=holes[objective],
            do_predict=True,
            max_new_tokens=24,
            **changes,
        )
        return shared_run(form, "-".join(["filled", objective, *map(str, changes.values())]), *words)

    return run


def written(run):
    return (run.output / "generated_predictions.txt").read_text().splitlines()


@pytest.mark.parametrize("objective", ["spans", pytest.param("infilling", marks=pytest.mark.nightly)])
def test_holes_are_filled_as_by_the_first_form(first_form, other_form, objective, filled):
    expected, other = written(filled(first_form, objective)), filled(other_form, objective, num_beams=1)
    assert written(other) == expected
    results = other.json("predict_results.json")
    assert results["predict_samples"] == 21
    assert not {"predict_loss", "predict_perplexity"} & set(results)


@pytest.mark.neutral
def test_what_stood_around_the_holes_stays(form, filled, holes):
    rows = [json.loads(line)["text"] for line in holes["spans"].read_text().splitlines()]
    found = written(filled(form, "spans"))
    assert len(found) == len(rows) == 22
    assert found[3] == ""
    assert found[-1] == rows[-1]
    for row, text in zip(rows[:3] + rows[4:-1], found[:3] + found[4:-1], strict=True):
        first, second, third = (
            part.strip() for part in row.replace("<extra_id_1>", "<extra_id_0>").split("<extra_id_0>")
        )
        assert text.startswith(first)
        assert second in text
        assert text.endswith(third)
        assert "<" not in text


@pytest.mark.neutral
def test_what_cannot_be_restored_is_refused(form, tiny, samples, tmp_path):
    (tmp_path / "short.txt").write_text("a\n")
    (tmp_path / "long.txt").write_text("<extra_id_0> and so on" * 200 + "\n")

    def problem(model, *others, **given):
        words = flags(
            model_name_or_path=tiny / model, **{"train_file": "short.txt", "do_train": True} | given
        )
        (found,) = run_script(form, *words, *others, folder=tmp_path, expect=2).problems
        return found

    assert "no sentinels <extra_id_0>" in problem("t5")
    assert "no mask token" in problem("bart", objective="infilling")
    assert "encoder and decoder" in problem("gpt2")
    assert "has 60 sentinels" in problem("t5-with-holes", max_seq_length=2000)
    assert "the model has only 256 positions" in problem(
        "bart-with-holes", objective="infilling", max_seq_length=300
    )
    of_test = {"train_file": None, "do_train": None, "test_file": "short.txt", "do_predict": True}
    assert "none of 1 rows has two tokens" in problem("t5-with-holes", **of_test)
    of_test |= {"test_file": "long.txt", "max_new_tokens": 4}
    assert "what is to be filled is not cut" in problem("t5-with-holes", **of_test)
    assert not (tmp_path / "out").exists()
