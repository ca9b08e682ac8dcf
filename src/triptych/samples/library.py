"""The source files of the running Python's own standard library."""

import ast
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from triptych.errors import InputError

NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib-dynload", "__pycache__"}


def files() -> list[dict[str, str]]:
    """The source files of the running Python's standard library, whole, but empty ones and tests.

    Which there are depends on the Python version; their order is that of the file names.

    Returns:
        Rows with the columns "text" and "package", the top-level module or package.

    Raises:
        InputError: this Python was installed without its source files.
    """
    return [{"text": source, "package": package} for package, source, _ in modules() if source.strip()]


def modules() -> Iterator[tuple[str, str, ast.Module]]:
    """Top-level module or package, text and syntax tree of each file in the order of their names: parsed,
    never imported, and without tests.

    Raises:
        InputError: this Python was installed without its source files.
    """
    folder, package = Path(sysconfig.get_path("stdlib")), None
    for path in sorted(folder.rglob("*.py")):
        module = path.relative_to(folder)
        if NOT_LIBRARY.isdisjoint(module.parts) and not path.name.startswith("test_"):
            package = module.parts[0].removesuffix(".py")
            with tokenize.open(path) as file, warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                source = file.read()
                yield package, source, ast.parse(source)
    if package is None:
        raise InputError(
            f"{folder} holds no source files of the standard library: use a full Python, or the bulletins."
        )
