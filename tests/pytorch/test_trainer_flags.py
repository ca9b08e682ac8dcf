"""The flags that only the Trainer has: each is another name of one of ours, refused with a reason, shown here
to do something, or known to change nothing. None is taken and ignored."""

import dataclasses
import importlib.util
import json
import logging
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from harness import all_forms, run_script
from harness import flags as words_of

from triptych import command_line, spellings
from triptych.errors import InputError
from triptych.pytorch import loading, trainer_arguments
from triptych.pytorch.trainer_arguments import THEIRS, TrainerArguments

FORMS = {form.task: form for form in all_forms() if form.name == "pytorch-trainer"}
OURS = {**spellings.ALIASES, **spellings.MEANINGS}
REFUSED = [name for name in THEIRS if name in spellings.ANSWERS]
STEPS = 3
# What a test below shows an effect of, and is not asked about by `Effects`
ELSEWHERE = {"optim_target_modules", "log_level_replica", "tf32", "dataloader_pin_memory"}


def load_script(form):
    """A script of the manifest as a module, whose main() does not run."""
    name = f"trainer_script_{form.task.replace('-', '_')}"
    specification = importlib.util.spec_from_file_location(name, form.script)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look for it
    specification.loader.exec_module(module)
    return module


def usual(field):
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def another(name):
    """A value other than the usual one, of the type that the flag takes."""
    default = usual(THEIRS[name])
    if isinstance(default, bool):
        return not default
    return ["x"] if isinstance(default, list) else "x"


def given(tmp_path, **flags):
    return TrainerArguments(output_dir=str(tmp_path / "out"), do_eval=True, use_cpu=True, **flags)


@pytest.mark.parametrize("name", THEIRS)
def test_each_flag_of_the_trainer_is_of_one_kind(name):
    kinds = (OURS, spellings.ANSWERS, spellings.HONOURED, spellings.OUTSIDE_RESULTS)
    assert [name in kind for kind in kinds].count(True) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_flag_is_told_by_name_with_what_to_write(name, tmp_path):
    (problem,) = given(tmp_path, **{name: another(name)}).problems()
    assert problem == f"--{name}: {spellings.ANSWERS[name]}."


@pytest.mark.parametrize("name", [name for name in THEIRS if name in OURS])
def test_another_name_of_ours_does_nothing_by_itself(name, tmp_path):
    """The command line has put the value where it belongs."""
    problems = given(tmp_path, **{name: another(name)}).problems()
    assert [problem for problem in problems if problem.startswith(f"--{name}:")]


def test_the_usual_values_are_never_refused(tmp_path):
    flags = {name: usual(field) for name, field in THEIRS.items()}
    assert given(tmp_path, **flags).problems() == []


def test_a_flag_that_a_newer_release_adds_is_refused_when_it_is_given(tmp_path, monkeypatch):
    new = SimpleNamespace(default=False, default_factory=dataclasses.MISSING)
    monkeypatch.setitem(trainer_arguments.THEIRS, "faster", new)
    monkeypatch.setattr(TrainerArguments, "faster", False, raising=False)
    assert given(tmp_path).problems() == []
    monkeypatch.setattr(TrainerArguments, "faster", True)
    (problem,) = given(tmp_path).problems()
    version = transformers.__version__
    assert problem == f"--faster: new in transformers {version}, and not known here; leave it out."


