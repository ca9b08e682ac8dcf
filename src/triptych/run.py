"""The start and the end of a run: log, output folder, stop signals, exit codes."""

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from triptych import checkpoints, command_line, output, results
from triptych.errors import InputError

logger = logging.getLogger("triptych")


class Stopped(Exception):
    """A signal asked the run to stop, and what had to be saved is saved.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int):
        self.number = number
        super().__init__(signal.Signals(number).name)


def main(script: Callable[[], None]) -> None:
    """Runs a script and ends the process: 0 done, 2 wrong input, 1 a failure, 128 + number after a signal."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    # The launchers of all frameworks tell a process its place by this name; the first speaks for all.
    logging.getLogger("triptych").setLevel(
        logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    )
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, _raise_stopped)
    try:
        script()
    except InputError as error:
        command_line.refuse(error.problems)
    except Stopped as stopped:
        print(f"Stopped by {stopped}. The same command continues the run.", file=sys.stderr)
        sys.exit(128 + stopped.number)
    except Exception:
        traceback.print_exc()
        if _output_dir is not None and (checkpoint := checkpoints.newest(_output_dir)[0]) is not None:
            print(f"The run failed. Last good checkpoint: {checkpoint}", file=sys.stderr)
        sys.exit(1)


_output_dir: str | None = None


def start(*parsed: Any, process: int = 0, processes: int = 1, device: str = "cpu") -> None:
    """Prepares log and output folder, and writes `arguments.json`, which can be passed back to the script.

    Args:
        parsed: the run's dataclasses; the last is its TrainingArguments.
        process: this process among `processes`; only the first writes and logs.
        device: where the model computes, as told to the user.
    """
    global _output_dir
    args = parsed[-1]
    _output_dir = args.output_dir
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    logger.info(
        "%d process%s on %s, %s, seed %d",
        processes,
        "es"[: 2 * (processes > 1)],
        device,
        precision,
        args.seed,
    )
    if process > 0:
        return
    if args.do_train and args.overwrite_output_dir:
        output.clear(args.output_dir)
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    results.save_run(args.output_dir, {"processes": processes, "device": device})
    (Path(args.output_dir) / "arguments.json").write_text(
        json.dumps(command_line.to_dict(*parsed), indent=4) + "\n"
    )
    if not args.overwrite_output_dir:
        for sentence in checkpoints.newest(args.output_dir)[1]:
            logger.warning(sentence)


def _raise_stopped(number: int, frame: Any) -> None:
    raise Stopped(number)


@contextmanager
def deferred_stop() -> Iterator[Callable[[], int | None]]:
    """Within the block a first SIGTERM or SIGINT only sets the number that the yielded function returns.

    A second one ends the process at once, as if it had no handler.
    """
    received: list[int] = []

    def remember(number: int, frame: Any) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    print(f"\nModel, results and training_curve.png are in {args.output_dir}.")
    if not args.do_predict:
        script = f"python {sys.argv[0]} --model_name_or_path {args.output_dir}"
        print(
            "To use it on rows of your own:\n"
            f"  {script} --do_predict --test_file ROWS --output_dir PREDICTIONS"
        )
