"""Pictures of a run, drawn by matplotlib."""

import io
import logging
import math
import os
import warnings
from pathlib import Path
from typing import Any

from triptych.launchers import by_the_first
from triptych.output import record

logger = logging.getLogger(__name__)

MOST_IN_PICTURE = 30  # labels of a confusion matrix


@by_the_first
def save_confusion(
    output_dir: str | os.PathLike, by_label: dict[str, dict[str, Any]], unit: str = "rows"
) -> None:
    """Draws `confusion_matrix.png`: how many rows of each label (down) were given each label (across).

    Args:
        by_label: from `metrics.labels.by_label` or `metrics.tags.confusion`. Without such counts, and with
            more labels than can be read, nothing is drawn.
        unit: what is counted: rows or words.
    """
    names = list(by_label)
    if not 0 < len(names) <= MOST_IN_PICTURE or any("predicted" not in one for one in by_label.values()):
        return
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
    bar.set_label(f"share of the label's {unit}")
    bar.outline.set_visible(False)
    save_figure(figure, Path(output_dir) / "confusion_matrix.png")


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

    return save_figure(figure, Path(output_dir) / "training_curve.png")


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a figure of matplotlib as PNG, and returns its path."""
    picture = io.BytesIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure.savefig(picture, format="png", dpi=150, bbox_inches="tight")
    if any("missing from font" in str(one.message) for one in said):
        logger.warning("%s: its font lacks some letters, which are drawn as boxes.", path.name)
    record.write(path, picture.getvalue())
    return path
