"""What a person watches while a model trains: the bar, the log, trackers."""

import math
import time
from typing import Any

from tqdm.auto import tqdm

from triptych.errors import RunError
from triptych.launchers import World
from triptych.output.reporting import Reporters
from triptych.run.state import RunState
from triptych.schedule import Plan


class Progress:
    """The log of one training run.

    Args:
        reporters: where its entries go as well; none in processes that are quiet.
        unit: what `tokens` counts: images where rows have no tokens.

    Attributes:
        state: the run's, whose `log_history` grows by entries as in the Trainer's: of training with `loss`,
            `grad_norm`, `learning_rate` and perhaps `steps_without_targets`, of evaluation with `eval_...`,
            each with `epoch` and `step`.
        tokens: useful (not padding) tokens trained on since the start of this process.
    """

    def __init__(
        self, plan: Plan, args: Any, state: RunState, world: World, reporters: Reporters, unit: str = "tokens"
    ):
        self.unit = unit
        self.plan, self.state, quiet = plan, state, world.process > 0
        self.tokens = 0
        self._start, self._began = state.step, time.perf_counter()
        self._paused = 0.0
        self._scales_loss = args.fp16
        self._bar = tqdm(
            total=plan.total_steps,
            initial=state.step,
            desc="training",
            unit="step",
            disable=quiet or args.disable_tqdm,
            dynamic_ncols=True,
        )
        self._reporters, self._quiet = reporters, quiet

    def step(
        self, step: int, loss: float, learning_rate: float, grad_norm: float, tokens: int
    ) -> dict[str, float] | None:
        """Takes note of one optimizer step: moves the bar, and adds an entry to the log when one is due, and
        returns that.

        Args:
            loss: mean over the step's targets.
            tokens: of the step without padding, over all processes.

        Raises:
            RunError: if the loss or the gradient is not finite. A gradient that is not has spoilt the
                weights, even if the loss was still a number; with float16 such a step is left out.
        """
        for what, value in (("loss", loss), ("gradient's norm", 0.0 if self._scales_loss else grad_norm)):
            if not math.isfinite(value):
                raise RunError(
                    f"The {what} of step {step} is {value}. Try a lower --learning_rate, a --max_grad_norm, "
                    "or --bf16 instead of --fp16."
                )
        self.tokens += tokens
        self.state.losses.append(loss)
        self.state.loss_sum += loss
        self._bar.update(1)
        self._bar.set_postfix_str(
            f"loss {loss:.3f}, {self.tokens / self.seconds:,.0f} {self.unit}/s", refresh=False
        )
        if not self.plan.logs_after(step):
            return None
        entry = {"loss": self.mean_loss(), "grad_norm": grad_norm, "learning_rate": learning_rate}
        if self.state.steps_without_targets:
            entry["steps_without_targets"] = self.state.steps_without_targets
            self.state.steps_without_targets = 0
        self.add(step, entry)
        return entry

    def mean_loss(self) -> float:
        """The mean loss of the steps since this was last asked."""
        losses, self.state.losses = self.state.losses, []
        return sum(losses) / len(losses)

    def status(self, text: str) -> None:
        """Says at once what is going on, until the next step ends."""
        self._bar.set_postfix_str(text)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Adds an entry to the log; evaluations also get a line of their own on the screen."""
        entry = {**values, "epoch": self.plan.epoch_after(step), "step": step}
        self.state.log_history.append(entry)
        self._reporters.log(step, values)
        if "eval_loss" in values:
            self.show(step, values)

    def show(self, step: int, metrics: dict[str, float]) -> None:
        """One line for an evaluation, whose time is not training time."""
        self._paused += metrics.get("eval_runtime", 0.0)
        if not self._quiet:
            shown = [f"{k.removeprefix('eval_')} {v:.4g}" for k, v in metrics.items() if not _is_timing(k)]
            self._bar.write(f"step {step:>6}, epoch {self.plan.epoch_after(step):.2f}: {', '.join(shown)}")

    def close(self) -> None:
        """Ends the bar. What stays open until the interpreter's own end prints an error there."""
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Time spent training so far in this process, evaluations left out."""
        return max(1e-9, time.perf_counter() - self._began - self._paused)

    def train_metrics(self, step: int) -> dict[str, float]:
        """What `train_results.json` holds: the loss of the whole run, and the rates of this process's part of
        it, if it did a step."""
        if not step:
            return {}
        values = {"epoch": self.plan.epoch_after(step), "train_loss": self.state.loss_sum / step}
        if self.plan.rows is not None:
            values["train_samples"] = self.plan.rows
        steps, seconds = step - self._start, self.seconds
        if steps:
            values["train_runtime"] = round(seconds, 4)
            values["train_steps_per_second"] = round(steps / seconds, 3)
            values[f"train_{self.unit}_per_second"] = round(self.tokens / seconds, 1)
        if steps and self.plan.rows is not None:
            epochs = self.plan.epoch_after(step) - self.plan.epoch_after(self._start)
            values["train_samples_per_second"] = round(epochs * self.plan.rows / seconds, 3)
        return values


def _is_timing(key: str) -> bool:
    return key.endswith(("_runtime", "_per_second", "_samples", "epoch"))
