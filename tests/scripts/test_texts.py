"""Texts that go on, through every form: packed so that none sees another, continued, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from harness import alike, answers, flags, run_script
from safetensors.numpy import load_file

from triptych.batching.draws import IN_EVALUATION

pytestmark = pytest.mark.needs("causal")

BLOCK = 250  # longer than any text of the samples
STEPS, SAVED = 6, 3  # of the run that is continued
MODELS = ["gpt2", "qwen3", pytest.param("llama", marks=pytest.mark.nightly)]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def batches(run):
    """The batches of training, in order."""
    return [one for one in read(run.output.parent / "batches.jsonl") if max(one["numbers"]) < IN_EVALUATION]


@pytest.fixture(scope="session")
def packed_run(shared_run, tiny, files):
    """One step on twelve texts at once, without dropout, and an evaluation and a prediction behind it."""

    def run(form, model, packing):
        words = flags(
            model_name_or_path=tiny / model,
            **files,
            do_train=True,
            do_eval=True,
            do_predict=True,
            max_train_samples=12,
            max_eval_samples=12,
            max_predict_samples=12,
            per_device_train_batch_size=12,
            block_size=BLOCK,
            packing=packing,
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0,
            logging_steps=1,
            save_strategy="no",
        )
        return shared_run(form, f"texts-{model}-{packing}", *words, record="batches.jsonl")

    return run


@pytest.mark.parametrize("model", MODELS)
def test_packed_texts_have_the_losses_of_each_alone(form, model, packed_run):
    """In training, by its loss and gradient, and in evaluation, row by row."""
    together, alone = (packed_run(form, model, kind) for kind in ("documents", "none"))
    about = together.json("run.json")["packed"]
    assert about["train"]["pieces"] == about["test"]["pieces"] == 12
    assert about["train"]["blocks"] < 8
    assert alone.json("run.json")["packed"]["train"]["blocks"] == 12
    (found,), (expected,) = together.log("loss"), alone.log("loss")
    assert found["loss"] == pytest.approx(expected["loss"], rel=2e-6)
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
    for split in ("eval", "predict"):
        one, two = (run.json(f"{split}_results.json") for run in (together, alone))
        for name in ("loss", "perplexity", "accuracy", "bits_per_byte"):
            assert one[f"{split}_{name}"] == pytest.approx(two[f"{split}_{name}"], rel=1e-5)
    one, two = (answers(run.output / "predictions.tsv") for run in (together, alone))
    assert len({row[1] for row in two}) == 12
    assert all(map(alike, one, two))


@pytest.mark.parametrize("model", MODELS)
def test_packed_texts_are_the_first_forms(first_form, other_form, model, packed_run):
    """The blocks byte for byte, and what comes of them."""
    first, other = (packed_run(form, model, "documents") for form in (first_form, other_form))
    assert other.json("run.json")["packed"] == first.json("run.json")["packed"]
    assert batches(other)[:1] == batches(first)[:1]
    (expected,), (found,) = first.log("loss"), other.log("loss")
    assert found == pytest.approx(expected, rel=1e-5)
    weights = (load_file(run.output / "model.safetensors") for run in (first, other))
    expected, found = weights
    assert set(expected) == set(found)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=2e-6, err_msg=name)


@pytest.fixture(scope="session")
def blocks_run(shared_run, start, files):
    """A run on blocks that cut texts, of rows that stream or not, with dropout and a state."""

    def words(form, streaming):
        return flags(
            model_name_or_path=start(form),
            config_overrides=form.tests["dropout"],
            train_file=files["train_file"],
            validation_file=files["validation_file"],
            streaming=streaming,
            packing="blocks",
            block_size=60,
            do_train=True,
            max_train_samples=40,
            max_eval_samples=4,
            per_device_train_batch_size=3,
            gradient_accumulation_steps=2,
            max_steps=STEPS,
            learning_rate=1e-2,
            weight_decay=0.1,
            logging_steps=1,
            save_steps=SAVED,
            eval_strategy="steps",
            eval_steps=SAVED,
        )

    def run(form, streaming):
        given = words(form, streaming)
        return shared_run(form, f"texts-blocks-{bool(streaming)}", *given, record="batches.jsonl")

    return words, run


@pytest.mark.parametrize("streaming", [True, pytest.param(None, marks=pytest.mark.nightly)])
def test_run_on_blocks_is_continued_from_its_checkpoint(form, streaming, blocks_run, tmp_path):
    """As if the run had been killed behind that: to the same losses and weights, to the last bit."""
    words, run = blocks_run
    whole = run(form, streaming)
    shutil.copytree(whole.output, tmp_path / "out")
    shutil.rmtree(tmp_path / f"out/checkpoint-{STEPS}")
    (tmp_path / "out/model.safetensors").unlink()
    continued = run_script(form, *words(form, streaming), folder=tmp_path)
    assert f"Continuing after step {SAVED}" in continued.stderr
    assert continued.log() == whole.log()
    assert (continued.output / "model.safetensors").read_bytes() == (
        whole.output / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("streaming", [True, pytest.param(None, marks=pytest.mark.nightly)])
def test_blocks_of_a_run_are_the_first_forms(first_form, other_form, streaming, blocks_run):
    first, other = (blocks_run[1](form, streaming) for form in (first_form, other_form))
    expected, found = batches(first)[: 2 * STEPS], batches(other)[: 2 * STEPS]
    assert len(expected) == 2 * STEPS
    assert found == expected
    lengths = [len(ids) for batch in expected for ids in batch["rows"]["input_ids"]]
    assert max(lengths) == 60
    assert lengths.count(60) > 0.9 * len(lengths)


@pytest.fixture(scope="session")
def prompts(samples, tmp_path_factory):
    """Forty beginnings of bulletins, of different lengths, and between them one that is empty."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    texts = [row["text"][: 30 + number] for number, row in enumerate(read(samples / "test.jsonl")[:40])]
    texts.insert(7, "")
    path.write_text("".join(json.dumps({"begins": text}) + "\n" for text in texts))
    return path


