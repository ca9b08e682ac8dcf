"""Flags of other scripts, of earlier releases and of transformers' Trainer: which of ours means the same, and
what to write instead of those that have none. No flag is taken and ignored."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

# Another name for the same values. Of several names, the first that the script has.
ALIASES: dict[str, tuple[str, ...]] = {
    "activation_checkpointing": ("gradient_checkpointing",),
    "activation_checkpointing_kwargs": ("gradient_checkpointing_kwargs",),
    "checkpoint_dir": ("resume_from_checkpoint",),
    "dataset_config": ("dataset_config_name",),
    "evaluation_strategy": ("eval_strategy",),
    "feature_extractor_name": ("image_processor_name",),
    "generation_max_length": ("val_max_target_length",),
    "generation_num_beams": ("num_beams",),
    "max_length": ("max_seq_length", "max_source_length"),
    "max_test_samples": ("max_predict_samples",),
    "max_train_steps": ("max_steps",),
    "max_val_samples": ("max_eval_samples",),
    "mlm_probability": ("noise_density",),
    "no_cuda": ("use_cpu",),
    "num_warmup_steps": ("warmup_steps",),
    "per_gpu_eval_batch_size": ("per_device_eval_batch_size",),
    "per_gpu_train_batch_size": ("per_device_train_batch_size",),
    "predict_file": ("test_file",),
    "push_to_hub_model_id": ("hub_model_id",),
    "push_to_hub_token": ("hub_token",),
    "task_type": ("task_name",),
    "text_column_name": ("text_column_names", "text_column"),
    "token": ("hub_token",),
    "tpu_name": ("tpu",),
    "val_file": ("validation_file",),
}

# What to write instead of a flag, or why it is left out, by its name.
ANSWERS = {
    "batch_size": "write --per_device_train_batch_size and --per_device_eval_batch_size",
    "data_dir": "write --train_file, --validation_file, --test_file",
    "dispatch_batches": "leave it out: each process reads its own part of a batch",
    "do_lower_case": "leave it out: the tokenizer knows",
    "dtype": "write --bf16 or --fp16: they compute in that precision, and keep the weights in float32",
    "epochs": "write --num_train_epochs",
    "evaluate_during_training": "write --eval_strategy steps",
    "fp16_backend": "write --fp16; the backend is chosen for you",
    "fp16_opt_level": "write --fp16; the backend is chosen for you",
    "fsdp_min_num_params": "write --fsdp with the script *_no_trainer.py; blocks are found by themselves",
    "fsdp_transformer_layer_cls_to_wrap": "write --fsdp with the script *_no_trainer.py; blocks are found by "
    "themselves",
    "gcp_project": "write --tpu with the TPU's address, in the TensorFlow form",
    "gradient_clipping": "write --max_grad_norm",
    "half_precision_backend": "write --fp16 or --bf16; the backend is chosen for you",
    "include_inputs_for_metrics": "leave it out: `score` in the script gets the rows themselves",
    "include_tokens_per_second": "leave it out: train_results.json always has train_tokens_per_second",
    "jit_mode_eval": "write --torch_compile",
    "labels": "leave it out: labels and tags are found in the rows; --label_column_name names their column",
    "low_cpu_mem_usage": "leave it out: weights are read from the file as they are needed",
    "lr": "write --learning_rate",
    "mp_parameters": "leave it out: SageMaker's model parallelism is not in use here",
    "num_epochs": "write --num_train_epochs",
    "past_index": "leave it out: no model of these tasks returns such a state",
    "per_gpu_batch_size": "write --per_device_train_batch_size and --per_device_eval_batch_size",
    "poly_power": """write --lr_scheduler_type polynomial --lr_scheduler_kwargs '{"power": P}'""",
    "push_to_hub_organization": "write --hub_model_id ORGANIZATION/NAME",
    "ray_scope": "leave it out: there is no search for hyperparameters here",
    "save_safetensors": "leave it out: weights are always saved as safetensors",
    "sharded_ddp": "write --fsdp with the script *_no_trainer.py",
    "split_batches": "leave it out: --per_device_train_batch_size counts the rows of one device",
    "torch_dtype": "write --bf16 or --fp16: they compute in that precision, and keep the weights in float32",
    "torchdynamo": "write --torch_compile",
    "tpu_metrics_debug": "leave it out: torch_xla prints its metrics with PT_XLA_DEBUG=1",
    "tpu_name": "leave it out: this script finds a TPU by itself, in PyTorch with xla_spawn.py",
    "tpu_num_cores": "start the script with xla_spawn.py --num_cores N",
    "tpu_zone": "write --tpu with the TPU's address, in the TensorFlow form",
    "train_ref_file": "write --words_column: the words of each row, as a list",
    "use_fast": "leave it out: tokenizers are always the fast ones",
    "use_fast_tokenizer": "leave it out: tokenizers are always the fast ones",
    "use_ipex": "leave it out: PyTorch has what it did",
    "use_legacy_prediction_loop": "leave it out: there is one loop",
    "use_mps_device": "leave it out: the device is found by itself",
    "use_slow_tokenizer": "leave it out: tokenizers are always the fast ones",
    "validation_ref_file": "write --words_column: the words of each row, as a list",
    "xla": "leave it out: each form compiles its steps as its framework does, PyTorch with --torch_compile",
    "xpu_backend": "write --ddp_backend with the Trainer form",
    # The Trainer's of today that cannot be honoured, because what reads them is not in use here
    "accelerator_config": "leave it out: Accelerate makes no batches here; --gradient_accumulation_steps and "
    "--dataloader_drop_last are flags of their own",
    "auto_find_batch_size": "write --max_tokens_per_batch N: a batch of more is computed in parts",
    "average_tokens_across_devices": "leave it out: the loss is always a mean over all devices' targets",
    "batch_eval_metrics": "leave it out: `score` in the script computes metrics of all rows",
    "bf16_full_eval": "write --bf16: an evaluation computes in the precision of training",
    "dataloader_in_order": "leave it out: the order of batches decides the result",
    "debug": "write --max_train_samples N for a short try; a loss that is not finite ends a run by itself",
    "deepspeed": "write --fsdp with the script *_no_trainer.py: it splits parameters and optimizer state",
    "enable_jit_checkpoint": "leave it out: a run that is told to stop always saves a checkpoint",
    "eval_accumulation_steps": "leave it out: answers leave the device after each batch",
    "eval_do_concat_batches": "leave it out: `score` in the script gets an answer for each row",
    "eval_use_gather_object": "leave it out: answers of any kind are gathered",
    "fp16_full_eval": "write --fp16: an evaluation computes in the precision of training",
    "fsdp": "the Trainer's checkpoints would not be other forms'; the script *_no_trainer.py takes it",
    "fsdp_config": "the script *_no_trainer.py takes --fsdp, which needs no configuration",
    "generation_config": "leave it out: generation follows generation_config.json beside the model, and the "
    "flags --num_beams and --val_max_target_length",
    "hub_always_push": "not in use here; see --hub_strategy",
    "hub_revision": "not in use here: what is pushed goes to the branch main; see --hub_strategy",
    "ignore_data_skip": "leave it out: a continued run goes on with the rows that were next",
    "include_for_metrics": "leave it out: `score` in the script gets the rows themselves",
    "include_num_input_tokens_seen": "leave it out: train_results.json always has train_tokens_per_second",
    "label_names": "leave it out: TARGETS in the script names the labels",
    "length_column_name": "leave it out: --group_by_length counts the tokens",
    "liger_kernel_config": "leave it out: see --use_liger_kernel",
    "parallelism_config": "write --fsdp with the script *_no_trainer.py: it splits a model over all devices",
    "prediction_loss_only": "leave --predict_with_generate out: an evaluation is then of the loss, and of "
    "metrics that cost nothing",
    "remove_unused_columns": "leave it out: `preprocess` in the script says what a batch has",
    "restore_callback_states_from_checkpoint": "leave it out: a continued run always has its whole state",
    "save_on_each_node": "leave it out: all processes share --output_dir",
    "save_only_model": "write --save_strategy no: the model is saved at the end, and a checkpoint that lacks "
    "the optimizer's state could not be continued",
    "skip_memory_metrics": "leave it out: memory is not measured",
    "trackio_static_space_id": "write --trackio_space_id",
    "use_liger_kernel": "leave it out: its kernels are for models that compute their loss themselves; here "
    "the script does",
}

# Of those above, the ones that are asked for by `false`: true is what the Trainer does by itself.
ON_BY_DEFAULT = frozenset(
    {
        *("average_tokens_across_devices", "dataloader_in_order", "eval_do_concat_batches"),
        *("remove_unused_columns", "skip_memory_metrics"),
    }
)

# The Trainer's of today that its form takes and the loops do not: those that do something, as
# tests/pytorch/test_trainer_flags.py shows of each,
HONOURED = frozenset(
    {
        *("dataloader_multiprocessing_context", "dataloader_persistent_workers"),
        *("dataloader_pin_memory", "dataloader_prefetch_factor"),
        *("ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_static_graph"),
        *("full_determinism", "gradient_checkpointing_kwargs", "log_level", "log_level_replica"),
        *("logging_nan_inf_filter", "neftune_noise_alpha", "optim_args", "optim_target_modules", "tf32"),
        *("torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps", "use_cache"),
    }
)
# and those that act, but on nothing that a run computes or writes in its folder: on what instead.
OUTSIDE_RESULTS = {
    "ddp_backend": "how processes send values to one another",
    "ddp_timeout": "how long they wait for one another",
    "local_rank": "launchers tell a process its place by environment variables",
    "log_on_each_node": "on which machines the libraries' messages are shown",
    "project": "a name in the trackers of --report_to",
    "run_name": "a name in the trackers of --report_to",
    "trackio_bucket_id": "where the tracker trackio writes",
    "trackio_space_id": "where the tracker trackio writes",
}


def truth(value: Any) -> bool:
    """A value of a switch.

    Raises:
        ValueError: if it is none.
    """
    word = str(value).lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError("expected true or false")


def _switch(**meant: Any) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    """A flag that means others if it is on, and nothing if it is off."""
    return lambda value, given: meant if truth(value) else {}


def _always(spelling: str, value: bool) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    """A switch that always stands at one value."""

    def meaning(given_value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        if truth(given_value) != value:
            raise ValueError(ANSWERS[spelling])
        return {}

    return meaning


def _checkpointing_steps(value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if str(value) == "epoch":
        return {"save_strategy": "epoch"}
    if not str(value).isdecimal():
        raise ValueError("expected a number of steps, or epoch")
    return {"save_strategy": "steps", "save_steps": value}


def _dtype(value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if value != "float32":
        raise ValueError(ANSWERS["dtype"])
    return {}


def _train_sampling_strategy(value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if value not in ("random", "group_by_length"):
        raise ValueError("rows are always shuffled in training, by --data_seed")
    return {"group_by_length": True} if value == "group_by_length" else {}


def _use_auth_token(value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        truth(value)
    except ValueError:
        return {"hub_token": value}
    return {}  # the token of `hf auth login`, which is in use anyway


def _with_tracking(value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"report_to": "tensorboard"} if truth(value) and "report_to" not in given else {}


# Flags whose values are others as well: (value, all that is given) -> what is meant, or a ValueError that
# says why it cannot be had.
MEANINGS: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    "adafactor": _switch(optim="adafactor"),
    "checkpointing_steps": _checkpointing_steps,
    "dtype": _dtype,
    "save_safetensors": _always("save_safetensors", True),
    "sortish_sampler": _switch(group_by_length=True),
    "train_sampling_strategy": _train_sampling_strategy,
    "use_auth_token": _use_auth_token,
    "use_fast": _always("use_fast", True),
    "use_fast_tokenizer": _always("use_fast_tokenizer", True),
    "use_slow_tokenizer": _always("use_slow_tokenizer", False),
    "with_tracking": _with_tracking,
}

# What -h does not list, even where transformers declares it.
FOREIGN = frozenset([*ALIASES, *MEANINGS, *ANSWERS])


def known_name(spelling: str, flags: Collection[str]) -> str:
    """The flag of a script that a spelling is another name of, or the spelling itself."""
    return next((name for name in ALIASES.get(spelling, ()) if name in flags), spelling)


def asks_for_nothing(spelling: str, value: Any) -> bool:
    """Whether a flag that is answered is given the value that it has by itself."""
    default = "true" if spelling in ON_BY_DEFAULT else "false"
    return spelling in ANSWERS and (value in (None, "", []) or str(value).lower() == default)


def answer(spelling: str) -> str | None:
    """What to write instead of a flag that a script does not have, if there is something to say."""
    if spelling in ANSWERS:
        return ANSWERS[spelling]
    if spelling in ALIASES:
        return f"means --{ALIASES[spelling][0]}, which this script does not have"
    if spelling == "local_rank":
        return "leave it out: torchrun tells a process its place by environment variables"
    if spelling in HONOURED or spelling in OUTSIDE_RESULTS:
        return "leave it out: only the Trainer form has it, run_<task>.py in examples/pytorch"
    return None
