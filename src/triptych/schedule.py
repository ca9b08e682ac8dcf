"""The plan of a run: how many steps, where to log, evaluate and save, and the learning rate of each step."""

import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from triptych.batching.order import batches_per_epoch
from triptych.errors import InputError

# Those of transformers.SchedulerType. The last two follow a metric instead of a table.
ADAPTIVE = ("reduce_lr_on_plateau", "greedy")
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    *ADAPTIVE,
)

MOST_BETWEEN_LOGS = 500  # steps, unless a number is given


@dataclass(frozen=True)
class Every:
    """When something happens: each `steps` optimizer steps (0: never), or at the end of each epoch.

    Attributes:
        first: nothing happens before this step.
        at_start: whether it also happens before the first step.
    """

    steps: int
    at_epochs: bool = False
    first: int = 0
    at_start: bool = False

    def due(self, step: int, plan: "Plan") -> bool:
        """Whether it happens after a step (none is done at 0); what happens at epochs also does where the
        last epoch is cut short."""
        if not step:
            return self.at_start
        if not self.steps or step < self.first:
            return False
        return step % self.steps == 0 or (self.at_epochs and step == plan.total_steps)


@dataclass(frozen=True)
class Plan:
    """What a run does after which optimizer step; steps are counted from 1, epochs from 0.

    Attributes:
        rows: of the training split; None for a stream.
        total_steps: optimizer steps of the whole run.
        batches_per_epoch: forward passes of one epoch.
        accumulation: forward passes of one optimizer step; an epoch's last step may have fewer.
        learning_rates: float64 array (total_steps + 1,); step `s` uses entry `s - 1`.
    """

    rows: int | None
    total_steps: int
    batches_per_epoch: int
    accumulation: int
    learning_rates: np.ndarray
    logging: Every
    evaluation: Every
    saving: Every
    logs_first: bool
    logs_last: bool
    saves_best: bool

    @property
    def steps_per_epoch(self) -> int:
        return max(1, math.ceil(self.batches_per_epoch / self.accumulation))

    @property
    def epochs(self) -> int:
        """Epochs begun, the last perhaps not finished."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def epoch_after(self, step: int) -> float:
        """Passes over the rows done after a step."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs + steps * self.accumulation / max(1, self.batches_per_epoch)

    def logs_after(self, step: int) -> bool:
        ends = (self.logs_first and step == 1) or (self.logs_last and step == self.total_steps)
        return ends or self.logging.due(step, self)

    def evaluates_after(self, step: int) -> bool:
        return self.evaluation.due(step, self)

    def saves_after(self, step: int, is_best: bool) -> bool:
        """Also after the last step, so that a finished run can be continued with more epochs."""
        at_end = self.saving.steps > 0 and step == self.total_steps
        return at_end or self.saving.due(step, self) or (self.saves_best and is_best)


def plan(args, rows: int | None, processes: int = 1) -> Plan:
    """The plan of a run from its flags.

    Args:
        args: the run's TrainingArguments.
        rows: training rows; None for streamed ones, which make one epoch without end.
        processes: that share each batch.
    """
    batch_size, accumulation = args.per_device_train_batch_size * processes, args.gradient_accumulation_steps
    if rows is None:
        batches = args.max_steps * accumulation
    else:
        batches = batches_per_epoch(rows, batch_size, args.dataloader_drop_last)
    steps_per_epoch = max(1, math.ceil(batches / accumulation))
    total = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)

    # Without a number of steps a curve of some twenty points, its first and its last step among them
    draws_curve = args.logging_strategy == "steps" and args.logging_steps is None
    between_logs = args.logging_steps or min(MOST_BETWEEN_LOGS, math.ceil(total / 20) or 1)

    def every(strategy: str, steps: float, delay: float = 0, at_start: bool = False) -> Every:
        if strategy == "steps":
            return Every(
                math.ceil(steps * total) if steps < 1 else int(steps), False, math.ceil(delay), at_start
            )
        if strategy == "epoch":
            return Every(steps_per_epoch, True, math.ceil(delay * steps_per_epoch), at_start)
        return Every(0, at_start=at_start)

    return Plan(
        rows=rows,
        total_steps=total,
        batches_per_epoch=batches,
        accumulation=accumulation,
        learning_rates=learning_rates(args, total),
        logging=every(args.logging_strategy, between_logs),
        evaluation=every(args.eval_strategy, args.eval_steps, args.eval_delay, args.eval_on_start),
        saving=every(args.save_strategy, args.save_steps),
        logs_first=args.logging_first_step or draws_curve,
        logs_last=draws_curve,
        saves_best=args.save_strategy == "best",
    )


