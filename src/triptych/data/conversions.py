"""Raw rows made anew, once for all runs, with what is wrong in them told together."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from triptych.data.readers import MOST_PROBLEMS
from triptych.data.sources import CHUNK, is_stream
from triptych.errors import InputError

PROBLEMS = "what is wrong with the row"

Make = Callable[[dict[str, list], list[int]], dict[str, list]]


def convert(rows: Any, make: Make, features: Any, title: str, overwrite_cache: bool = False) -> Any:
    """The rows with the columns that `make` gives them, and no others.

    Args:
        make: from columns of a chunk, and the numbers of its rows from 0, to new columns; among them
            PROBLEMS, a list of sentences for each row.
        features: of the new columns, PROBLEMS aside; of a stream they may be empty.
        title: of the bar.

    Raises:
        InputError: at most ten of the problems; those of a stream as its rows come.
    """
    import datasets

    old = list(rows.column_names or next(iter(rows), {}))
    given: dict[str, Any] = dict(batched=True, batch_size=CHUNK, with_indices=True, remove_columns=old)
    if is_stream(rows):
        return rows.map(partial(_raising, make=make), features=features or None, **given)
    # What is wrong is kept with the rows, so that results from the cache tell it too.
    features = datasets.Features(features) | {PROBLEMS: datasets.List(datasets.Value("string"))}
    rows = rows.map(
        make,
        features=datasets.Features(features),
        load_from_cache_file=not overwrite_cache,
        desc=title,
        **given,
    )
    chunks = rows.select_columns([PROBLEMS]).with_format("arrow").iter(CHUNK)
    told = (problems for chunk in chunks for problems in chunk[PROBLEMS].to_pylist())
    if found := list(itertools.islice(itertools.chain.from_iterable(told), MOST_PROBLEMS)):
        raise InputError(found)
    return rows.remove_columns(PROBLEMS)


def _raising(chunk: dict[str, list], numbers: list[int], make: Make) -> dict[str, list]:
    made = make(chunk, numbers)
    if problems := list(itertools.chain.from_iterable(made.pop(PROBLEMS))):
        raise InputError(problems[:MOST_PROBLEMS])
    return made
