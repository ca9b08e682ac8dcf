"""What a run knows beside its weights, kept in a checkpoint's `training_state.json`."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych import checkpoints


@dataclass
class RunState:
    """The progress of a run; plain values only.

    Attributes:
        step: optimizer steps done.
        best_metric, best_step: the best evaluation so far, by `--metric_for_best_model`.
        evaluations_without_gain: since the best one; `--early_stopping_patience` compares with it.
        log_history: see `triptych.progress`.
    """

    step: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    log_history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def load(cls, checkpoint: Path | None) -> "RunState":
        """The state in a checkpoint that was verified, or a fresh one."""
        return cls(**json.loads((checkpoint / checkpoints.STATE).read_text())) if checkpoint else cls()

    def save(self, folder: Path) -> None:
        """Writes `training_state.json`."""
        (folder / checkpoints.STATE).write_text(json.dumps(dataclasses.asdict(self), indent=2))

    def evaluated(self, metrics: dict[str, float], args) -> bool:
        """Takes note of an evaluation, and says whether it is the best so far."""
        value = metrics[f"eval_{args.metric_for_best_model.removeprefix('eval_')}"]
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
