"""Whatever can be known before training is told before training: all of it, in plain words, with nothing
touched."""

import gzip
import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from harness import flags, run_script


def contents(folder):
    """Everything below a folder: path, content and time of its last change."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


def refusal(form, *words, folder, **others):
    """The problems that a script ends with, which must have left the folder as it was."""
    before = contents(folder)
    run = run_script(form, *words, folder=folder, expect=2, **others)
    assert contents(folder) == before
    assert run.problems, run.stderr
    assert run.stdout == ""
    return run.problems


def find(problems, *parts):
    """The one problem that mentions all parts."""
    matching = [problem for problem in problems if all(part in problem for part in parts)]
    assert len(matching) == 1, f"{parts} in {problems}"
    return matching[0]


def test_all_mistakes_are_told_at_once(form, tmp_path):
    text, to_predict, has_lengths = form.tests["text"], form.tests["column"], "length" in form.tests
    (tmp_path / "rows.csv").write_text(f"articel,{to_predict}\none,1\n")
    (tmp_path / "broken.csv").write_text(f'text,{to_predict}\n"a, b",c\nd,e,f\n')
    (tmp_path / "broken.jsonl").write_text(
        json.dumps({"text": "a", to_predict: "b"}) + f'\n\n{{"text": "c", "{to_predict}"\n[1]\n'
    )
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "cut.tsv.gz").write_bytes(
        gzip.compress(f"text\t{to_predict}\n".encode() + os.urandom(900).hex().encode())[:300]
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    (tmp_path / "model").mkdir()
    words = flags(
        model_name_or_path="model",
        train_file="rows.csv",
        validation_file="broken.csv,broken.jsonl,empty.json",
        test_file="cut.tsv.gz,rowz.csv",
        **{text: "article"},
        do_train=True,
        per_device_train_batch_size=0,
        learning_rate="fast",
        num_train_epochs=-1,
        max_train_samples=0,
        lr_scheduler_type="cosin",
        eval_strategy="step",
        early_stopping_patience=1,
        label_smoothing_factor=1.5,
        max_tokens_per_batch=100,
        pad_to_max_length=True if has_lengths else None,
        ignore_pad_token_for_loss=False if form.tests.get("generates") else None,
        optim="adamm",
        resume_from_checkpoint="notes",
        lr_scheduler_kwargs="{power: 2}",
    )
    problems = refusal(form, *words, "stray", folder=tmp_path, output="notes")
    find(problems, "--model_name_or_path model", "config.json")
    find(
        problems,
        "rows.csv",
        f"--{text} 'article'",
        "did you mean 'articel'?",
        f"there are: articel, {to_predict}",
    )
    find(problems, "broken.csv, line 3", "3")
    find(problems, "broken.jsonl, line 3", "not JSON")
    find(problems, "broken.jsonl, line 4")
    find(problems, "empty.json is empty")
    find(problems, "cut.tsv.gz")
    find(problems, "rowz.csv: no such file; did you mean rows.csv?")
    find(problems, "--per_device_train_batch_size 0", "at least 1")
    find(problems, "--learning_rate fast", "a number")
    find(problems, "--num_train_epochs -1")
    find(problems, "--max_train_samples 0")
    find(problems, "--lr_scheduler_type cosin", "did you mean cosine?")
    find(problems, "--eval_strategy step", "did you mean steps?")
    find(problems, "--early_stopping_patience", "--load_best_model_at_end")
    find(problems, "--label_smoothing_factor 1.5")
    find(problems, "--max_tokens_per_batch", "--pad_to_max_length" if has_lengths else "different lengths")
    if form.tests.get("generates"):
        find(problems, "--max_tokens_per_batch", "--ignore_pad_token_for_loss")
    find(problems, "--optim adamm")
    find(problems, "--resume_from_checkpoint notes", "manifest.json")
    find(problems, "--lr_scheduler_kwargs", "JSON")
    find(problems, "--output_dir notes", "mine.txt", "--overwrite_output_dir")
    find(problems, "'stray'")


def test_no_arguments_name_what_is_needed(form, tmp_path):
    problems = refusal(form, folder=tmp_path, output=None)
    for needed in ("--model_name_or_path", "--train_file", "--dataset_name"):
        assert any(needed in problem for problem in problems), needed


@pytest.mark.first_task
def test_arguments_file_that_is_none(form, tmp_path):
    (tmp_path / "run.json").write_text('{"learning_rate": 1e-3,}')
    (problem,) = refusal(form, "run.json", folder=tmp_path, output=None)
    assert "run.json" in problem


@pytest.mark.first_task
def test_float16_on_a_cpu_is_refused(form, start, files, tmp_path):
    words = flags(model_name_or_path=start(form), train_file=files["train_file"], do_train=True, fp16=True)
    (problem,) = refusal(form, *words, folder=tmp_path)
    assert "--fp16" in problem
    assert "--bf16" in problem


@pytest.mark.first_with("generates")
def test_dataset_of_the_hub_without_a_network(form, start, tmp_path):
    """The command of the README, word for word but for its model."""
    words = f"""--model_name_or_path {start(form)} --do_train --do_eval --dataset_name cnn_dailymail
        --dataset_config 3.0.0 --per_device_train_batch_size=4 --per_device_eval_batch_size=4
        --overwrite_output_dir --predict_with_generate"""
    (problem,) = refusal(form, *words.split(), "--source_prefix", "summarize: ", folder=tmp_path)
    for part in ("cnn_dailymail", "--train_file", "cache"):
        assert part in problem


@pytest.mark.first_task
def test_model_of_the_hub_without_a_network(form, files, tmp_path):
    words = flags(model_name_or_path="google-t5/t5-small", train_file=files["train_file"], do_train=True)
    (problem,) = refusal(form, *words, folder=tmp_path)
    for part in ("google-t5/t5-small", "local folder", "HF_HUB_OFFLINE"):
        assert part in problem


@pytest.mark.first_task
def test_missing_split_and_foreign_folder(form, start, tmp_path):
    """A folder of data without rows to evaluate, and somebody else's model where the output should go."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text('{"text": "a b", "summary": "c", "topic": "d"}\n')
    words = flags(model_name_or_path=start(form), dataset_name="data", do_train=True, do_eval=True)
    (problem,) = refusal(form, *words, folder=tmp_path)
    find([problem], "--dataset_name data", "no split validation", "there are: train")


