"""Flags of earlier releases of the popular scripts: honoured, or refused with what to write today; none is
swallowed."""

import shutil

import pytest
from harness import flags, run_script

# What the Trainer and its scripts take or once took, and a part of the answer. tests/unit/popular_flags.toml
# has all of them.
REFUSED = {
    "auto_find_batch_size": "--max_tokens_per_batch",
    "debug": "--max_train_samples",
    "deepspeed zero3.json": "--fsdp",
    "eval_accumulation_steps 10": "leave it out",
    "fp16_backend auto": "--fp16",
    "fp16_full_eval": "--fp16",
    "fp16_opt_level O1": "--fp16",
    "fsdp_min_num_params 5": "",
    "fsdp_transformer_layer_cls_to_wrap T5Block": "",
    "generation_config /nowhere": "--num_beams",
    "half_precision_backend auto": "--bf16",
    "include_inputs_for_metrics": "",
    "include_tokens_per_second": "",
    "mp_parameters x": "",
    "past_index 1": "",
    "per_gpu_batch_size 2": "",
    "push_to_hub_organization me": "--hub_model_id",
    "save_safetensors false": "safetensors",
    "sharded_ddp simple": "",
    "tpu_metrics_debug": "",
    "tpu_num_cores 8": "xla_spawn",
    "train_sampling_strategy sequential": "--data_seed",
    "use_fast_tokenizer false": "fast",
    "use_ipex": "",
    "use_mps_device": "device",
    "use_slow_tokenizer": "fast",
    "xpu_backend ccl": "",
    "no_such_flag_anywhere 1": "",
    "learnin_rate 1": "--learning_rate",
}


@pytest.mark.sampled
def test_every_retired_flag_is_refused(form, start, files, tmp_path):
    words = [word for flag in REFUSED for word in f"--{flag}".split()]
    required = flags(model_name_or_path=start(form), validation_file=files["validation_file"], do_eval=True)
    run = run_script(form, *required, *words, folder=tmp_path, expect=2)
    assert len(run.problems) == len(REFUSED), run.stderr
    for flag, answer in REFUSED.items():
        name = f"--{flag.split()[0]}"
        (problem,) = [problem for problem in run.problems if problem.split()[0].rstrip(":") == name]
        assert answer in problem.removeprefix(name)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def older_run(form, standard, trained, files, tmp_path):
    """A run by older spellings, over an earlier run in a folder that holds a user's files as well."""
    shutil.copytree(standard(form).output, tmp_path, dirs_exist_ok=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-best/weights.txt").write_text("mine")
    (tmp_path / "data.csv").write_text("text,summary\nmine,mine\n")
    words = flags(
        model_name_or_path=trained(form),
        **files,
        do_train=True,
        max_train_samples=16,
        max_val_samples=4,
        num_train_epochs=2,
        learning_rate=1e-3,
        evaluation_strategy="epoch",
        warmup_ratio=0.5,
        logging_dir="logs",
        logging_steps=1,
        with_tracking=True,
        push_to_hub_model_id="somebody/headlines",
        per_gpu_train_batch_size=4,
        per_gpu_eval_batch_size=2,
        train_sampling_strategy="group_by_length",
        use_fast_tokenizer=True,
        use_auth_token=True,
        eval_on_start=True,
        no_cuda=True,
        overwrite_output_dir=True,
    )
    return run_script(form, *words, folder=tmp_path, output=".")


@pytest.mark.neutral
@pytest.mark.first_task
def test_older_spellings_are_honoured_and_only_our_files_replaced(older_run):
    run = older_run
    arguments = run.json("arguments.json")
    expected = {
        "eval_strategy": "epoch",
        "hub_model_id": "somebody/headlines",
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 2,
        "max_eval_samples": 4,
        "group_by_length": True,
        "use_cpu": True,
    }
    assert expected.items() <= arguments.items()
    assert [entry["step"] for entry in run.log("loss")] == list(range(1, 9))
    rates = [entry["learning_rate"] for entry in run.log("loss")]
    assert rates == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert sorted({entry["step"] for entry in run.log("eval_loss")}) == [0, 4, 8]
    assert list((run.output / "logs").glob("**/events.*"))

    for name in ("notes.txt", "README.md", "checkpoint-best/weights.txt"):
        assert (run.output / name).read_text() == "mine", name
    assert (run.output / "data.csv").exists()
    for name in ("checkpoint-50", "predict_results.json", "generated_predictions.txt", "runs/events.out"):
        assert not list(run.output.glob(f"{name}*")), f"{name} of the earlier run is still there"
    assert set(run.json("all_results.json")) == {
        *run.json("train_results.json"),
        *run.json("eval_results.json"),
    }
