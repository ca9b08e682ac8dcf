"""What a run leaves behind, with the same file names, keys and meaning in every form."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triptych.launchers import by_the_first
from triptych.output import files, pictures, record

# fmt: off
# What every form knows. The Trainer's further keys count what it is not asked to (tokens, operations) or say
# nothing in a file (which process wrote it).
STATE_KEYS = (
    "best_global_step", "best_metric", "best_model_checkpoint", "epoch", "eval_steps", "global_step",
    "log_history", "logging_steps", "max_steps", "num_train_epochs", "save_steps", "train_batch_size",
)
# fmt: on

Outcome = tuple[list[int], float, int, list[Any] | None]


def combine(
    outcomes: list[Outcome], prefix: str, rows: int, seconds: float
) -> tuple[dict[str, float], list[Any]]:
    """Puts an evaluation's batches together, from whichever process they come.

    Args:
        outcomes: for each batch its row numbers, its summed loss, the number of targets (tokens, for example)
            in that sum, and an answer for each row; None if no answers were wanted.
        prefix: of the metrics' names: eval or predict.
        rows: of the source; the outcomes' may be more, if long ones were cut.
        seconds: that the evaluation took.

    Returns:
        Metrics: `<prefix>_loss`, the mean over all targets (if there are any), and how long it took; and the
        answers in the order of the rows.
    """
    targets = sum(count for _, _, count, _ in outcomes)
    metrics = {f"{prefix}_loss": sum(loss for _, loss, _, _ in outcomes) / targets} if targets else {}
    metrics |= {
        f"{prefix}_runtime": round(seconds, 4),
        f"{prefix}_samples": rows,
        f"{prefix}_samples_per_second": round(rows / seconds, 3),
    }
    by_row = {
        row: answer
        for numbers, _, _, answers in outcomes
        for row, answer in zip(numbers, answers or [], strict=False)
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
    record.write_json(folder / f"{split}_results.json", metrics)
    record.write_json(folder / "all_results.json", files.read_json(folder / "all_results.json") | metrics)


@by_the_first
def save_predictions(
    output_dir: str | os.PathLike, lines: list[str], name: str = "generated_predictions.txt"
) -> None:
    """Writes one prediction a line, in UTF-8; a line break inside a prediction becomes a space."""
    record.write(
        Path(output_dir) / name, "".join(" ".join(line.splitlines()) + "\n" for line in lines).encode()
    )


@by_the_first
def save_by_id(output_dir: str | os.PathLike, values: dict[str, Any], name: str) -> None:
    """Writes what belongs to each row, by its id and in the order of the rows, as one JSON object."""
    text = json.dumps(files.plain(values), indent=2, ensure_ascii=False, allow_nan=False)
    record.write(Path(output_dir) / name, (text + "\n").encode())


@by_the_first
def save_table(output_dir: str | os.PathLike, rows: Sequence[Sequence[Any]], name: str) -> None:
    """Writes rows, the first being the heading, as a table with tabs between its columns."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    record.write(Path(output_dir) / name, text.getvalue().encode())


def save_state(output_dir: str | os.PathLike, state: dict[str, Any]) -> None:
    """Writes `trainer_state.json` with exactly the keys of `STATE_KEYS`, named as in the Trainer.

    Raises:
        KeyError: the state lacks one of them.
    """
    record.write_json(Path(output_dir) / "trainer_state.json", {key: state[key] for key in STATE_KEYS})


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
        before = {} if steps_done else files.read_json(Path(output_dir) / "train_results.json")
        save_metrics(output_dir, "train", before | metrics)
    save_state(output_dir, state)
    pictures.save_curve(output_dir, state["log_history"], unit)


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
    row = files.plain(row)
    largest = max((abs(value) for value in row if isinstance(value, float)), default=0.0)
    style = ",.2f" if largest >= 10 else ".4f" if largest >= 0.001 or not largest else ".2e"
    return [
        format(value, style if isinstance(value, float) else "," if isinstance(value, int) else "")
        for value in row
    ]
