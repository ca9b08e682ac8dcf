"""The start and the end of a run: log, output folder, exit codes."""

import errno
import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from triptych import command_line, data, hub, launchers, schedule
from triptych.data import packing
from triptych.errors import InputError, RunError
from triptych.hub import Repository
from triptych.launchers import by_the_first
from triptych.output import checkpoints, lock, ownership, record, results
from triptych.run import outlets, resuming, signals
from triptych.run.state import RunState
from triptych.run.training import Training

logger = logging.getLogger("triptych")


def main(script: Callable[..., None], model_args: Any, data_args: Any, args: Any) -> None:
    """Runs a script's `main(model_args, data_args, args)` and ends the process: 0 done, 2 wrong input, 1 a
    failure, 128 + number after a signal.

    Of several processes the first speaks for all, unless one fails.
    """
    outlets.open_all()
    signals.end_at_once()
    launchers.end_with_the_agent()
    begin(args)
    try:
        _to_the_end(script, model_args, data_args, args)
    except SystemExit as ended:
        if ended.code and launchers.processes() > 1:
            # The libraries' own farewells would wait for processes that wait for this one.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(ended.code))
        raise


def begin(args: Any) -> None:
    """Opens the log and the hub, where there is no `main`: a notebook has the sections of a script alone."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("triptych").setLevel(logging.INFO if launchers.process() == 0 else logging.ERROR)
    hub.use_token(args)
    if "output_dir" in args.chosen:
        logger.info("Results will be in %s; --output_dir names another folder.", args.output_dir)


def _to_the_end(script: Callable[..., None], model_args: Any, data_args: Any, args: Any) -> None:
    try:
        script(model_args, data_args, args)
    except InputError as error:
        command_line.refuse(error.problems)
    except signals.Stopped as stopped:
        print(f"Stopped by {stopped}. The same command continues the run.", file=sys.stderr)
        sys.exit(128 + stopped.number)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        if full or isinstance(error, RunError):
            print(f"The run failed. {error}", file=sys.stderr)
        else:
            sys.excepthook(type(error), error, error.__traceback__)  # see libraries.explain_failures
        if (checkpoint := checkpoints.newest(args.output_dir)[0]) is not None:
            print(f"Last good checkpoint: {checkpoint}", file=sys.stderr)
        sys.exit(1)
    finally:
        lock.release()


def start(
    model_args: Any,
    data_args: Any,
    args: Any,
    raw: dict[str, Any],
    features: dict[str, Any],
    world: launchers.World,
    parameters: int,
    repository: Repository | None,
) -> Training:
    """Finds what the run continues, prepares log and output folder, and writes `arguments.json`, which can be
    passed back to the script.

    Args:
        raw, features: the rows by split, and what `preprocess` made of them.
        parameters: how many numbers the model has, for the room that it needs on the disk.
        repository: where the run is pushed to, if it is.

    Returns:
        The run at its beginning, or at the checkpoint `state.checkpoint`.

    Raises:
        InputError: if the disk has no room, another run is at work in the output folder, the checkpoint is of
            a run with other settings (see `resuming.require_same`), or processes do not know of one another
            or see different folders.
    """
    if launchers.processes_started() > world.processes:
        raise InputError(
            f"{launchers.processes_started()} processes were started, but not so that they know of one "
            "another: each would write to --output_dir. The README of the framework's folder has the "
            "commands."
        )
    if "output_dir" in args.chosen:
        args.output_dir = world.gather([args.output_dir])[0]  # the clocks of processes differ
    if data_args.generates and args.do_eval and not args.predict_with_generate:
        logger.info(
            "Evaluation computes the loss alone: --predict_with_generate also generates texts, and scores "
            "them (ROUGE, for example)."
        )
    checkpoints.require_space(args.output_dir, parameters, args)
    # Looked at again: since the flags were read another run may have begun there, or even ended.
    place = (args.output_dir, args.do_train, args.overwrite_output_dir)
    found = lock.acquire(args.output_dir) or ownership.problems(*place) if world.process == 0 else []
    if found := world.gather(found):
        raise InputError(found)
    plan = schedule.plan(args, data.count(features.get("train")), world.devices)
    state = RunState()
    if args.do_train and plan.rows and not plan.batches_per_epoch:
        raise InputError(
            f"--dataloader_drop_last leaves out all {plan.rows} training rows: they do not fill one batch "
            f"of {args.per_device_train_batch_size * world.devices}. Give a smaller "
            "--per_device_train_batch_size."
        )
    if args.do_train:
        checkpoint, skipped = checkpoints.to_continue(args)
        for sentence in skipped if world.process == 0 else ():
            logger.warning(sentence)
        settings = resuming.settings_of(model_args, data_args, args, raw["train"], plan, world.devices)
        if checkpoint:
            state = RunState.load(checkpoint)
            resuming.require_same(settings, state, args)
        state.settings = settings
    resuming.require_same_step(world.gather([state.step]))
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    count = "1 process" if world.processes == 1 else f"{world.processes} processes"
    logger.info("%s on %s, %s, seed %d", count, world.description, precision, args.seed)
    training = Training(args, data_args, world, plan, state, repository)
    if world.process > 0:
        return training
    if args.do_train and not plan.total_steps:
        logger.warning(
            "--num_train_epochs %g makes no step: the model is saved as it is.", args.num_train_epochs
        )
    if state.checkpoint and (state.step >= plan.total_steps or state.out_of_patience(args)):
        logger.info("The run is finished: it ended after step %d.", state.step)
    elif state.checkpoint:
        logger.info("Continuing after step %d, from %s", state.step, state.checkpoint)
    if args.do_train and args.overwrite_output_dir:
        ownership.clear(args.output_dir)
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    ownership.tidy(args.output_dir)
    about = {"processes": world.processes, "device": world.description}
    if args.do_train:
        about["training_rows"] = state.settings["training_rows"]
    if packed := packing.summary(features):
        about["packed"] = packed
    record.save_run(args.output_dir, about)
    record.save_arguments(args.output_dir, command_line.to_dict(model_args, data_args, args))
    return training


def finish(model_args: Any, data_args: Any, task: str, metrics: dict[str, Any], training: Training) -> None:
    """Prints the results, writes the model card, and pushes what is to be pushed.

    Args:
        task: the hub's name for it, e.g. `summarization`.
        metrics: of all phases.

    Raises:
        RunError: see `hub.share`.
    """
    show(data_args, training.args, metrics)
    hub.share(model_args, data_args, training.args, task, metrics, training.repository)


@by_the_first
def show(data_args: Any, args: Any, metrics: dict[str, Any]) -> None:
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
            f"\nModel and results are in {args.output_dir}. There is no training_curve.png, because nothing "
            "was logged: see --logging_strategy and --logging_steps."
        )
    if not args.do_predict:
        script = os.path.join(os.path.dirname(sys.argv[0]), launchers.script_started())
        command = shlex.join(
            ["python", script, "--model_name_or_path", args.output_dir, *_words_of_texts(data_args)]
        )
        rows = "pictures" if data_args.media_roles else "rows"
        given = "--test_dir FOLDER" if data_args.media_roles else "--test_file ROWS"
        print(f"To use it on {rows} of your own:\n  {command} --do_predict {given} --output_dir PREDICTIONS")


def _words_of_texts(data_args: Any) -> list[str]:
    """The flags given without which a model would read texts as it has not learnt to, or not at all."""
    languages = ("lang", "source_lang", "target_lang", "source_lang_column", "target_lang_column")
    names = ("source_prefix", "objective", *languages, "forced_bos_token", "label_delimiter")
    given = {name: value for name in names if (value := getattr(data_args, name, None))}
    return [word for name, value in given.items() for word in (f"--{name}", value)]
