import dataclasses
import json

import pytest

from triptych import command_line
from triptych.arguments import DataArguments, ModelArguments, TrainingArguments

CLASSES = (ModelArguments, DataArguments, TrainingArguments)


@pytest.fixture
def good(tmp_path):
    """A command line without a mistake."""
    (tmp_path / "rows.csv").write_text("text,summary\na,b\n")
    for file in ("config.json", "tokenizer_config.json"):
        (tmp_path / file).write_text("{}")
    return [
        *("--model_name_or_path", str(tmp_path), "--train_file", str(tmp_path / "rows.csv")),
        *("--output_dir", str(tmp_path / "out"), "--do_train"),
    ]


def problems(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        command_line.parse(*CLASSES, argv=argv)
    assert exit.value.code == 2
    return [line.removeprefix("  - ") for line in capsys.readouterr().err.splitlines()[1:]]


def test_flags_become_values_of_their_types(good):
    more = ["--learning-rate", "1e-3", "--max_steps=7", "--bf16", "true", "--greater_is_better", "no"]
    _, _, args = command_line.parse(*CLASSES, argv=good + more)
    assert (args.learning_rate, args.max_steps, args.bf16, args.greater_is_better) == (1e-3, 7, True, False)
    assert (args.do_train, args.do_eval, args.eval_steps, args.data_seed) == (True, False, 500, 42)


@pytest.mark.parametrize(
    ("older", "name", "value"),
    [
        (["--evaluation_strategy", "epoch", "--validation_file", "ROWS"], "eval_strategy", "epoch"),
        (["--warmup_ratio", "0.1"], "warmup_steps", 0.1),
        (["--no_cuda"], "use_cpu", True),
        (["--push_to_hub_model_id", "me/it"], "hub_model_id", "me/it"),
        (["--per_gpu_train_batch_size", "3"], "per_device_train_batch_size", 3),
        (["--logging_dir", "there"], "logging_dir", "there"),
        (["--group_by_length"], "group_by_length", True),
    ],
)
def test_older_spellings_are_honoured(older, name, value, good):
    older = [good[3] if word == "ROWS" else word for word in older]
    assert getattr(command_line.parse(*CLASSES, argv=good + older)[2], name) == value


@pytest.mark.parametrize("name", sorted(command_line.RETIRED))
def test_retired_flags_are_answered_with_what_to_write(name, good, capsys):
    (problem,) = problems([*good, f"--{name}", "1"], capsys)
    assert problem == f"--{name} is an older spelling: {command_line.RETIRED[name]}."


def test_all_mistakes_are_told_at_once(good, capsys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    mistakes = [
        *("--learning_rate", "fast", "--max_steps", "1.5", "--do_eval", "perhaps", "--optim"),
        *("--eval_strategy", "step", "--modle_type", "t5", "--label_smoothing_factor", "1"),
        *("--validation_file", str(tmp_path / "none.csv"), "stray", "--fp16", "--bf16"),
    ]
    found = problems(good + mistakes, capsys)
    for part in [
        "--learning_rate fast: expected a number",
        "--max_steps 1.5: expected a whole number",
        "--do_eval perhaps: expected true or false",
        "--optim: a value is missing",
        "--eval_strategy step: must be one of no, steps, epoch (did you mean steps?)",
        "--modle_type: there is no such flag; did you mean --model_type?",
        "--label_smoothing_factor 1.0: must be from 0 to below 1",
        "none.csv",
        "'stray': expected a flag",
        "--bf16 and --fp16 exclude each other",
        "is not empty (mine.txt)",
    ]:
        assert any(part in problem for problem in found), (part, found)
    assert len(found) == 11


def test_a_value_given_twice_under_two_names_is_a_mistake(good, capsys):
    (problem,) = problems([*good, "--warmup_steps", "1", "--num_warmup_steps", "2"], capsys)
    assert problem == "--num_warmup_steps 2: --warmup_steps is given as well; give one of them."


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_an_argument_file_means_the_same_as_the_flags(kind, good, tmp_path):
    flags = [
        *good,
        "--learning_rate",
        "1e-3",
        "--lr_scheduler_kwargs",
        '{"num_cycles": 2}',
        "--warmup_steps",
        "3",
    ]
    expected = command_line.parse(*CLASSES, argv=flags)
    file = tmp_path / f"arguments.{kind}"
    file.write_text(json.dumps(command_line.to_dict(*expected)))  # JSON is YAML as well
    assert command_line.parse(*CLASSES, argv=[str(file)]) == expected


def test_an_argument_file_is_checked_like_flags(capsys, tmp_path):
    file = tmp_path / "arguments.json"
    file.write_text('{"learning_rate": "x", "unheard_of": 1, "do_train": 3, "max_steps": true}')
    found = problems([str(file)], capsys)
    for part in ("--learning_rate x", "--unheard_of", "--do_train 3", "--max_steps True"):
        assert any(part in problem for problem in found), (part, found)
    file.write_text("{")
    assert "cannot be read as arguments" in problems([str(file)], capsys)[0]


def test_the_token_is_never_written(good):
    parsed = command_line.parse(*CLASSES, argv=[*good, "--hub_token", "hf_secret"])
    assert parsed[2].hub_token == "hf_secret"
    assert "hub_token" not in command_line.to_dict(*parsed)


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as exit:
        command_line.parse(*CLASSES, argv=["-h"], description="What it does.")
    assert exit.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    fields = [field for cls in CLASSES for field in dataclasses.fields(cls)]
    assert len(fields) > 70
    for field in fields:
        assert f"--{field.name} " in shown
        if field.default not in (None, False, ""):
            assert f"(default: {field.default})" in shown
