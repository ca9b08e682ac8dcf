"""What a run knows beside its weights, kept in a checkpoint's `training_state.json`."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych.errors import InputError, RunError
from triptych.output import checkpoints
from triptych.schedule import ADAPTIVE, Plan, adaptive_rate


@dataclass
class RunState:
    """The progress of a run; plain values only.

    Attributes:
        step: optimizer steps done.
        best_metric, best_step: the best evaluation so far, by `--metric_for_best_model`.
        evaluations_without_gain: since the best one; `--early_stopping_patience` compares with it.
        log_history: see `triptych.run.progress`.
        losses: of the steps since the last entry with a loss.
        loss_sum: of all steps, added in their order.
        steps_without_targets: since the last entry with a loss.
        settings: what decided the run so far; see `triptych.run.resuming`.
        loss_scale: with `--fp16` the factor of the loss, and the steps since it last changed.
        checkpoint: the folder that the state comes from; None for a run at its beginning.
    """

    step: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    log_history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    loss_sum: float = 0.0
    steps_without_targets: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    loss_scale: list[float] = field(default_factory=list)
    checkpoint: Path | None = None

    @classmethod
    def load(cls, checkpoint: Path) -> "RunState":
        """The state in a checkpoint that was verified.

        Raises:
            InputError: if the file is not one of ours.
        """
        path = checkpoint / checkpoints.STATE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            state = cls(**values, checkpoint=checkpoint)
            state._require_types()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read as the state of a run ({error}).") from error
        return state

    def _require_types(self) -> None:
        number = (int, float)
        for name, kinds in (
            ("step", int),
            ("best_metric", (*number, type(None))),
            ("best_step", (int, type(None))),
            ("evaluations_without_gain", int),
            ("log_history", list),
            ("losses", list),
            ("loss_sum", number),
            ("steps_without_targets", int),
            ("settings", dict),
            ("loss_scale", list),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise TypeError(f"{name} has a value of the wrong type")
        if not all(isinstance(value, number) for value in [*self.losses, *self.loss_scale]):
            raise TypeError("losses or loss_scale holds something else than numbers")
        if len(self.loss_scale) not in (0, 2):
            raise ValueError("loss_scale holds something else than a factor and steps")
        if not all(isinstance(e, dict) and isinstance(e.get("step"), int) for e in self.log_history):
            raise TypeError("log_history holds something else than entries with a step")
        if self.step < 0 or not isinstance(self.settings.get("total_steps", 0), int):
            raise ValueError("it counts steps by something else than whole numbers")

    def save(self, folder: Path) -> None:
        """Writes `training_state.json`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "checkpoint"}
        (folder / checkpoints.STATE).write_text(json.dumps(values, indent=2))

    def ended(self, plan: Plan, args) -> bool:
        """Whether nothing is left to do: no step, and no evaluation after the last."""
        done = self.step >= plan.total_steps or self.out_of_patience(args)
        return done and not self.evaluation_due(plan)

    def evaluation_due(self, plan: Plan) -> bool:
        """Whether the evaluation that follows the last step done is still to be made."""
        last = self.log_history[-1] if self.log_history else {"step": 0}
        return plan.evaluates_after(self.step) and not (last["step"] == self.step and "eval_loss" in last)

    def learning_rate(self, plan: Plan, args) -> float:
        """Of the next step."""
        if args.lr_scheduler_type not in ADAPTIVE:
            return plan.learning_rates[self.step]
        metric = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        found = [entry[metric] for entry in self.log_history if metric in entry and entry["step"]]
        return adaptive_rate(args, found)

    def evaluated(self, metrics: dict[str, float], args) -> bool:
        """Takes note of an evaluation, and says whether it is the best so far; one before the first step
        never is, because no checkpoint belongs to it.

        Raises:
            RunError: if it does not give the metric that decides.
        """
        if not self.step:
            return False
        name = args.metric_for_best_model.removeprefix("eval_")
        if f"eval_{name}" not in metrics:
            given = ", ".join(found.removeprefix("eval_") for found in metrics)
            raise RunError(f"--metric_for_best_model {name}: the evaluation gives {given} only.")
        value = metrics[f"eval_{name}"]
        gain = value - self.best_metric if self.best_metric is not None else None
        best = gain is None or (gain > 0 if args.greater_is_better else gain < 0)
        if best:
            self.best_metric, self.best_step, self.evaluations_without_gain = value, self.step, 0
        else:
            self.evaluations_without_gain += 1
        return best

    def out_of_patience(self, args) -> bool:
        """Whether `--early_stopping_patience` ends the run."""
        return (
            args.early_stopping_patience is not None
            and self.evaluations_without_gain >= args.early_stopping_patience
        )

    def summary(self, plan, args) -> dict[str, Any]:
        """The run as `trainer_state.json` tells it."""
        best = f"{args.output_dir}/checkpoint-{self.best_step}" if self.best_step is not None else None
        return {
            "best_global_step": self.best_step,
            "best_metric": self.best_metric,
            "best_model_checkpoint": best if best and Path(best).is_dir() else None,
            "epoch": plan.epoch_after(self.step),
            "eval_steps": plan.evaluation.steps,
            "global_step": self.step,
            "log_history": self.log_history,
            "logging_steps": plan.logging.steps,
            "max_steps": plan.total_steps,
            "num_train_epochs": plan.epochs,
            "save_steps": plan.saving.steps,
            "train_batch_size": args.per_device_train_batch_size,
        }
