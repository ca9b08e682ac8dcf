"""Real text without a network: the docstrings of Python's own standard library."""

import ast
import re
from collections.abc import Iterator

from triptych.samples import library

SUMMARY_WORDS = range(3, 41)
LEAST_TEXT_WORDS = 8

# A full stop ends a sentence only before a capital, a quotation mark, a bracket or a digit: not in "cf. the".
SENTENCE_END = re.compile(r"""(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)\s+(?=[A-Z"'`(\[\d])""")
SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*->.*)?")


def docstrings() -> list[dict[str, str]]:
    """Pairs of text and summary from the running Python's own source files, which are parsed, never imported.

    The first sentence of a docstring is the summary, the rest is the text; both are on one line. Which rows
    there are depends on the Python version; their order is that of the file names and of the lines.

    Returns:
        Rows with the columns "text", "summary" and "package", the top-level module or package.

    Raises:
        InputError: this Python was installed without its source files.
    """
    return [{**pair, "package": package} for package, _, tree in library.modules() for pair in _pairs(tree)]


def _pairs(tree: ast.AST) -> list[dict[str, str]]:
    pairs = []
    for docstring in _found(tree):
        opening, _, rest = docstring.partition("\n\n")
        if SIGNATURE.fullmatch(opening):
            opening, _, rest = rest.lstrip().partition("\n\n")
        summary, *more = SENTENCE_END.split(opening, maxsplit=1)
        summary, text = " ".join(summary.split()), " ".join(" ".join([*more, rest]).split())
        if len(summary.split()) in SUMMARY_WORDS and len(text.split()) >= LEAST_TEXT_WORDS:
            pairs.append({"text": text, "summary": summary})
    return pairs


def _found(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield ast.get_docstring(node) or ""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler):  # no expression holds a docstring
            yield from _found(child)
