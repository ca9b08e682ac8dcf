"""Runs a script of ours and notes when things happen: `python watch.py SCRIPT --flag value ...`.

Notes "first batch", "step" (with its useful tokens), "tokenized" and "saved" (with their seconds).
"""

import runpy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from marks import note

from triptych import batching, data
from triptych.output import checkpoints
from triptych.run.progress import Progress

step, pad, features = Progress.step, batching.pad, data.features


def noted_step(self: Progress, *arguments: Any) -> Any:
    entry = step(self, *arguments)
    note("step", tokens=arguments[-1])
    return entry


def noted_pad(*arguments: Any, **keywords: Any) -> Any:
    note("first batch")
    batching.pad = pad
    return pad(*arguments, **keywords)


def noted_features(*arguments: Any) -> Any:
    began = time.monotonic()
    found = features(*arguments)
    note("tokenized", seconds=time.monotonic() - began)
    return found


def noted(save: Callable) -> Callable:
    @contextmanager
    def noted_save(*arguments: Any) -> Iterator[Any]:
        began = time.monotonic()
        with save(*arguments) as folder:
            yield folder
        note("saved", seconds=time.monotonic() - began)

    return noted_save


Progress.step, batching.pad, data.features = noted_step, noted_pad, noted_features  # type: ignore
checkpoints.writing, checkpoints.replacing = noted(checkpoints.writing), noted(checkpoints.replacing)

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