SAMPLING = {"do_sample": True, "temperature": 0.9, "top_k": 40, "top_p": 0.95}
SEARCHES = {"greedy": {}, "sampled": SAMPLING, "beams": {"num_beams": 3}}


@pytest.fixture(scope="session")
def continued(shared_run, trained, prompts):
    def run(form, search, **changes):
        words = flags(
            model_name_or_path=trained(form),
            test_file=prompts,
            prompt_column="begins",
            do_predict=True,
            max_new_tokens=16,
            **SEARCHES[search],
            **changes,
        )
        name = "-".join(["texts", search, *map(str, changes.values())])
        return shared_run(form, name, *words)

    return run


def lines(run):
    return (run.output / "generated_predictions.txt").read_text().splitlines()


OF_SEARCHES = ["greedy", "sampled", pytest.param("beams", marks=pytest.mark.nightly)]


@pytest.mark.parametrize("search", OF_SEARCHES)
def test_prompts_are_continued_as_by_the_first_form(first_form, other_form, search, continued):
    """Forty of forty, whatever the batches are."""
    first = continued(first_form, search)
    other = continued(other_form, search, per_device_eval_batch_size=11)
    assert len(lines(first)) == 41
    assert lines(first)[7] == ""
    assert len(set(lines(first))) > 30
    assert lines(other) == lines(first)
    results = other.json("predict_results.json")
    assert results["predict_samples"] == 40
    assert not {"predict_loss", "predict_perplexity"} & set(results)


@pytest.mark.neutral
def test_sampling_is_that_of_the_seed(form, continued):
    one, other = (lines(continued(form, "sampled", data_seed=seed)) for seed in (5, 6))
    greedy = lines(continued(form, "greedy"))
    assert sum(a != b for a, b in zip(one, other, strict=True)) > 20
    assert sum(a != b for a, b in zip(one, greedy, strict=True)) > 20


@pytest.mark.neutral
def test_completions_alone_are_learnt_and_texts_continued(form, start, samples, tmp_path):
    rows = [{"q": row["text"], "a": " " + row["summary"]} for row in read(samples / "train.jsonl")[:12]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = flags(
        model_name_or_path=start(form),
        train_file="rows.jsonl",
        validation_file="rows.jsonl",
        prompt_column="q",
        completion_column="a",
        do_train=True,
        do_eval=True,
        max_steps=2,
    )
    run = run_script(form, *words, folder=tmp_path, record="batches.jsonl")
    for batch in batches(run):
        learnt, there = (np.array(batch["arrays"][name]) for name in ("labels", "attention_mask"))
        counts = (learnt != -100).sum(axis=1)
        assert (counts > 3).all()
        assert (counts < 0.5 * there.sum(axis=1)).all()
    assert run.json("eval_results.json")["eval_bits_per_byte"] > 1


PLAIN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="session")
def talks(samples, tmp_path_factory):
    """Dialogues of two turns; and, in one.jsonl, some of which one has no assistant's turn."""
    folder = tmp_path_factory.mktemp("talks")
    found = [
        [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["summary"]}]
        for row in read(samples / "train.jsonl")[:8]
    ]
    for name, rows in (("talks", found), ("one", [found[0], found[1][:1]])):
        (folder / f"{name}.jsonl").write_text(
            "".join(
                json.dumps({"messages": talk, "domain": f"d{n % 2}"}) + "\n" for n, talk in enumerate(rows)
            )
        )
    return folder


