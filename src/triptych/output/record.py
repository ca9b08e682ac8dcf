"""What a run writes down about itself in `run.json`: versions, machine, command, the files that it wrote."""

import json
import logging
import os
import platform
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from triptych import __version__
from triptych.output import files

logger = logging.getLogger(__name__)

RUN = "run.json"
PACKAGES = (
    "torch",
    "tensorflow",
    "tensorflow-text",
    "keras",
    "keras-hub",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "transformers",
    "accelerate",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "huggingface_hub",
    "datasets",
    "pillow",
    "pyarrow",
    "numpy",
    "evaluate",
    "rouge-score",
    "nltk",
    "sacrebleu",
    "seqeval",
    "jiwer",
    "scikit-learn",
)
_SECRET_FLAG = re.compile(r"--((push.to.)?hub.t[\w-]*|token|[\w-]*(auth.token|api.key|password|secret))")
_SECRET_VALUE = re.compile(r"hf_[A-Za-z0-9]{16,}|(?<=://)[^/@\s]+(?=@)")


def written(output_dir: str | os.PathLike) -> frozenset[str]:
    """The names of the files in an output folder that runs of ours wrote there; none in another's folder."""
    try:
        run = json.loads((Path(output_dir) / RUN).read_text(encoding="utf-8"))
        names = run["files"] if "triptych" in run["versions"] else []
        return frozenset(name for name in names if isinstance(name, str))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()


def note(output_dir: str | os.PathLike, names: Iterable[str]) -> None:
    """Writes down, before they are written, that files are the run's own. What has such a name and is not is
    kept under another one. In a folder without `run.json` nothing is noted."""
    folder = Path(output_dir)
    ours = written(folder)
    if not ours or ours.issuperset(names):
        return
    for path in (folder / name for name in names if name not in ours):
        if path.exists():
            aside = next(
                free for n in range(1, 1000) if not (free := path.with_name(f"{path.name}.kept-{n}")).exists()
            )
            path.rename(aside)
            logger.warning("%s was there before, and not from a run: it is %s now.", path, aside.name)
    run = files.read_json(folder / RUN)
    files.write_json(folder / RUN, run | {"files": sorted(ours.union(names))})


def write(path: Path, content: bytes) -> None:
    """Writes a file of the output folder in one step, and notes it first."""
    note(path.parent, [path.name])
    files.write(path, content)


def write_json(path: Path, value: Any) -> None:
    """Writes values as JSON, see `write`."""
    note(path.parent, [path.name])
    files.write_json(path, value)


def save_arguments(output_dir: str | os.PathLike, values: dict[str, Any]) -> None:
    """Writes `arguments.json`, in the order of the flags, so that it can be passed back to the script."""
    write(Path(output_dir) / "arguments.json", (json.dumps(values, indent=4) + "\n").encode())


def save_run(output_dir: str | os.PathLike, info: dict[str, Any]) -> None:
    """Writes `run.json`: versions, machine and command line (secrets hidden), the files that this
    and earlier runs wrote there, and `info` beside them."""
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
    files.write_json(Path(output_dir) / RUN, run | info | {"files": sorted(written(output_dir) | {RUN})})


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
