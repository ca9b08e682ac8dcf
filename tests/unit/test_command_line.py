import ast
import dataclasses
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from harness import ROOT, all_tasks

from triptych import arguments, command_line, spellings
from triptych.arguments import DataArguments, ModelArguments, TrainingArguments
from triptych.data import glue
from triptych.data.columns import text_roles
from triptych.images import mixing
from triptych.metrics import translation

CLASSES = (ModelArguments, DataArguments, TrainingArguments)
POPULAR = tomllib.loads(Path(__file__).with_name("popular_flags.toml").read_text())


@pytest.fixture
def good(tmp_path):
    """A command line without a mistake."""
    columns = "text,summary,label,source,target,question,answer,choice1,choice2,image"
    (tmp_path / "rows.csv").write_text(f"{columns}\na,b,c,d,e,f,a,g,h,i.png\n")
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


def test_a_choice_that_is_called_none_is_not_the_default(good):
    classes = (ModelArguments, arguments.TaggingArguments, TrainingArguments)
    assert command_line.parse(*classes, argv=good)[1].scheme is None
    assert command_line.parse(*classes, argv=[*good, "--scheme", "none"])[1].scheme == "none"


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


@pytest.mark.parametrize("name", sorted(spellings.ANSWERS.keys() - spellings.MEANINGS.keys()))
def test_flags_that_there_are_not_are_answered_with_what_to_write(name, good, capsys):
    (problem,) = problems([*good, f"--{name}", "1"], capsys)
    assert problem == f"--{name}: {spellings.ANSWERS[name]}."