def test_launchers_cannot_ask_for_what_is_refused(tmp_path, monkeypatch):
    for name in ("fsdp", "deepspeed"):
        monkeypatch.setenv(f"ACCELERATE_USE_{name.upper()}", "true")
    problems = given(tmp_path).problems()
    assert [problem.partition(":")[0] for problem in sorted(problems)] == ["--deepspeed", "--fsdp"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"dataloader_persistent_workers": True}, "--dataloader_persistent_workers needs --dataloader_num_w"),
        ({"dataloader_prefetch_factor": 2}, "--dataloader_prefetch_factor needs --dataloader_num_workers"),
        (
            {"dataloader_multiprocessing_context": "spawn"},
            "--dataloader_multiprocessing_context needs --dataloader_num_workers",
        ),
        (
            {"dataloader_multiprocessing_context": "thread", "dataloader_num_workers": 1},
            "--dataloader_multiprocessing_context thread: must be one of",
        ),
        ({"gradient_checkpointing_kwargs": "{}"}, "--gradient_checkpointing_kwargs needs --gradient_checkp"),
        (
            {"gradient_checkpointing_kwargs": "[]", "gradient_checkpointing": True},
            "--gradient_checkpointing_kwargs []: must be a JSON object",
        ),
        ({"optim_args": "a=1"}, "--optim_args: the optimizer adamw_torch_fused does not read it"),
        ({"optim_args": "a", "optim": "sgd"}, "--optim_args: 'a' is not of the form name=value"),
        ({"optim_target_modules": ["q"], "optim": "sgd"}, "--optim_target_modules: the optimizer sgd does"),
        ({"torch_compile_backend": "fast"}, "--torch_compile_backend fast: must be one of"),
        ({"torch_compile_mode": "fast"}, "--torch_compile_mode fast: must be one of"),
    ],
)
def test_what_would_do_nothing_or_fail_later_is_told(flags, expected, tmp_path):
    (problem,) = given(tmp_path, **flags).problems()
    assert problem.startswith(expected)


@pytest.fixture(scope="module")
def scripts():
    return {task: load_script(form) for task, form in FORMS.items()}


@pytest.fixture
def script(scripts):
    return scripts["summarization"]


@pytest.fixture
def train(scripts, samples, tiny, tmp_path, monkeypatch):
    """A function that trains by some flags, and returns the Trainer and the log."""

    def run(*words, output="out", task="summarization"):
        script, made = scripts[task], []

        class Kept(script.Trainer):
            def __init__(self, **settings):
                super().__init__(**settings)
                made.append(self)

        model = {"summarization": "t5", "text-classification": "topics"}[task]
        files = {f"{split}_file": samples / f"{split}.jsonl" for split in ("train", "validation")}
        argv = words_of(
            model_name_or_path=tiny / model,
            label_column_name="topic" if task == "text-classification" else None,
            **files,
            max_train_samples=12,
            max_eval_samples=4,
            do_train=True,
            per_device_train_batch_size=4,
            max_steps=STEPS,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            output_dir=tmp_path / output,
        )
        parsed = command_line.parse(*script.ARGUMENTS, argv=[*argv, *words])
        with monkeypatch.context() as patch:
            patch.setattr(script, "Trainer", Kept)
            script.main(*parsed)
        (trainer,) = made
        return trainer, json.loads((tmp_path / output / "trainer_state.json").read_text())["log_history"]

    yield run
    torch.use_deterministic_algorithms(False)
    transformers.logging.set_verbosity_warning()


def losses(log):
    return [entry["loss"] for entry in log if "loss" in entry]


class Effects:
    """What a run shows of each flag: its words, and what must hold of the Trainer that took them."""

    dataloader_multiprocessing_context = (
        "--dataloader_num_workers 1 --dataloader_multiprocessing_context fork",
        lambda trainer: trainer.get_train_dataloader().multiprocessing_context.get_start_method() == "fork",
    )
    dataloader_persistent_workers = (
        "--dataloader_persistent_workers",
        lambda trainer: trainer.get_train_dataloader().persistent_workers,
    )
    dataloader_prefetch_factor = (
        "--dataloader_prefetch_factor 5",
        lambda trainer: trainer.get_train_dataloader().prefetch_factor == 5,
    )
    ddp_broadcast_buffers = (
        "--ddp_broadcast_buffers false",
        lambda trainer: trainer.accelerator.ddp_handler.broadcast_buffers is False,
    )
    ddp_bucket_cap_mb = (
        "--ddp_bucket_cap_mb 7",
        lambda trainer: trainer.accelerator.ddp_handler.bucket_cap_mb == 7,
    )
    ddp_find_unused_parameters = (
        "--ddp_find_unused_parameters true",
        lambda trainer: trainer.accelerator.ddp_handler.find_unused_parameters is True,
    )
    ddp_static_graph = (
        "--ddp_static_graph true",
        lambda trainer: trainer.accelerator.ddp_handler.static_graph is True,
    )
    full_determinism = ("--full_determinism", lambda trainer: torch.are_deterministic_algorithms_enabled())
    gradient_checkpointing_kwargs = (
        '--gradient_checkpointing --gradient_checkpointing_kwargs {"use_reentrant":true}',
        lambda trainer: (
            {
                module._gradient_checkpointing_func.keywords["use_reentrant"]
                for module in trainer.model.modules()
                if getattr(module, "gradient_checkpointing", False)
            }
            == {True}
        ),
    )
    log_level = ("--log_level error", lambda trainer: transformers.logging.get_verbosity() == logging.ERROR)
    logging_nan_inf_filter = (
        "--logging_nan_inf_filter false",
        lambda trainer: trainer.args.logging_nan_inf_filter is False,
    )
    optim_args = (
        "--optim sgd --optim_args momentum=0.5",
        lambda trainer: {group["momentum"] for group in trainer.optimizer.param_groups} == {0.5},
    )
    use_cache = ("--use_cache", lambda trainer: trainer.model.config.use_cache is True)