def decays(shape: tuple[int, ...]) -> bool:
    """Whether weight decay applies to a parameter: biases and the weights of norms have one dimension, and do
    not."""
    return len(shape) > 1


def learning_rates(args, total: int) -> np.ndarray:
    """The learning rate of every step, by the formulas of `transformers.get_scheduler`.

    Returns:
        float64 array (total + 1,). For the two schedules that follow a metric, constant.

    Raises:
        InputError: if `lr_scheduler_kwargs` does not fit the schedule.
    """
    name = args.lr_scheduler_type
    details = args.lr_scheduler_kwargs or {}
    details = json.loads(details) if isinstance(details, str) else dict(details)
    warmup = math.ceil(args.warmup_steps * total) if args.warmup_steps < 1 else int(args.warmup_steps)
    steps = np.arange(total + 1, dtype=np.float64)
    rising = steps / max(1, warmup)
    progress = (steps - warmup) / max(1, total - warmup)
    used: set[str] = set()

    def detail(key: str, default):
        used.add(key)
        return details.get(key, default)

    def cosine(at: np.ndarray, cycles: float) -> np.ndarray:
        return 0.5 * (1 + np.cos(2 * np.pi * cycles * at))

    if name == "linear":
        falling = 1 - progress
    elif name == "cosine":
        falling = cosine(progress, detail("num_cycles", 0.5))
    elif name == "cosine_with_restarts":
        falling = np.where(progress < 1, cosine(detail("num_cycles", 1) * progress % 1, 0.5), 0)
    elif name == "polynomial":
        end = detail("lr_end", 1e-7) / args.learning_rate
        falling = (1 - end) * np.maximum(0, 1 - progress) ** detail("power", 1.0) + end
    elif name == "inverse_sqrt":
        timescale = detail("timescale", None) or warmup or 10_000
        falling = np.sqrt(timescale / np.maximum(1, steps + timescale - warmup))
    elif name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr"):
        least = detail("min_lr_rate", None)
        least = detail("min_lr", 0.0) / args.learning_rate if least is None else least
        if name == "cosine_warmup_with_min_lr":
            progress = (steps - warmup + 1) / max(1, total - warmup)
            first = detail("warmup_lr_rate", None)
            rising = (
                (steps + 1) / max(1, warmup)
                if first is None
                else first + (1 - first) * steps / max(1, warmup - 1)
            )
        falling = cosine(progress, detail("num_cycles", 0.5)) * (1 - least) + least
    elif name == "warmup_stable_decay":
        shapes = {
            "linear": lambda at, cycles: 1 - at,
            "cosine": cosine,
            "1-sqrt": lambda at, cycles: 1 - np.sqrt(at),
        }
        least = detail("min_lr_ratio", 0)
        decay = detail("num_decay_steps", None)
        if decay is None:
            raise InputError('--lr_scheduler_kwargs: warmup_stable_decay needs {"num_decay_steps": ...}.')
        stable = detail("num_stable_steps", None)
        stable = total - warmup - decay if stable is None else stable
        rising = shapes[detail("warmup_type", "linear")](np.maximum(0, 1 - rising), 0.5) * (1 - least) + least
        done = np.clip((steps - warmup - stable) / max(1, decay), 0, 1)
        down = shapes[detail("decay_type", "cosine")](done, detail("num_cycles", 0.5))
        falling = np.where(steps < warmup + stable + decay, down * (1 - least) + least, least)
    else:
        falling = np.ones(total + 1)
        rising = rising if name == "constant_with_warmup" else falling
        if name in ADAPTIVE:  # which asks for its details itself
            adaptive_rate(args, ())
            used = set(details)
    if unknown := set(details) - used:
        raise InputError(f"--lr_scheduler_kwargs: {name} does not take {', '.join(sorted(unknown))}.")
    return args.learning_rate * np.maximum(0, np.where(steps < warmup, rising, falling))


