"""What single flags do: that each has its effect, and that the effect is the right one."""

import json

import numpy as np
import pytest
from harness import all_forms, flags, once, run_python, run_script
from safetensors.numpy import load_file


@pytest.fixture(scope="session")
def plain(shared_run, start, files):
    """A short run without dropout, with `others` beside its flags."""

    def run(form, name, **others):
        settings = dict(
            model_name_or_path=start(form),
            **files,
            **form.longest(200),
            do_train=True,
            do_eval=True,
            max_train_samples=12,
            max_eval_samples=6,
            max_target_length=40 if form.tests.get("generates") else None,
            per_device_train_batch_size=4,
            num_train_epochs=2,
            learning_rate=0.05,
            optim="sgd",
            logging_steps=1,
            save_strategy="no",
        )
        return shared_run(form, f"flags-{name}", *flags(**settings | others))

    return run


def losses(run):
    return [entry["loss"] for entry in run.log("loss")]


@pytest.mark.first_task
def test_batches_computed_in_parts_change_no_number(form, plain):
    parts = plain(form, "parts", max_tokens_per_batch=100, per_device_eval_batch_size=4)
    for expected, found in zip(plain(form, "plain").log(), parts.log(), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert parts.log("loss") != plain(form, "plain").log("loss"), "rounded alike: computed as a whole?"


@pytest.mark.sampled
def test_bf16_is_close_but_not_the_same(form, plain):
    half = plain(
        form,
        "bf16",
        bf16=True,
        lr_scheduler_type="polynomial",
        lr_scheduler_kwargs='{"power": 2, "lr_end": 0.01}',
    )
    expected, found = losses(plain(form, "plain")), losses(half)
    assert found[0] == pytest.approx(expected[0], rel=2e-2)
    assert found[0] != pytest.approx(expected[0], rel=1e-6)  # float32 would give the same bits
    assert {array.dtype for array in load_file(half.output / "model.safetensors").values()} == {
        np.dtype("float32")
    }
    rates = [entry["learning_rate"] for entry in half.log("loss")]
    np.testing.assert_allclose(rates, [0.01 + 0.04 * (1 - step / 6) ** 2 for step in range(6)], rtol=1e-6)


@pytest.mark.sampled
def test_label_smoothing_is_of_training_alone(form, plain):
    """With a learning rate that changes nothing, evaluation sees the model that the plain run began with."""
    smoothed = plain(form, "smoothed", label_smoothing_factor=0.5, learning_rate=1e-12, eval_strategy="epoch")
    at_start = losses(plain(form, "plain"))[0]
    assert losses(smoothed)[0] != pytest.approx(at_start, rel=1e-3)
    evaluations = [entry["eval_loss"] for entry in smoothed.log("eval_loss")]
    assert len(set(evaluations)) == 1
    assert evaluations[0] == pytest.approx(at_start, rel=0.1)  # other rows of the same kind


@pytest.mark.first_task
@pytest.mark.timeout(600)
def test_compiled_model_learns_the_same(form, plain):
    if form != next(form for form in all_forms() if form.script.name.endswith("_no_trainer.py")):
        pytest.skip("compiling takes a minute: one script stands for all")
    settings = dict(max_train_samples=4, pad_to_max_length=True, do_eval=None)
    compiled = plain(form, "compiled", torch_compile=True, **settings)
    expected = plain(form, "uncompiled", **settings)
    assert losses(compiled) == pytest.approx(losses(expected), rel=1e-4)
    assert set(load_file(compiled.output / "model.safetensors")) == set(
        load_file(expected.output / "model.safetensors")
    )


@pytest.fixture
def by_transformers(form, trained, files):
    """What transformers itself answers, row by row, and the loss where padding counts as target."""
    code = """if True:
        import json, sys, torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
        folder, test_file, validation_file = sys.argv[1:4]
        reads, writes = map(json.loads, sys.argv[4:])

        def at(row, keys):
            for key in keys:
                row = row[key]
            return row

        model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = [json.loads(line) for line in open(test_file)][:12]
        answers = []
        for row in rows:
            ids = model.generate(
                **tokenizer(at(row, reads), return_tensors="pt"), num_beams=3, max_length=12
            )
            answers.append(tokenizer.decode(ids[0], skip_special_tokens=True))
        loss = count = 0
        for row in [json.loads(line) for line in open(validation_file)][:12]:
            target = at(row, writes)
            labels = tokenizer(
                target, padding="max_length", max_length=40, truncation=True, return_tensors="pt"
            )["input_ids"]
            with torch.no_grad():
                logits = model(**tokenizer(at(row, reads), return_tensors="pt"), labels=labels).logits
            loss += torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum").item()
            count += labels.numel()
        print(json.dumps([answers, loss / count]))
    """

    def build(folder):
        arguments = [trained(form), files["test_file"], files["validation_file"]]
        arguments += [json.dumps(form.reads), json.dumps(form.tests["writes"])]
        (folder / "answers.json").write_text(run_python("-c", code, *arguments).splitlines()[-1])

    return json.loads(
        (once(trained(form).parent.with_name(f"answers-{form.task}"), build) / "answers.json").read_text()
    )


@pytest.mark.first_with("generates")
def test_beams_length_and_padding_are_those_of_transformers(form, trained, files, by_transformers, tmp_path):
    words = flags(
        model_name_or_path=trained(form),
        **files,
        do_eval=True,
        do_predict=True,
        max_eval_samples=12,
        max_predict_samples=12,
        max_target_length=40,
        num_beams=3,
        val_max_target_length=12,
        pad_to_max_length=True,
        max_source_length=250,
        ignore_pad_token_for_loss=False,
    )
    run = run_script(form, *words, folder=tmp_path)
    answers, loss = by_transformers
    assert (run.output / form.settings["predictions"]).read_text().splitlines() == answers
    assert run.json("eval_results.json")["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert run.json("predict_results.json")["predict_gen_len"] <= 12


@pytest.fixture(scope="session")
def early(plain):
    """A learning rate far too high, so that evaluations soon get worse, halved after each that does."""

    def run(form):
        return plain(
            form,
            "early",
            learning_rate=1,
            num_train_epochs=20,
            eval_strategy="steps",
            save_strategy="steps",
            eval_steps=2,
            save_steps=2,
            save_total_limit=1,
            load_best_model_at_end=True,
            early_stopping_patience=2,
            lr_scheduler_type="reduce_lr_on_plateau",
            lr_scheduler_kwargs='{"patience": 0, "factor": 0.5}',
        )

    return run


@pytest.mark.first_task
def test_early_stopping_ends_with_the_best_model(form, early):
    stopped = early(form)
    state = stopped.json("trainer_state.json")
    last = state["global_step"]
    # Step by step; the run ends with an evaluation of the best model, which the log of the Trainer holds as
    # well.
    evaluations = {entry["step"]: entry["eval_loss"] for entry in reversed(stopped.log("eval_loss"))}
    best = min(evaluations, key=evaluations.get)
    assert (state["best_global_step"], state["best_metric"]) == (best, evaluations[best])
    assert last == best + 4 < state["max_steps"]
    assert {path.name for path in stopped.output.glob("checkpoint-*")} == {
        f"checkpoint-{best}",
        f"checkpoint-{last}",
    }
    final, saved = (
        load_file(stopped.output / name / "model.safetensors") for name in (".", f"checkpoint-{best}")
    )
    assert all(np.array_equal(final[name], saved[name]) for name in saved)
    assert stopped.json("eval_results.json")["eval_loss"] == pytest.approx(evaluations[best], rel=1e-6)
    rates = {entry["step"]: entry["learning_rate"] for entry in stopped.log("loss")}
    assert rates[best + 3] == pytest.approx(rates[best + 1] / 2)


@pytest.mark.first_task
def test_early_stopping_equals_the_first_forms(first_form, other_form, early):
    first, other = early(first_form), early(other_form)
    for expected, found in zip(first.log("loss"), other.log("loss"), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)  # so high a rate enlarges every rounding error
    for key in ("best_global_step", "global_step", "max_steps"):
        assert other.json("trainer_state.json")[key] == first.json("trainer_state.json")[key]


@pytest.mark.first_with("generates")
def test_bart_learns_with_a_longer_position_table(form, tiny, files, tmp_path):
    words = flags(
        model_name_or_path=tiny / "bart",
        **files,
        do_train=True,
        max_train_samples=8,
        num_train_epochs=1,
        max_source_length=100,
        max_target_length=40,
    )
    refused = run_script(form, *words, folder=tmp_path, expect=2)
    assert len(refused.problems) == 1
    for found in ("--max_source_length 100", "64 positions", "--resize_position_embeddings"):
        assert found in refused.problems[0]
    assert not refused.output.exists()

    run = run_script(form, *words, "--resize_position_embeddings", folder=tmp_path)
    assert run.json("config.json")["max_position_embeddings"] == 100
    before, after = load_file(tiny / "bart/model.safetensors"), load_file(run.output / "model.safetensors")
    assert set(before) == set(after)
    table = "model.encoder.embed_positions.weight"
    assert (len(before[table]), len(after[table])) == (66, 102)
    assert "64 to 100" in run.stderr
    words[words.index("--model_name_or_path") + 1] = str(run.output)
    words = ["--do_eval" if word == "--do_train" else word for word in words]
    run_script(form, *words, "--max_eval_samples", "4", folder=tmp_path, output="evaluated")


@pytest.mark.first_with("one_language")
def test_language_begins_texts_and_summaries(form, tiny, files, tmp_path):
    words = flags(
        model_name_or_path=tiny / "mbart",
        **files,
        lang="de_DE",
        do_train=True,
        do_predict=True,
        max_train_samples=4,
        max_predict_samples=4,
        num_train_epochs=1,
        max_source_length=100,
        max_target_length=20,
    )
    run = run_script(form, *words, folder=tmp_path, record="batches.jsonl")
    tokens = json.loads((tiny / "mbart/tokenizer.json").read_text())["added_tokens"]
    german = next(token["id"] for token in tokens if token["content"] == "de_DE")
    batches = list(map(json.loads, (tmp_path / "batches.jsonl").read_text().splitlines()))
    assert batches
    for batch in batches:
        assert {ids[0] for ids in batch["rows"]["input_ids"]} == {german}
        assert {ids[0] for ids in batch["rows"].get("labels", [[german]])} == {german}
    assert (run.output / "model.safetensors").exists()


@pytest.mark.first_task
def test_run_that_fails_names_its_last_good_checkpoint(form, start, files, tmp_path):
    words = flags(
        model_name_or_path=start(form),
        train_file=files["train_file"],
        do_train=True,
        max_train_samples=16,
        per_device_train_batch_size=4,
        learning_rate=1e30,
        optim="sgd",
        save_steps=1,
    )
    run = run_script(form, *words, folder=tmp_path, expect=1)
    checkpoints = sorted((tmp_path / "out").glob("checkpoint-*"))
    assert checkpoints
    assert f"Last good checkpoint: {checkpoints[-1].relative_to(tmp_path)}" in run.stderr
    assert "learning_rate" in run.stderr
    assert not (tmp_path / "out/train_results.json").exists()