@pytest.mark.first_task
def test_model_of_somebody_else_is_not_overwritten(form, start, files, tmp_path):
    shutil.copytree(start(form), tmp_path / "theirs")
    words = flags(model_name_or_path=start(form), train_file=files["train_file"], do_train=True)
    (problem,) = refusal(form, *words, "--overwrite_output_dir", folder=tmp_path, output="theirs")
    assert "model.safetensors" in problem


@pytest.mark.sampled
def test_damaged_weights_are_told(form, start, files, tmp_path):
    shutil.copytree(start(form), tmp_path / "damaged")
    weights = (tmp_path / "damaged/model.safetensors").read_bytes()
    (tmp_path / "damaged/model.safetensors").write_bytes(weights[: len(weights) // 2])
    words = flags(model_name_or_path="damaged", train_file=files["train_file"], do_train=True)
    (problem,) = refusal(form, *words, folder=tmp_path)
    assert "damaged" in problem


@pytest.mark.first_task
def test_malformed_row_behind_the_first_ten_thousand(form, start, tmp_path):
    """What a look at the file's head does not see is found when it is read, still before training."""
    rows = ['{"text": "a b c", "summary": "d"}\n'] * 10_500
    rows[10_200] = '{"text": "a b c"\n'
    (tmp_path / "train.jsonl").write_text("".join(rows))
    words = flags(model_name_or_path=start(form), train_file="train.jsonl", do_train=True)
    (problem,) = refusal(form, *words, folder=tmp_path)
    assert "line 10201" in problem


@contextmanager
def small_disk(folder, size):
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"only root can make a small disk: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.first_task
def test_too_little_disk(form, start, files, tmp_path):
    with small_disk(tmp_path / "small", "256k") as disk:
        words = flags(model_name_or_path=start(form), train_file=files["train_file"], do_train=True)
        run = run_script(form, *words, folder=tmp_path, output="small/out", expect=2)
        assert not list(disk.iterdir())
    (problem,) = run.problems
    assert "bytes" in problem
    assert "free" in problem


def test_help_is_grouped_and_tells_every_default(form, tmp_path):
    run = run_script(form, "-h", folder=tmp_path, output=None, anew=True)
    lines = run.stdout.splitlines()
    groups = [line for line in lines if line and not line.startswith(" ") and line.endswith(":")]
    assert len(groups) >= 5, groups
    wanted = [flag for flag in form.settings["flags"] if flag.startswith("--")]
    for flag in [*wanted, "--learning_rate", "--train_file", "--hub_token", "--save_steps"]:
        assert any(line.strip().startswith(flag) for line in lines), flag
    text = " ".join(run.stdout.split())
    for shown in ("(default: 5e-05)", "(default: 42)", "(default: 3.0)", "(default: linear)"):
        assert shown in text
    assert max(map(len, lines)) <= 120
    assert run.stderr == ""
