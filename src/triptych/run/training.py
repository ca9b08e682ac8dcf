"""What the loop of a script asks about a run: what is due, what to note, whether to stop."""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from typing import Any

from triptych import batching, command_line
from triptych.hub import Repository
from triptych.launchers import World
from triptych.output import reporting, results
from triptych.run.progress import Progress
from triptych.run.signals import Stop
from triptych.run.state import RunState
from triptych.schedule import Plan


class Training:
    """A run between its start and its end.

    Attributes:
        args, data_args: its flags.
        world: its processes.
        plan: what it does after which step.
        state: how far it has come.
        repository: where it is pushed to, if it is.
        stop: a request to stop that waits for a safe point.
    """

    def __init__(
        self,
        args: Any,
        data_args: Any,
        world: World,
        plan: Plan,
        state: RunState,
        repository: Repository | None,
    ):
        self.args, self.data_args, self.world = args, data_args, world
        self.plan, self.state, self.repository = plan, state, repository
        # Asked for now, because the Trainer form leaves only its own in `args`
        self.trackers = [name for name in reporting.names(args.report_to) if name in reporting.TRACKERS]
        self.stop = Stop(world)
        self._has_targets = True  # the step at hand

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.state.learning_rate(self.plan, self.args)

    def steps(
        self, features: Any, collate: batching.Collate, targets: Collection[str]
    ) -> Iterator[list[batching.Batch]]:
        """The batches of each step to come; see `batching.step_batches`."""
        return batching.step_batches(features, collate, targets, self.args, self.world, self.step)

    @contextmanager
    def stoppable(self, then: Callable[[], None]) -> Iterator[Progress]:
        """The block of the loop: it shows and reports its progress, and signals wait for the next safe point.

        Args:
            then: what to do when the run has to stop: saving a checkpoint.

        Raises:
            InputError: if a tracker cannot be opened.
        """
        trackers = self.trackers if self.world.process == 0 else []
        flags = command_line.to_dict(self.data_args, self.args) if trackers else {}
        with reporting.opened(trackers, self.args, flags) as reporters:
            unit = self.data_args.unit
            self.progress = Progress(self.plan, self.args, self.state, self.world, reporters, unit)
            with closing(self.progress), self.stop.waits(then):
                yield self.progress

    def ended(self) -> bool:
        """Whether nothing is left to do: no step, and no evaluation after the last."""
        return self.state.ended(self.plan, self.args)

    def evaluation_due(self) -> bool:
        """Whether the evaluation that follows the last step done is still to be made."""
        return self.state.evaluation_due(self.plan)

    def divisor(self, targets: int) -> int:
        """What the loss of the step at hand is divided by: its targets, or 1 where there is none. Such a step
        has a gradient of zero, and the log counts it.

        Args:
            targets: of all its batches, over all processes.
        """
        self._has_targets = targets > 0
        return max(1, targets)

    def stepped(
        self, loss: float, learning_rate: float, grad_norm: float, tokens: int
    ) -> dict[str, float] | None:
        """Takes note of an optimizer step, and returns its entry in the log, if one is due. A safe point.

        Args:
            loss: mean over the step's targets.
            tokens: of the step without padding, over all processes.

        Raises:
            signals.Stopped: if any process was asked to stop.
            RunError: if the loss or the gradient is not finite.
        """
        self.state.step += 1
        self.state.steps_without_targets += not self._has_targets
        entry = self.progress.step(self.step, loss, learning_rate, grad_norm, tokens)
        self.stop.check()
        return entry

    def evaluated(self, values: dict[str, float]) -> bool:
        """Takes note of an evaluation, and says whether it is the best so far; a safe point.

        Raises:
            signals.Stopped: if any process was asked to stop.
        """
        self.progress.add(self.step, values)
        is_best = self.state.evaluated(values, self.args)
        self.stop.check()
        return is_best

    def saves(self, is_best: bool) -> bool:
        """Whether a checkpoint is due after the last step, or after its evaluation."""
        return self.plan.saves_after(self.step, is_best)

    def finish(self, loss_unit: str) -> dict[str, Any]:
        """Writes what training leaves behind beside the model, and returns its metrics."""
        values = self.progress.train_metrics(self.step)
        summary = self.state.summary(self.plan, self.args)
        results.save_training(self.args.output_dir, values, summary, loss_unit)
        return values