def test_every_honoured_flag_has_a_test_of_its_effect():
    by_run = {name for name in vars(Effects) if not name.startswith("__")}
    in_tests = {
        "neftune_noise_alpha",
        "torch_compile_backend",
        "torch_compile_mode",
        "torch_empty_cache_steps",
    }
    assert by_run | in_tests | ELSEWHERE == spellings.HONOURED


def test_honoured_flags_do_what_they_say(train, script, tmp_path):
    effects = {name: effect for name, effect in vars(Effects).items() if not name.startswith("__")}
    words = [word for flags, _ in effects.values() for word in flags.split()]
    trainer, log = train(*words)
    for name, (_, holds) in effects.items():
        assert holds(trainer), name
    assert len(losses(log)) == STEPS
    assert json.loads((tmp_path / "out/config.json").read_text())["use_cache"] is True
    # What a run was given can be given back to it
    again = json.loads((tmp_path / "out/arguments.json").read_text()) | {"overwrite_output_dir": True}
    (tmp_path / "again.json").write_text(json.dumps(again))
    (*_, args) = command_line.parse(*script.ARGUMENTS, argv=[str(tmp_path / "again.json")])
    assert args.gradient_checkpointing_kwargs == {"use_reentrant": True}
    assert args.optim_args == "momentum=0.5"


def test_noise_is_added_to_embeddings(train):
    _, plain = train(output="plain", task="text-classification")
    _, noisy = train("--neftune_noise_alpha", "20", output="noisy", task="text-classification")
    assert losses(noisy) != pytest.approx(losses(plain), rel=1e-4)


def test_noise_is_refused_where_the_trainer_would_add_it_to_nothing(train):
    with pytest.raises(InputError, match="--neftune_noise_alpha"):
        train("--neftune_noise_alpha", "20")


def test_compilation_and_emptied_caches_are_the_trainers(train, monkeypatch):
    """And evaluations begin where they are told to."""
    emptied, compiled = [], []
    monkeypatch.setattr("transformers.trainer.clear_device_cache", lambda: emptied.append(1))
    monkeypatch.setattr(torch, "compile", lambda model, **settings: compiled.append(settings) or model)
    words = "--torch_empty_cache_steps 2 --torch_compile_backend eager --torch_compile_mode max-autotune"
    words += " --eval_on_start --eval_strategy steps --eval_steps 1 --eval_delay 2"
    _, log = train(*words.split())
    assert len(emptied) == 2  # before the first step and the third
    assert [(setting["backend"], setting["mode"]) for setting in compiled] == [("eager", "max-autotune")]
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [0, 2, 3]


def test_other_names_of_our_flags_reach_the_task(script, samples, tiny, tmp_path):
    words = "--generation_num_beams 3 --generation_max_length 9 --activation_checkpointing --sortish_sampler"
    required = words_of(
        model_name_or_path=tiny / "t5",
        validation_file=samples / "validation.jsonl",
        do_eval=True,
        output_dir=tmp_path / "out",
    )
    _, data_args, args = command_line.parse(*script.ARGUMENTS, argv=[*required, *words.split()])
    assert (data_args.num_beams, data_args.val_max_target_length) == (3, 9)
    assert args.gradient_checkpointing
    assert args.group_by_length


