"""What decides a run's result. A checkpoint is continued only by a run that would have come to it."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from triptych import command_line, data, schedule
from triptych.errors import InputError
from triptych.run.state import RunState


def settings_of(
    model_args: Any, data_args: Any, args: Any, rows: Any, plan: schedule.Plan, devices: int
) -> dict[str, Any]:
    """What decides a run's result, as plain values: its flags but for those that are declared as free, the
    training rows, the rows of a batch, and the number of steps.

    Args:
        rows: the raw training rows.
        devices: that share each batch.
    """
    given = command_line.to_dict(model_args, data_args, args)
    declared = [field for one in (model_args, data_args, args) for field in dataclasses.fields(one)]
    free = {field.name for field in declared if field.metadata.get("free")} | args.free
    return {name: value for name, value in given.items() if name not in free} | {
        "training_rows": data.fingerprint(rows),
        "rows_per_batch": args.per_device_train_batch_size * devices,
        "total_steps": plan.total_steps,
    }


def require_same_step(steps: Iterable[int]) -> None:
    """Refuses a run whose processes would continue from different places.

    Args:
        steps: every process's step.

    Raises:
        InputError: if they differ, as they do where the output folder is not the same for all.
    """
    if len(found := sorted(set(steps))) > 1:
        raise InputError(
            f"--output_dir: the processes would begin after steps {', '.join(map(str, found))}. "
            "It must be a folder that all of them share."
        )


def require_same(settings: dict[str, Any], state: RunState, args: Any) -> None:
    """Refuses to continue a run with settings other than those that it began with.

    Args:
        settings: of this run.
        state: from the checkpoint that is to be continued.

    Raises:
        InputError: naming each flag that differs.
    """
    before, where = state.settings, f"the run in {state.checkpoint}"
    problems = []
    if settings["training_rows"] != before.get("training_rows"):
        problems.append(f"The training rows are not those that {where} began with.")
    if settings["rows_per_batch"] != before.get("rows_per_batch"):
        problems.append(
            f"--per_device_train_batch_size {args.per_device_train_batch_size}: makes batches of "
            f"{settings['rows_per_batch']} rows over all devices; {where} has {before.get('rows_per_batch')}."
        )
    ours, theirs = (
        schedule.learning_rates(args, total)[: state.step]
        for total in (settings["total_steps"], before.get("total_steps", 0))
    )
    if not np.array_equal(ours, theirs):
        flag = f"--max_steps {args.max_steps}"
        problems.append(
            f"{flag if args.max_steps > 0 else f'--num_train_epochs {args.num_train_epochs:g}'}: makes "
            f"{settings['total_steps']} steps instead of {before.get('total_steps')}, and with them other "
            f"learning rates in the steps that {where} has done. The schedules constant, "
            "constant_with_warmup and inverse_sqrt (with --warmup_steps) do not depend on their number."
        )
    for name in sorted(settings.keys() | before.keys()):
        now, then = settings.get(name), before.get(name)
        if now != then and name not in ("training_rows", "rows_per_batch", "total_steps"):
            given, began = (
                "not given" if value is None else value if value != "" else "''" for value in (now, then)
            )
            problems.append(f"--{name} {given}: {where} began with {began}.")
    if problems:
        raise InputError(
            [*problems, "Give what it began with, another --output_dir, or --overwrite_output_dir."]
        )
