"""What a run leaves behind, with the same file names, keys and meaning in every form."""

import csv
import io
import json
import logging
import math
import os
import platform
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from triptych import __version__
from triptych.errors import RunError
from triptych.launchers import by_the_first

logger = logging.getLogger(__name__)

# fmt: off
# What every form knows. The Trainer's further keys count what it is not asked to (tokens, operations) or say
# nothing in a file (which process wrote it).
STATE_KEYS = (
    "best_global_step", "best_metric", "best_model_checkpoint", "epoch", "eval_steps", "global_step",
    "log_history", "logging_steps", "max_steps", "num_train_epochs", "save_steps", "train_batch_size",
)
PACKAGES = (
    "torch", "tensorflow", "tensorflow-text", "keras", "keras-hub", "jax", "jaxlib", "flax", "optax",
    "transformers", "accelerate", "tokenizers", "sentencepiece", "safetensors", "huggingface_hub", "datasets",
    "pyarrow", "numpy", "evaluate", "rouge-score", "nltk", "sacrebleu", "seqeval", "jiwer", "scikit-learn",
)
# fmt: on
MOST_IN_PICTURE = 30  # labels of a confusion matrix
_SECRET_FLAG = re.compile(r"--((push.to.)?hub.t[\w-]*|token|[\w-]*(auth.token|api.key|password|secret))")
_SECRET_VALUE = re.compile(r"hf_[A-Za-z0-9]{16,}|(?<=://)[^/@\s]+(?=@)")


Outcome = tuple[list[int], float, int, list[list[Any]] | None]


def combine(outcomes: list[Outcome], prefix: str, seconds: float) -> tuple[dict[str, float], list[list[Any]]]:
    """Puts an evaluation's batches together, from whichever process they come.

    Args:
        outcomes: for each batch its row numbers, its summed loss, the number of targets (tokens, for example)
            in that sum, and the output for each row, if any: generated token ids, or logits.
        prefix: of the metrics' names: eval or predict.
        seconds: that the evaluation took.

    Returns:
        Metrics: `<prefix>_loss`, the mean over all targets (if there are any), and how long it took; and the
        outputs in the order of the rows.
    """
    rows = sum(len(numbers) for numbers, _, _, _ in outcomes)
    targets = sum(count for _, _, count, _ in outcomes)
    metrics = {f"{prefix}_loss": sum(loss for _, loss, _, _ in outcomes) / targets} if targets else {}
    metrics |= {
        f"{prefix}_runtime": round(seconds, 4),
        f"{prefix}_samples": rows,
        f"{prefix}_samples_per_second": round(rows / seconds, 3),
    }
    by_row = {
        row: output
        for numbers, _, _, outputs in outcomes
        for row, output in zip(numbers, outputs or [], strict=False)
    }
    return metrics, [by_row[row] for row in sorted(by_row)]


def prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    """Metrics by the names that they have in the files: `eval_rouge1`."""
    return {f"{prefix}_{name}": value for name, value in metrics.items()}


@by_the_first
def save_metrics(output_dir: str | os.PathLike, split: str, metrics: dict[str, Any]) -> None:
    """Writes `<split>_results.json` (train, eval, predict) and merges it into `all_results.json`, where other
    splits' stay."""
    folder = Path(output_dir)
    _write_json(folder / f"{split}_results.json", metrics)
    _write_json(folder / "all_results.json", _read_json(folder / "all_results.json") | metrics)


@by_the_first
def save_predictions(
    output_dir: str | os.PathLike, lines: list[str], name: str = "generated_predictions.txt"
) -> None:
    """Writes one prediction a line, in UTF-8; a line break inside a prediction becomes a space."""
    write(Path(output_dir) / name, "".join(" ".join(line.splitlines()) + "\n" for line in lines).encode())


def save_table(output_dir: str | os.PathLike, rows: Sequence[Sequence[Any]], name: str) -> None:
    """Writes rows, the first being the heading, as a table with tabs between its columns."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    write(Path(output_dir) / name, text.getvalue().encode())


def save_confusion(output_dir: str | os.PathLike, by_label: dict[str, dict[str, Any]]) -> Path | None:
    """Draws `confusion_matrix.png`: how many rows of each label (down) were given each label (across).

    Args:
        by_label: from `metrics.by_label`.

    Returns:
        The picture's path, or None without such counts, or with more labels than can be read.
    """
    names = list(by_label)
    if not 0 < len(names) <= MOST_IN_PICTURE or any("predicted" not in one for one in by_label.values()):
        return None
    import numpy as np
    from matplotlib.figure import Figure

    counts = np.array([[by_label[row]["predicted"].get(name, 0) for name in names] for row in names])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
    size = 2.5 + 0.45 * len(names)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else "#222222"
        axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(names)), shown, rotation=45, ha="right", parse_math=False)
    axis.set_yticks(range(len(names)), shown, parse_math=False)
    axis.set_xlabel("predicted label")
    axis.set_ylabel("label")
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axis, shrink=0.8)
    bar.set_label("share of the label's rows")
    bar.outline.set_visible(False)
    return _save_picture(figure, Path(output_dir) / "confusion_matrix.png")


def save_arguments(output_dir: str | os.PathLike, values: dict[str, Any]) -> None:
    """Writes `arguments.json`, in the order of the flags, so that it can be passed back to the script."""
    write(Path(output_dir) / "arguments.json", (json.dumps(values, indent=4) + "\n").encode())


def save_state(output_dir: str | os.PathLike, state: dict[str, Any]) -> None:
    """Writes `trainer_state.json` with exactly the keys of `STATE_KEYS`, named as in the Trainer.

    Raises:
        KeyError: the state lacks one of them.
    """
    _write_json(Path(output_dir) / "trainer_state.json", {key: state[key] for key in STATE_KEYS})


@by_the_first
def save_training(
    output_dir: str | os.PathLike,
    metrics: dict[str, Any],
    state: dict[str, Any],
    unit: str = "nats per token",
) -> None:
    """Writes what training leaves behind: its metrics, if there are any, its state, and the picture of its
    log, with the loss's unit. The rates of an earlier process stay where this one did no step."""
    if metrics:
        steps_done = "train_runtime" in metrics
        before = {} if steps_done else _read_json(Path(output_dir) / "train_results.json")
        save_metrics(output_dir, "train", before | metrics)
    save_state(output_dir, state)
    save_curve(output_dir, state["log_history"], unit)


