"""Pictures with what a model said of them: a sheet to look at, and names for a table of predictions."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triptych.data.label_schema import MULTI, REGRESSION, Labels
from triptych.data.pictures import FOLDER
from triptych.images.decoding import Unreadable, decoded, name_of
from triptych.launchers import by_the_first
from triptych.output import pictures

logger = logging.getLogger(__name__)

MOST, COLUMNS = 24, 6  # pictures on a sheet, and in a line of it
INCHES, LONGEST = 1.7, 256  # of a picture's side on the sheet, and pixels
RIGHT, WRONG, UNKNOWN = "#2a7f3f", "#c0392b", "#444444"
FRAME = "#cccccc"
SHORT = 18  # characters of a label


def with_names(table: list[tuple], rows: Any, column: str) -> list[tuple]:
    """A table of predictions, whose first line is its heading, with a last column `file`: the path by which
    the picture was named.

    Args:
        rows: the raw rows that were predicted, in the order of the table.
        column: of the pictures.
    """
    if getattr(rows.features[column], "dtype", None) == "string":
        names = rows[column][:]
    else:
        chunks = rows.select_columns([column]).with_format("arrow").iter(100)
        names = [path or "" for chunk in chunks for path in _paths(chunk[column])]
    return [(*table[0], "file"), *((*row, name) for row, name in zip(table[1:], names, strict=True))]


def _paths(column: Any) -> list[str]:
    import pyarrow.types

    values = column.combine_chunks()
    is_struct = pyarrow.types.is_struct(values.type) and values.type.get_field_index("path") >= 0
    return values.field("path").to_pylist() if is_struct else [""] * len(values)


@by_the_first
def save(
    output_dir: str, prefix: str, answers: Sequence[Any], rows: Any, column: str, schema: Labels
) -> None:
    """Draws `samples.png`, of rows that were predicted `predicted_samples.png`: up to 24 pictures, above each
    what the model said and how surely, and below it the label where that is another one. The wrong ones come
    first, and among them the surest.

    Args:
        prefix: of the metrics: eval or predict.
        answers: one a row: the probability of each label, or the value of a regression.
        rows: the raw rows, with the pictures in `column`.
    """
    from matplotlib.figure import Figure

    wanted, said = _references(rows, schema), schema.decide(answers)
    sure, wrong = _sureness(answers, said, wanted, schema)
    order = np.lexsort((-sure, ~wrong))[:MOST]
    shown = []
    for number in order.tolist():
        row = rows[number]
        try:
            image = decoded(row[column], row.get(FOLDER))
        except Unreadable as error:
            logger.warning("%s is not on the sheet of samples: %s.", name_of(row[column]), error)
            continue
        shown.append((number, _small(image)))
    if not shown:
        return
    lines = -(-len(shown) // COLUMNS)
    across = min(COLUMNS, len(shown))
    figure = Figure(figsize=(across * INCHES, lines * (INCHES + 0.55)), layout="constrained")
    axes = figure.subplots(lines, across, squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (number, image) in zip(axes.flat, shown, strict=False):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color(FRAME)
        axis.imshow(image, interpolation="nearest" if max(image.shape) < 64 else "antialiased")
        known = wanted[number] is not None
        colour = (WRONG if wrong[number] else RIGHT) if known else UNKNOWN
        axis.set_title(
            _words(said[number], answers[number], schema), color=colour, fontsize=8, parse_math=False
        )
        if known and wrong[number]:
            truth = f"is {_named(wanted[number], schema)}"
            axis.text(
                *(0.5, -0.04, truth),
                transform=axis.transAxes,
                ha="center",
                va="top",
                fontsize=8,
                color=UNKNOWN,
                parse_math=False,
            )
    name = "samples" if prefix.startswith("eval") else prefix.replace("predict", "predicted_samples")
    pictures.save_figure(figure, Path(output_dir) / f"{name}.png")


def _references(rows: Any, schema: Labels) -> list[Any]:
    """Each row's target, None where it has none."""
    values = rows[schema.column][:] if schema.column in rows.column_names else [None] * len(rows)
    return [None if schema.lacks(value) else schema.encode([value])[0] for value in values]


def _sureness(
    answers: Sequence[Any], said: np.ndarray, wanted: list[Any], schema: Labels
) -> tuple[np.ndarray, np.ndarray]:
    """How sure each answer is (of a value, how far it is off), and whether it is wrong."""
    found = np.array(answers, np.float64)
    if schema.problem_type == REGRESSION:
        off = np.array(
            [0.0 if want is None else abs(want - value) for want, value in zip(wanted, found, strict=True)]
        )
        return off, off > 0
    if schema.problem_type == MULTI:
        sure = np.abs(found - 0.5).min(axis=1) + 0.5
        return sure, np.array(
            [w is not None and list(w) != list(s) for w, s in zip(wanted, said, strict=True)]
        )
    return found.max(axis=1), np.array([w is not None and w != s for w, s in zip(wanted, said, strict=True)])


def _words(said: Any, answer: Any, schema: Labels) -> str:
    if schema.problem_type == REGRESSION:
        return f"{said:.3g}"
    if schema.problem_type == MULTI:
        return _named(said, schema)
    return f"{_named(said, schema)}  {100 * max(answer):.0f}%"


def _named(target: Any, schema: Labels) -> str:
    if schema.problem_type == REGRESSION:
        return f"{target:.3g}"
    if schema.problem_type == MULTI:
        text = ", ".join(name for name, is_one in zip(schema.names, target, strict=True) if is_one) or "none"
    else:
        text = schema.names[int(target)]
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def _small(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    small = Image.fromarray(image)
    small.thumbnail((LONGEST, LONGEST))
    return np.asarray(small)