def arguments_of(task):
    """The dataclasses of a task's loop; its own is taken from the script, which would import a framework."""
    script = ROOT / all_tasks()[task]["scripts"]["pytorch-accelerate"]
    tree = ast.parse(script.read_text())
    (own,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    known = {"dataclass": dataclasses.dataclass, "arguments": arguments, "flag": arguments.flag}
    known |= {"glue": glue, "text_roles": text_roles, "translation": translation, "mixing": mixing}
    exec(compile(ast.Module([own], []), script, "exec"), known)
    of_model = re.search(r"^ARGUMENTS = \(arguments\.(\w+)", script.read_text(), re.MULTILINE)[1]
    return getattr(arguments, of_model), known[own.name], TrainingArguments


@pytest.fixture(params=all_tasks())
def task(request):
    return request.param


def popular_flags(task):
    """The flags of all popular scripts for a task, those of its Trainers among them."""
    lists = [flags for name, flags in POPULAR["scripts"].items() if name.startswith((task, "all:"))]
    return sorted({flag for flags in lists for flag in flags.split()})


def test_no_flag_of_a_popular_script_is_unknown(task):
    ours = {field.name for cls in arguments_of(task) for field in dataclasses.fields(cls)}
    tables = [POPULAR[kind].keys() for kind in ("honoured", "trainer", "refused")]
    flags = popular_flags(task)
    for flag in flags:
        places = [flag in table for table in tables]
        # What stands for a flag of ours in one task may be that flag in another.
        assert places.count(True) == 1 if flag not in ours else not any(places[1:]), flag
    listed = {flag for other in all_tasks() for flag in popular_flags(other)}
    assert {flag for table in tables for flag in table} <= listed
    assert len(flags) >= 170


def test_flags_of_popular_scripts_are_honoured_as_the_table_says(task, good):
    classes, rows = arguments_of(task), good[3]
    names = {field.name for cls in classes for field in dataclasses.fields(cls)}
    if "max_new_tokens" in names:
        good = [*good, "--max_new_tokens", "4"]  # without which flags of generation are refused
    plain = command_line.parse(*classes, argv=good)
    for flag in POPULAR["honoured"].keys() & set(popular_flags(task)) - names:
        words, meant = POPULAR["honoured"][flag]
        expected = {
            name: rows if value == "ROWS" else value for name, value in meant.items() if name in names
        }
        if meant and not expected:
            continue  # of another task, for which it is refused below
        if "group_by_length" in meant and not classes[1].has_lengths:
            continue  # refused as that is: test_pictures.py
        words = words.replace("ROWS", rows).split()
        parsed = command_line.parse(*classes, argv=[*good, f"--{flag}", *words])
        values = {name: value for one in parsed for name, value in vars(one).items()}
        usual = {name: value for one in plain for name, value in vars(one).items()}
        assert values == usual | {n: None if v == "none" else v for n, v in expected.items()}, flag


def test_flags_of_popular_scripts_are_refused_as_the_table_says(task, good, capsys):
    """All at once, among flags that are right."""
    classes = arguments_of(task)
    flags = set(popular_flags(task))
    tried = {flag: POPULAR["trainer"][flag] for flag in POPULAR["trainer"].keys() & flags}
    tried |= {flag: POPULAR["refused"][flag][0] for flag in POPULAR["refused"].keys() & flags}
    words = [word for flag, value in tried.items() for word in (f"--{flag}", *shlex.split(value))]
    with pytest.raises(SystemExit) as exit:
        command_line.parse(*classes, argv=good + words)
    assert exit.value.code == 2
    told = [line.removeprefix("  - ") for line in capsys.readouterr().err.splitlines()[1:]]
    assert len(told) == len(tried)
    for flag in tried:
        (problem,) = [problem for problem in told if problem.startswith(f"--{flag}:")]
        expected = POPULAR["refused"][flag][1] if flag in POPULAR["refused"] else "Trainer form"
        if flag in ("local_rank", "activation_checkpointing_kwargs"):
            expected = {"local_rank": "torchrun"}.get(flag, "--gradient_checkpointing_kwargs")
        assert expected in problem
        assert "did you mean" not in problem


def test_what_a_task_does_not_have_is_refused_by_its_usual_name(good, capsys):
    (problem,) = problems([*good, "--generation_num_beams", "4"], capsys)
    assert problem == "--generation_num_beams: means --num_beams, which this script does not have."


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--checkpointing_steps epoch", {"save_strategy": "epoch"}),
        ("--with_tracking --report_to all", {"report_to": "all"}),
        ("--use_auth_token hf_x", {"hub_token": "hf_x"}),
        ("--use_auth_token False", {"hub_token": None}),
        ("--train_sampling_strategy random", {"group_by_length": False}),
        ("--save_steps -1", {"save_strategy": "no", "save_steps": 500}),
        ("--save_steps -1 --save_strategy epoch", {"save_strategy": "epoch", "save_steps": 500}),
        ("--fp16_full_eval False --remove_unused_columns True --sortish_sampler false", {}),
        ("--max_train_steps 7 --max_steps 7", {"max_steps": 7}),
    ],
)
def test_values_of_other_scripts_mean_the_same(words, expected, good):
    args = command_line.parse(*CLASSES, argv=good + words.split())[2]
    assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--checkpointing_steps often", "--checkpointing_steps often: expected a number of steps, or epoch."),
        ("--use_fast_tokenizer false", "--use_fast_tokenizer false: leave it out: tokenizers are always"),
        ("--use_slow_tokenizer", "--use_slow_tokenizer true: leave it out: tokenizers are always the fast"),
        ("--dtype bfloat16", "--dtype bfloat16: write --bf16 or --fp16"),
        (
            "--train_sampling_strategy sequential",
            "--train_sampling_strategy sequential: rows are always shuffled",
        ),
        ("--report_to wnadb", "--report_to wnadb: there is no such tracker here (did you mean wandb?)"),
        ("--with_tracking stray", "--with_tracking stray: expected true or false."),
        ("--token hf_x --hub_token hf_y", "--hub_token <hidden>: --hub_token is given as well; give one"),
        (
            "--max_train_steps 7 --max_steps 8",
            "--max_steps 8: --max_steps is given as well; give one of them.",
        ),
    ],
)
def test_values_that_cannot_be_had_are_told(words, expected, good, capsys):
    (problem,) = problems(good + words.split(), capsys)
    assert problem.startswith(expected)


@pytest.mark.parametrize("flag", ["no_such_flag_anywhere", "tpu", "zero_stage", "lora_r", "optimizer_name"])
def test_nothing_is_proposed_where_nothing_is_near(flag, good, capsys):
    (problem,) = problems([*good, f"--{flag}", "1"], capsys)
    assert problem == f"--{flag}: there is no such flag; -h lists them."


def test_every_spelling_has_one_meaning():
    tables = [spellings.ALIASES, spellings.MEANINGS, spellings.HONOURED, spellings.OUTSIDE_RESULTS]
    for one in range(len(tables)):
        for other in range(one):
            assert not set(tables[one]) & set(tables[other])
    assert spellings.ANSWERS.keys() >= spellings.ON_BY_DEFAULT
    assert not spellings.ANSWERS.keys() & (spellings.HONOURED | spellings.OUTSIDE_RESULTS.keys())
    ours = {field.name for cls in CLASSES for field in dataclasses.fields(cls)}
    assert not ours & (spellings.FOREIGN | spellings.HONOURED)


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
