"""The start and the end of a run: log, output folder, stop signals, exit codes."""

import errno
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from triptych import command_line, launchers
from triptych.errors import InputError, RunError
from triptych.launchers import by_the_first
from triptych.output import checkpoints, ownership, results
from triptych.run import resuming
from triptych.run.state import RunState

logger = logging.getLogger("triptych")


class Stopped(KeyboardInterrupt):
    """A signal asked the run to stop, and what had to be saved is saved.

    Not an Exception, because libraries, and `checkpoints.writing`, take those for failures of their own.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int):
        self.number = number
        super().__init__(signal.Signals(number).name)


def main(script: Callable[[], None]) -> None:
    """Runs a script and ends the process: 0 done, 2 wrong input, 1 a failure, 128 + number after a signal.

    Of several processes the first speaks for all, unless one fails.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("triptych").setLevel(logging.INFO if launchers.process() == 0 else logging.ERROR)
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, _raise_stopped)
    launchers.end_with_the_agent()
    try:
        _to_the_end(script)
    except SystemExit as ended:
        if ended.code and launchers.processes() > 1:
            # The libraries' own farewells would wait for processes that wait for this one.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(ended.code))
        raise


def _to_the_end(script: Callable[[], None]) -> None:
    try:
        script()
    except InputError as error:
        command_line.refuse(error.problems)
    except Stopped as stopped:
        print(f"Stopped by {stopped}. The same command continues the run.", file=sys.stderr)
        sys.exit(128 + stopped.number)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        if full or isinstance(error, RunError):
            print(f"The run failed. {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        if _output_dir is not None and (checkpoint := checkpoints.newest(_output_dir)[0]) is not None:
            print(f"Last good checkpoint: {checkpoint}", file=sys.stderr)
        sys.exit(1)


_output_dir: str | None = None


def start(
    model_args: Any,
    data_args: Any,
    args: Any,
    raw: dict[str, Any],
    *,
    device: str,
    devices: int = 1,
    process: int = 0,
    processes: int = 1,
) -> RunState:
    """Finds what the run continues, prepares log and output folder, and writes `arguments.json`, which can be
    passed back to the script.

    Args:
        raw: the rows by split.
        device: where the model computes, as told to the user.
        devices: that share each batch.
        process: this process among `processes`; only the first writes and logs.

    Returns:
        Where the run stands: at its beginning, or at the checkpoint `state.checkpoint`.

    Raises:
        InputError: if the checkpoint is of a run that took another course, or if
            a launcher started processes that do not know of one another.
    """
    if launchers.processes() > processes:
        raise InputError(
            f"{launchers.processes()} processes were started, but not so that they know of one another: each "
            "would write to --output_dir. The README of the framework's folder has the commands."
        )
    global _output_dir
    _output_dir = args.output_dir
    state = RunState()
    if args.do_train:
        checkpoint, skipped = checkpoints.to_continue(args)
        for sentence in skipped if process == 0 else ():
            logger.warning(sentence)
        own = resuming.settings_of(model_args, data_args, args, raw["train"], devices)
        if checkpoint:
            state = RunState.load(checkpoint)
            resuming.require_same(own, state, args)
        state.course = own
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    many = "es"[: 2 * (processes > 1)]
    logger.info("%d process%s on %s, %s, seed %d", processes, many, device, precision, args.seed)
    if process > 0:
        return state
    if state.checkpoint and (state.step >= state.course["total_steps"] or state.out_of_patience(args)):
        logger.info("The run is finished: it ended after step %d.", state.step)
    elif state.checkpoint:
        logger.info("Continuing after step %d, from %s", state.step, state.checkpoint)
    if args.do_train and args.overwrite_output_dir:
        ownership.clear(args.output_dir)
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    ownership.tidy(args.output_dir)
    about = {"processes": processes, "device": device}
    if args.do_train:
        about["training_rows"] = state.course["training_rows"]
    results.save_run(args.output_dir, about)
    results.save_arguments(args.output_dir, command_line.to_dict(model_args, data_args, args))
    return state


def _raise_stopped(number: int, frame: Any) -> None:
    raise Stopped(number)


class Stop:
    """A request to stop, by SIGTERM or SIGINT, that waits for a safe point.

    Attributes:
        number: the signal's number; 0 if there was none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0

    def _receive(self, number: int, frame: Any) -> None:
        """Handles a signal: the second ends the process at once, as if it had no handler."""
        if self.number and time.monotonic() - self._since < launchers.seconds_of_echo():
            return
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number, self._since = number, time.monotonic()
        # Not by print or a log, either of which the signal may have interrupted
        os.write(2, f"\n{signal.Signals(number).name}: stopping at the next step or batch.\n".encode())

    def check(self, numbers: Iterable[int] = ()) -> None:
        """A safe point.

        Args:
            numbers: every process's `number`, since they must stop together; by default this one's.

        Raises:
            Stopped: if any process was asked to.
        """
        # Not this process's own beside them: it may have changed since the others were told.
        if number := int(max(numbers, default=self.number)):  # of numpy's, an exit code would be 1
            raise Stopped(number)

    @contextmanager
    def after(self, save: Callable[[], None]) -> Iterator[None]:
        """A block within which signals wait for the next safe point; elsewhere they end the run at once.

        Args:
            save: called when `Stopped` leaves the block.
        """
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except Stopped:
            save()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@by_the_first
def finish(args: Any, metrics: dict[str, Any]) -> None:
    """Prints the results as a short table, where they lie, and a command to try next."""
    columns = {
        split: {
            name.removeprefix(f"{split}_"): value for name, value in metrics.items() if name.startswith(split)
        }
        for split in ("train", "eval", "predict")
    }
    print(results.summary_table({split: values for split, values in columns.items() if values}))
    if not args.do_train:
        print(f"\nResults are in {args.output_dir}.")
        return
    if (Path(args.output_dir) / "training_curve.png").exists():
        print(f"\nModel, results and training_curve.png are in {args.output_dir}.")
    else:
        print(
            f"\nModel and results are in {args.output_dir}. There is no training_curve.png, because the run "
            f"ended before its first entry in the log, after --logging_steps {args.logging_steps:g}."
        )
    if not args.do_predict:
        script = f"python {sys.argv[0]} --model_name_or_path {args.output_dir}"
        print(
            "To use it on rows of your own:\n"
            f"  {script} --do_predict --test_file ROWS --output_dir PREDICTIONS"
        )
