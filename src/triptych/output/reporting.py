"""Where the log of a run goes beside its own files: `--report_to`, the same in every form."""

import difflib
import importlib
import importlib.util
import itertools
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from triptych.errors import InputError

logger = logging.getLogger(__name__)

PROJECT = "triptych"  # where a tracker's own variable names no other


class TensorBoard:
    """An event file in `--logging_dir`, written without any tensor library, from the first entry on."""

    module = "tensorboard"

    def __init__(self, args: Any, flags: dict[str, Any]):
        self._folder = str(args.logging_dir or Path(args.output_dir) / "runs")
        self._writer: Any = None

    def log(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = self._writer or EventFileWriter(self._folder)
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Wandb:
    """Weights & Biases: WANDB_PROJECT, WANDB_MODE=offline and its other variables."""

    module = "wandb"

    def __init__(self, args: Any, flags: dict[str, Any]):
        import wandb

        project = _project(args, "WANDB_PROJECT")
        self._run = wandb.init(project=project, name=_name(args), config=flags, dir=str(args.output_dir))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """MLflow: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and its other variables."""

    module = "mlflow"

    def __init__(self, args: Any, flags: dict[str, Any]):
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(_project(args, "MLFLOW_EXPERIMENT_NAME"))
        mlflow.start_run(run_name=_name(args))
        # It takes a hundred at once, and texts of limited length.
        pairs = iter([(name, str(value)[:250]) for name, value in flags.items()])
        while some := dict(itertools.islice(pairs, 100)):
            mlflow.log_params(some)

    def log(self, step: int, values: dict[str, float]) -> None:
        self._mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class Trackio:
    """Trackio: TRACKIO_PROJECT, TRACKIO_SPACE_ID; on this machine without the second."""

    module = "trackio"

    def __init__(self, args: Any, flags: dict[str, Any]):
        import trackio

        self._trackio = trackio
        project, space = _project(args, "TRACKIO_PROJECT"), getattr(args, "trackio_space_id", None)
        places = {"space_id": space, "bucket_id": getattr(args, "trackio_bucket_id", None)}
        places = {name: place for name, place in places.items() if place}
        trackio.init(project=project, name=_name(args), config=flags, embed=False, **places)

    def log(self, step: int, values: dict[str, float]) -> None:
        self._trackio.log(values, step=step)

    def close(self) -> None:
        self._trackio.finish()


class Comet:
    """Comet: COMET_PROJECT_NAME, COMET_MODE=offline and its other variables."""

    module = "comet_ml"

    def __init__(self, args: Any, flags: dict[str, Any]):
        import comet_ml

        offline = os.environ.get("COMET_MODE", "").lower() == "offline"
        project = _project(args, "COMET_PROJECT_NAME")
        self._experiment = comet_ml.start(project_name=project, online=False if offline else None)
        self._experiment.set_name(_name(args))
        self._experiment.log_parameters(flags)

    def log(self, step: int, values: dict[str, float]) -> None:
        self._experiment.log_metrics(values, step=step)

    def close(self) -> None:
        self._experiment.end()


TRACKERS: dict[str, Any] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
    "comet_ml": Comet,
}
# What the Trainer reports to besides, in its form alone, with the module that each needs
OF_THE_TRAINER = {
    "azure_ml": "azureml",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
}


def _name(args: Any) -> str:
    """A run's name: as the Trainer's flag says, or as its folder is called."""
    return getattr(args, "run_name", None) or Path(args.output_dir).absolute().name


def _project(args: Any, variable: str) -> str:
    """What runs are gathered under: as a tracker's own variable says, or the Trainer's flag."""
    asked = getattr(args, "project", "huggingface")  # the default there
    return os.environ.get(variable) or (asked if asked != "huggingface" else PROJECT)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def names(report_to: str | list[str] | None) -> list[str]:
    """The names in `--report_to`, which may be several with commas between them, `all` for those that are
    installed, or `none`."""
    given = report_to.split(",") if isinstance(report_to, str) else report_to or []
    asked = [name.strip() for name in given]
    if asked == ["all"]:
        return [name for name, tracker in TRACKERS.items() if _is_installed(tracker.module)]
    return list(dict.fromkeys(name for name in asked if name not in ("", "none")))


def problems(report_to: str | list[str] | None, others: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with `--report_to`: trackers that are not known, or not installed.

    Args:
        others: that a form knows besides, with the module that each needs.
    """
    modules = {name: tracker.module for name, tracker in TRACKERS.items()} | dict(others or {})
    found = []
    for name in names(report_to):
        if name not in modules:
            close = difflib.get_close_matches(name, modules, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            there_are = f"none, all, {', '.join(modules)}, or several with commas between them"
            found.append(f"--report_to {name}: there is no such tracker here{meant}; there are {there_are}.")
        elif not _is_installed(modules[name]):
            package = modules[name].replace("_", "-")
            found.append(f"--report_to {name}: is not installed; pip install {package}, or leave it out.")
    return found


class Reporters:
    """The trackers of a run, open. One that fails is told once and left alone: the run's own files have
    everything."""

    def __init__(self, trackers: Mapping[str, Any]):
        self._trackers = dict(trackers)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Passes on an entry of the log under the Trainer's names: train/loss, eval/rouge1."""
        tagged = {
            f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}": float(value)
            for name, value in values.items()
        }
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(step, tagged)
            except Exception as error:  # each tracker has its own
                logger.warning("--report_to %s: %s; the run goes on without it.", name, _reason(error))
                del self._trackers[name]


@contextmanager
def opened(trackers: Collection[str], args: Any, flags: dict[str, Any]) -> Iterator[Reporters]:
    """A block in which trackers of those names are open.

    Args:
        args: the run's.
        flags: what they are told of it, as plain values.

    Raises:
        InputError: if one cannot be opened, for lack of an account for example.
    """
    with ExitStack() as stack:
        found = {}
        for name in trackers:
            try:
                found[name] = TRACKERS[name](args, flags)
            except Exception as error:
                raise InputError(f"--report_to {name}: {_reason(error)}") from error
            stack.callback(_close, name, found[name])
        yield Reporters(found)


def _close(name: str, tracker: Any) -> None:
    try:
        tracker.close()
    except Exception as error:
        logger.warning("--report_to %s: %s", name, _reason(error))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
