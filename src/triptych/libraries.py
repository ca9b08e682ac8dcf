"""Which releases of other libraries the scripts run with: those within the bounds of pyproject.toml.

Read from the names of folders and without packaging or importlib.metadata, whose import takes as long as the
whole answer to -h.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from triptych.errors import InputError

# By framework ("": every one): the bounds, and the newest release that the tests have run with. Where private
# names are used there is no bound at the next release: `require_private` tells if it has them no more.
LIBRARIES = {
    "": {
        "transformers": (">=5.17,<6", "5.24"),
        "datasets": (">=4.8,<6", "5.2"),
        "huggingface-hub": (">=1.20,<3", "2.4"),
    },
    "pytorch": {"torch": (">=2.9,<3", "2.14"), "accelerate": (">=1.12,<2", "1.15")},
    "tensorflow": {
        "tensorflow": (">=2.18,<3", "2.21"),
        "keras": (">=3.12,<4", "3.15"),
        "keras-hub": (">=0.25,<1", "0.32"),
    },
    "flax": {"jax": (">=0.7.1,<1", "0.10"), "flax": (">=0.12,<1", "0.12"), "optax": (">=0.2.5,<1", "0.2.8")},
}


def of(modules: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The libraries of every framework, and those of the one that has some of these modules."""
    needed = set(modules)
    own = (libraries for libraries in LIBRARIES.values() if needed & libraries.keys())
    return {name: about for libraries in (LIBRARIES[""], *own) for name, about in libraries.items()}


def installed(library: str) -> str | None:
    """The version that is installed, None where it cannot be told."""
    module = library.replace("-", "_")
    found = find_spec(module)
    if found is None or not found.origin:
        return None
    beside = Path(found.origin).parents[1].glob(f"{module}-*.dist-info")
    return next((path.name.removesuffix(".dist-info").rpartition("-")[2] for path in beside), None)


def release(version: str) -> list[int]:
    """The numbers of a version: `2.13.0+cpu` is [2, 13, 0]."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return [int(number) for number in leading[0].split(".")] if leading else []


def within(version: str, bounds: str) -> bool:
    """Whether a version is in a range of the form `>=5.17,<6`."""
    lowest, limit = (release(bound.lstrip("<>=")) for bound in bounds.split(","))
    return lowest <= release(version) < limit


def outside(modules: Iterable[str]) -> list[str]:
    """A sentence for each library of a script that is installed in a version which is not to be used."""
    versions = {library: (installed(library), bounds) for library, (bounds, _) in of(modules).items()}
    return [
        f"This script works with {library}{bounds}, and {version} is installed: run `pip install "
        f"'{library}{bounds}'`."
        for library, (version, bounds) in versions.items()
        if version and not within(version, bounds)
    ]


def newer(modules: Iterable[str]) -> list[str]:
    """Those libraries of a script that are newer than any the tests have run with, as `name version (tried up
    to version)`."""
    versions = {library: (installed(library), tried) for library, (_, tried) in of(modules).items()}
    return [
        f"{library} {version} (tried up to {tried})"
        for library, (version, tried) in versions.items()
        if version and release(version)[: len(release(tried))] > release(tried)
    ]


def explain_failures(modules: Iterable[str]) -> None:
    """Has a traceback followed by the libraries that are newer than any tried, if there are some."""
    if not (untried := newer(modules)):
        return

    def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        if issubclass(kind, Exception):
            print(f"Newer than what triptych was tried with: {', '.join(untried)}.", file=sys.stderr)

    sys.excepthook = explain


def require_private(library: str, private: Mapping[Any, Iterable[str]]) -> None:
    """Makes sure that a library still has the private names that are used or overridden: an override of what
    is not called any more would be silent.

    Args:
        private: names by class or module.

    Raises:
        InputError: naming those that are missing, and the versions that have them.
    """
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in private.items()
        for name in names
        if not hasattr(owner, name)
    ]
    if missing:
        bounds, tried = next(own[library] for own in LIBRARIES.values() if library in own)
        lowest = bounds.partition(",")[0].lstrip(">=")
        raise InputError(
            f"{library} {installed(library)} has no {', '.join(missing)}, on which this relies: "
            f"{library} {lowest} to {tried} work."
        )