def with_template(model, folder, template=PLAIN):
    shutil.copytree(model, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return folder


@pytest.mark.neutral
def test_dialogues_are_learnt_and_scored_by_domain(form, start, talks, tmp_path):
    words = flags(
        model_name_or_path=with_template(start(form), tmp_path / "model"),
        train_file=talks / "talks.jsonl",
        validation_file=talks / "talks.jsonl",
        messages_column="messages",
        do_train=True,
        do_eval=True,
        max_steps=2,
    )
    run = run_script(form, *words, folder=tmp_path, record="batches.jsonl")
    for batch in batches(run):
        learnt = (np.array(batch["arrays"]["labels"]) != -100).sum(axis=1)
        assert (learnt > 3).all()
        assert (learnt < 0.5 * np.array(batch["arrays"]["attention_mask"]).sum(axis=1)).all()
    results = run.json("eval_results.json")
    assert {name: about["rows"] for name, about in results["eval_by_source"].items()} == {"d0": 4, "d1": 4}
    losses = [about["loss"] for about in results["eval_by_source"].values()]
    assert min(losses) < results["eval_loss"] < max(losses)


@pytest.mark.neutral
def test_dialogues_that_cannot_be_learnt_are_refused(form, start, talks, tmp_path):
    words = flags(model_name_or_path=start(form), messages_column="messages", do_train=True)
    refused = run_script(form, *words, "--train_file", talks / "one.jsonl", folder=tmp_path, expect=2)
    (problem,) = refused.problems
    assert "train, row 2" in problem
    assert "no turn of an assistant" in problem
    refused = run_script(form, *words, "--train_file", talks / "talks.jsonl", folder=tmp_path, expect=2)
    (problem,) = refused.problems
    assert "has no chat template" in problem
    assert not (tmp_path / "out").exists()


def test_tables_grow_for_new_tokens(form, tiny, files, tmp_path):
    """By rows that are the mean of the others, the same in every form; without the flag they do not."""
    shutil.copytree(tiny / "llama", tmp_path / "model")
    path = tmp_path / "model/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    number = len(tokenizer["model"]["vocab"])
    added = {"id": number, "content": "<new>", "special": True, "single_word": False}
    added |= dict.fromkeys(("lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"].append(added)
    path.write_text(json.dumps(tokenizer))
    words = flags(model_name_or_path="model", train_file=files["train_file"], do_train=True)
    words += flags(max_train_samples=4, num_train_epochs=0)
    (problem,) = run_script(form, *words, folder=tmp_path, expect=2).problems
    assert "beyond the model's table" in problem
    assert "--resize_token_embeddings" in problem
    run = run_script(form, *words, "--resize_token_embeddings", folder=tmp_path)
    assert run.json("config.json")["vocab_size"] == number + 1
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", run.output))
    assert set(after) == set(before)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in before:
            np.testing.assert_array_equal(after[name][:number], before[name])
            np.testing.assert_allclose(after[name][number], before[name].mean(axis=0), atol=1e-7)
    assert len(after["model.embed_tokens.weight"]) == number + 1


@pytest.mark.neutral
def test_texts_that_no_model_could_read_are_refused(form, start, samples, tmp_path):
    (tmp_path / "short.txt").write_text("a\nb\n")
    words = flags(model_name_or_path=start(form), train_file="short.txt", do_train=True)
    (problem,) = run_script(form, *words, "--block_size", "600", folder=tmp_path, expect=2).problems
    assert "--block_size 600: the model has only 512 positions" in problem
    (problem,) = run_script(form, *words, "--add_eos", "false", folder=tmp_path, expect=2).problems
    assert "not one block" in problem
    (problem,) = run_script(form, *words, "--fim_rate", "0.5", folder=tmp_path, expect=2).problems
    assert "--fim_tokens auto" in problem
    words = flags(model_name_or_path=start(form), test_file="short.txt", do_predict=True, max_new_tokens=512)
    (problem,) = run_script(form, *words, folder=tmp_path, expect=2).problems
    assert "--max_new_tokens 512: the model has only 512 positions" in problem
    assert not (tmp_path / "out").exists()


@pytest.mark.neutral
def test_files_of_code_are_a_text_each_and_the_first_are_held_out(form, start, tmp_path):
    for number in range(20):
        folder = tmp_path / f"src/{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.py").write_text(f"def f{number}():\n    return '{'x' * number}'\n")
    words = flags(
        model_name_or_path=start(form),
        train_file="src/**/*.py",
        validation_split_percentage=10,
        fim_rate=1.0,
        fim_tokens="<pad>,<unk>,a",
        do_train=True,
        do_eval=True,
        max_steps=2,
    )
    run = run_script(form, *words, folder=tmp_path, record="batches.jsonl")
    assert run.json("train_results.json")["train_samples"] == 18
    assert run.json("eval_results.json")["eval_samples"] == 2
    trained = [ids for batch in batches(run) for ids in batch["rows"]["input_ids"]]
    assert all({0, 2} <= set(ids) for ids in trained), "a text has no hole"
