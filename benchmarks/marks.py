"""When things happened in a measured process: lines of JSON in the file that BENCH_MARKS names."""

import json
import os
import time


def note(what: str, **values: float | str) -> None:
    """Adds a line: `what`, the time in seconds of the clock that all processes share, and `values`."""
    if path := os.environ.get("BENCH_MARKS"):
        with open(path, "a") as file:
            file.write(json.dumps({"what": what, "at": time.monotonic(), **values}) + "\n")