def test_all_that_is_refused_is_told_at_once(scripts, samples, tiny, tmp_path, capsys):
    """Also what another task has."""
    script = scripts["text-classification"]
    required = words_of(
        model_name_or_path=tiny / "bert",
        validation_file=samples / "validation.jsonl",
        label_column_name="topic",
        do_eval=True,
        output_dir=tmp_path / "out",
    )
    words = [word for name in REFUSED for word in (f"--{name}", str(another(name)).strip("[]'"))]
    words += ["--generation_num_beams", "4", "--learning_rate", "fast"]
    with pytest.raises(SystemExit) as exit:
        command_line.parse(*script.ARGUMENTS, argv=[*required, *words])
    assert exit.value.code == 2
    told = [line.removeprefix("  - ") for line in capsys.readouterr().err.splitlines()[1:]]
    expected = {f"--{name}: {spellings.ANSWERS[name]}." for name in REFUSED}
    expected |= {"--generation_num_beams: means --num_beams, which this script does not have."}
    assert set(told) == expected | {"--learning_rate fast: expected a number."}


def test_help_lists_what_can_be_given(script, capsys):
    with pytest.raises(SystemExit):
        command_line.parse(*script.ARGUMENTS, argv=["-h"])
    shown = capsys.readouterr().out
    for name in THEIRS:
        assert (f"--{name} " in shown or f"--{name}\n" in shown) == (
            name in spellings.HONOURED or name in spellings.OUTSIDE_RESULTS
        ), name


def test_memory_is_pinned_unless_the_flag_says_no(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    rows = [{"input_ids": [1]}] * 4
    args = SimpleNamespace(dataloader_num_workers=0, dataloader_prefetch_factor=None, group_by_length=False)
    args.dataloader_multiprocessing_context, args.dataloader_persistent_workers = None, False
    args.data_seed = args.process_index = 0
    args.per_device_train_batch_size = args.world_size = 1
    for pinned in (True, False):
        args.dataloader_pin_memory = pinned
        assert loading.epoch_loader(rows, None, (), args).pin_memory is pinned


def test_other_processes_have_a_log_level_of_their_own(tmp_path, monkeypatch):
    args = given(tmp_path, log_level="info", log_level_replica="error")
    assert args.get_process_log_level() == logging.INFO
    monkeypatch.setattr(type(args), "should_log", False)
    assert args.get_process_log_level() == logging.ERROR


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it is computed")
def test_tf32_is_refused_where_it_is_not_computed(tmp_path):
    with pytest.raises(ValueError, match="--tf32 requires"):
        given(tmp_path, tf32=True)


def test_optimizers_of_low_rank_get_their_modules(tmp_path, tiny, monkeypatch):
    module = SimpleNamespace(GaLoreAdafactor=None, GaLoreAdamW="the optimizer", GaLoreAdamW8bit=None)
    monkeypatch.setitem(sys.modules, "galore_torch", module)
    monkeypatch.setattr("transformers.trainer_optimizer.is_galore_torch_available", lambda: True)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tiny / "t5")
    args = given(
        tmp_path, optim="galore_adamw", optim_target_modules=["SelfAttention.q"], optim_args="rank=3"
    )
    assert args.problems() == []
    made, settings = transformers.Trainer.get_optimizer_cls_and_kwargs(args, model)
    assert made == "the optimizer"
    (chosen,) = [group for group in settings["params"] if group.get("rank") == 3]
    assert len(chosen["params"]) == 4  # two layers each of encoder and decoder


def test_workers_that_are_started_anew_make_the_same_batches(samples, tiny, tmp_path):
    """Their functions come from the script, which they import."""
    form = FORMS["summarization"]
    common = words_of(
        model_name_or_path=tiny / "t5",
        train_file=samples / "train.jsonl",
        max_train_samples=12,
        do_train=True,
        per_device_train_batch_size=4,
        num_train_epochs=2,
        logging_steps=1,
        save_strategy="no",
    )
    workers = words_of(
        dataloader_num_workers=1,
        dataloader_multiprocessing_context="spawn",
        dataloader_persistent_workers=True,
        dataloader_prefetch_factor=4,
    )
    plain = run_script(form, *common, folder=tmp_path, output="plain")
    spawned = run_script(form, *common, *workers, folder=tmp_path, output="spawned")
    assert losses(spawned.log("loss")) == losses(plain.log("loss"))
