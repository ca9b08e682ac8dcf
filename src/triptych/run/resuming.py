"""What decides the course of a run. A checkpoint is continued only by a run that would have come to it."""

from typing import Any

import numpy as np

from triptych import command_line, data, schedule
from triptych.errors import InputError
from triptych.run.state import RunState

# Flags that may differ when a run is continued. Those that choose the rows count by the rows themselves, and
# those that choose the number of steps by the learning rates of the steps already done.
FREE = frozenset(
    """
    output_dir overwrite_output_dir do_train do_eval do_predict use_cpu gradient_checkpointing torch_compile
    fsdp tpu per_device_train_batch_size per_device_eval_batch_size num_train_epochs max_steps
    dataloader_num_workers logging_strategy logging_steps logging_first_step logging_dir report_to
    disable_tqdm eval_strategy eval_steps predict_with_generate load_best_model_at_end early_stopping_patience
    save_strategy save_steps save_total_limit resume_from_checkpoint push_to_hub hub_model_id hub_private_repo
    hub_strategy cache_dir trust_remote_code
    dataset_name dataset_config_name train_file validation_file test_file max_train_samples max_eval_samples
    max_predict_samples preprocessing_num_workers overwrite_cache val_max_target_length num_beams
    forced_bos_token metric_name
    """.split()  # noqa: SIM905
)


def settings_of(model_args: Any, data_args: Any, args: Any, rows: Any, devices: int) -> dict[str, Any]:
    """The course of a run as plain values: its flags but for those in `FREE` and in `args.free`, the training
    rows, the rows of a batch, and the number of steps.

    Args:
        rows: the raw training rows.
        devices: that share each batch.
    """
    given = command_line.to_dict(model_args, data_args, args)
    return {name: value for name, value in given.items() if name not in FREE | args.free} | {
        "training_rows": data.fingerprint(rows),
        "rows_per_batch": args.per_device_train_batch_size * devices,
        "total_steps": schedule.plan(args, data.count(rows), devices).total_steps,
    }


def require_same(course: dict[str, Any], state: RunState, args: Any) -> None:
    """Refuses to continue a run with a course other than the one that it took.

    Args:
        course: of this run.
        state: from the checkpoint that is to be continued.

    Raises:
        InputError: naming each flag that differs.
    """
    before, where = state.course, f"the run in {state.checkpoint}"
    problems = []
    if course["training_rows"] != before.get("training_rows"):
        problems.append(f"The training rows are not those that {where} began with.")
    if course["rows_per_batch"] != before.get("rows_per_batch"):
        problems.append(
            f"--per_device_train_batch_size {args.per_device_train_batch_size}: makes batches of "
            f"{course['rows_per_batch']} rows over all devices; {where} has {before.get('rows_per_batch')}."
        )
    ours, theirs = (
        schedule.learning_rates(args, total)[: state.step]
        for total in (course["total_steps"], before.get("total_steps", 0))
    )
    if not np.array_equal(ours, theirs):
        flag = f"--max_steps {args.max_steps}"
        problems.append(
            f"{flag if args.max_steps > 0 else f'--num_train_epochs {args.num_train_epochs:g}'}: makes "
            f"{course['total_steps']} steps instead of {before.get('total_steps')}, and with them other "
            f"learning rates in the steps that {where} has done. The schedules constant, "
            "constant_with_warmup and inverse_sqrt (with --warmup_steps) do not depend on their number."
        )
    for name in sorted(course.keys() | before.keys()):
        now, then = course.get(name), before.get(name)
        if now != then and name not in ("training_rows", "rows_per_batch", "total_steps"):
            given, began = (
                "not given" if value is None else value if value != "" else "''" for value in (now, then)
            )
            problems.append(f"--{name} {given}: {where} began with {began}.")
    if problems:
        raise InputError(
            [*problems, "Give what it began with, another --output_dir, or --overwrite_output_dir."]
        )