def save_run(output_dir: str | os.PathLike, info: dict[str, Any]) -> None:
    """Writes `run.json`: versions, machine and command line (secrets hidden), and `info` beside them."""
    from importlib import metadata  # a third of this module's import time

    versions = {"python": platform.python_version(), "triptych": __version__}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    run = {
        "command": hide_secrets(sys.argv),
        "cpu_count": os.cpu_count(),
        "platform": platform.platform(),
        "versions": versions,
    }
    _write_json(Path(output_dir) / "run.json", run | info)


def hide_secrets(arguments: list[str]) -> list[str]:
    """A command line with `<hidden>` for the values of `--hub_token` and its like, however spelled."""
    hidden: list[str] = []
    value_is_secret = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        is_secret = _SECRET_FLAG.fullmatch(flag) is not None
        if value_is_secret and not argument.startswith("--"):
            hidden.append("<hidden>")
        elif is_secret and equals:
            hidden.append(f"{flag}=<hidden>")
        else:
            hidden.append(_SECRET_VALUE.sub("<hidden>", argument))
        value_is_secret = is_secret and not equals
    return hidden


def save_curve(
    output_dir: str | os.PathLike, log_history: list[dict[str, Any]], unit: str = "nats per token"
) -> Path | None:
    """Draws `training_curve.png`: training and evaluation loss over optimizer steps, and the learning rate.

    Args:
        log_history: entries as the Trainer logs them: "step" and any of "loss", "eval_loss", "learning_rate".
        unit: of the loss.

    Returns:
        The picture's path, or None if there is no finite value to draw.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    last_step = None
    for axis, key, label, color, marker in (
        (losses, "loss", "training loss", "#2f6db3", "."),
        (losses, "eval_loss", "evaluation loss", "#d9541e", "o"),
        (rates, "learning_rate", "learning rate", "#4d4d4d", "."),
    ):
        points = [(entry["step"], float(entry[key])) for entry in log_history if entry.get(key) is not None]
        finite = [point for point in points if math.isfinite(point[1])]
        if not finite:
            continue
        if len(finite) < len(points):
            label += f" ({len(points) - len(finite)} not finite)"
        if marker == "." and len(finite) > 40:
            marker = ""  # it would hide the line
        axis.plot(*zip(*finite, strict=True), color=color, linewidth=1.8, marker=marker, label=label)
        last_step = max(last_step or 1, *(step for step, _ in finite))
    if last_step is None:
        return None

    if losses.has_data():
        losses.legend(frameon=False)
    losses.set_title(Path(output_dir).resolve().name, parse_math=False)
    losses.set_ylabel(f"loss ({unit})")
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rates.set_xlabel("optimizer steps")
    rates.set_xlim(0, last_step * 1.02)
    rates.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    for axis in (losses, rates):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)

    return _save_picture(figure, Path(output_dir) / "training_curve.png")


def _save_picture(figure: Any, path: Path) -> Path:
    picture = io.BytesIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure.savefig(picture, format="png", dpi=150, bbox_inches="tight")
    if any("missing from font" in str(one.message) for one in said):
        logger.warning("%s: its font lacks some letters, which are drawn as boxes.", path.name)
    write(path, picture.getvalue())
    return path


def summary_table(metrics: dict[str, Any]) -> str:
    """A plain text table of metrics with a row for each name.

    Args:
        metrics: `{"eval_loss": 1.2, ...}` for one column of values, or one such dictionary a column, as in
            `{"before": {...}, "after": {...}, "lead baseline": {...}}`; what a column lacks is shown as "-".
    """
    columns = metrics if all(isinstance(column, dict) for column in metrics.values()) else {"": metrics}
    rows = [["", *columns]] if "" not in columns else []
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        rows.append([name, *_numbers([column.get(name, "-") for column in columns.values()])])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _numbers(row: list[Any]) -> list[str]:
    """The values of a row, floats with as many decimals as suit the largest of them."""
    row = _plain(row)
    largest = max((abs(value) for value in row if isinstance(value, float)), default=0.0)
    style = ",.2f" if largest >= 10 else ".4f" if largest >= 0.001 or not largest else ".2e"
    return [
        format(value, style if isinstance(value, float) else "," if isinstance(value, int) else "")
        for value in row
    ]


def _plain(value: Any) -> Any:
    """Numbers of any array library as Python's own; what is not finite, and has no word in JSON, as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_json(path: Path) -> dict[str, Any]:
    """The results in a file; empty where there is none, or something else in it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        logger.warning("%s is not readable (%s): it is written anew", path, error)
        return {}
    return values


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(_plain(value), indent=4, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write(path, (text + "\n").encode())


def write(path: Path, content: bytes) -> None:
    """Replaces a file in one step: whoever reads it, even after a crash, finds the old content or the new.

    Raises:
        RunError: if it cannot be written, with the bytes that it needs.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise RunError(f"{path} could not be written ({len(content):,} bytes): {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