def adaptive_rate(args, metrics: Sequence[float]) -> float:
    """The learning rate after these evaluations, for a schedule of `ADAPTIVE`: ReduceLROnPlateau as torch
    defines it, GreedyLR (arXiv:2512.14527) as transformers does.

    It is a function of all evaluations so far: there is no state that a checkpoint would have to hold.

    Args:
        args: the run's TrainingArguments.
        metrics: of each evaluation, in order.

    Raises:
        InputError: if `lr_scheduler_kwargs` does not fit the schedule.
    """
    greedy = args.lr_scheduler_type == "greedy"
    settings: dict[str, Any] = {"mode": "min", "patience": 10, "cooldown": 0, "eps": 1e-8}
    if greedy:
        settings |= {"factor": 0.95, "threshold": 1e-6, "threshold_mode": "abs", "min_lr": 1e-3}
        settings |= {"max_lr": 1.0, "warmup": 0, "smooth": False, "window_size": 50, "reset_start": 500}
    else:
        settings |= {"factor": 0.1, "threshold": 1e-4, "threshold_mode": "rel", "min_lr": 0.0}
    details = args.lr_scheduler_kwargs or {}
    details = json.loads(details) if isinstance(details, str) else details
    if unknown := details.keys() - settings.keys():
        raise InputError(
            f"--lr_scheduler_kwargs: {args.lr_scheduler_type} does not take {', '.join(sorted(unknown))}."
        )
    of = SimpleNamespace(**settings | details)
    return (_greedy if greedy else _on_plateau)(args.learning_rate, metrics, of)


def _is_better(value: float, best: float, of: SimpleNamespace) -> bool:
    sign = 1 if of.mode == "max" else -1
    margin = best * of.threshold if of.threshold_mode == "rel" else of.threshold
    return math.isinf(best) or sign * (value - best) > margin


def _on_plateau(rate: float, metrics: Sequence[float], of: SimpleNamespace) -> float:
    best, bad, cooldown = math.inf, 0, 0
    for value in metrics:
        bad += 1
        if _is_better(value, best, of):
            best, bad = value, 0
        if cooldown:
            cooldown, bad = cooldown - 1, 0
        if bad > of.patience:
            lower = max(rate * of.factor, of.min_lr)
            rate = lower if rate - lower > of.eps else rate
            cooldown, bad = of.cooldown, 0
    return rate


def _greedy(first_rate: float, metrics: Sequence[float], of: SimpleNamespace) -> float:
    rate, best, bad, good, wait, lowered, window = first_rate, math.inf, 0, 0, 0, 0, deque[float]()
    for value in metrics:
        window.append(value)
        if len(window) > of.window_size:
            window.popleft()
        value = sum(window) / len(window) if of.smooth else value
        if wait:
            wait, bad, good = wait - 1, 0, 0
            continue
        if _is_better(value, best, of):
            best, bad, good = value, 0, good + 1
        else:
            bad, good = bad + 1, 0
        if good > of.patience:
            higher = min(rate / of.factor, of.max_lr)
            rate = higher if higher - rate > of.eps else rate
            wait, good, lowered = of.warmup, 0, 0
        elif bad > of.patience:
            lower = max(rate * of.factor, of.min_lr)
            rate = lower if rate - lower > of.eps else rate
            wait, bad = of.cooldown, 0
            lowered += rate <= of.min_lr
            if lowered >= of.reset_start:
                rate, best, wait, lowered = first_rate, math.inf, 0, 0
                window.clear()
    return rate
