"""Real text whose words have tags, without a network: functions of Python's own standard library."""

import ast
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from triptych.data import tagged_rows, words
from triptych.samples import library

NUMBER_OF_WORDS = range(12, 81)
WELL_KNOWN = ("self", "cls")
UNKNOWN = "?"  # imported from another module, where it may be anything
DEFINES = re.compile(r"(?:async\s+)?(?:def|class)\s+")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
SCOPES = FUNCTIONS | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

Labels = dict[str, str | None]  # of names; a variable has none
Place = Callable[[int, int], int]  # from a line and its bytes before, as `ast` counts, to characters


def sources() -> list[dict[str, Any]]:
    """Functions and methods of 12 to 80 words from the running Python's own source files, with names tagged.

    The tags are gold, though not by human hands: the syntax tree shows which name is a FUNCTION, CLASS or
    MODULE that the file or the function itself defines or imports, and which is a PARAMETER. Every other
    word is O: variables, attributes, keywords, what Python has built in, comments and what stands in quotes;
    `self` and `cls` too, which would be half of the parameters. So a word has a tag in one place and none in
    another. Functions that use a name imported from a module are left out, as it may be anything.

    Which rows there are depends on the Python version; their order is that of the file names and the lines.

    Returns:
        Rows with the columns "text", the source without decorators; "tokens", its words (see `words.split`);
        "ner_tags" (IOB2, no entity has two words); and "package", the top-level module or package.

    Raises:
        InputError: this Python was installed without its source files.
    """
    rows = []
    for package, source, tree in library.modules():
        place, labels = _places(source), _first(_bound(tree))
        for function in _functions(tree):
            start = place(function.lineno, function.col_offset)
            text = source[start : place(function.end_lineno or 0, function.end_col_offset or 0)]
            found = words.split(text)
            if len(found) not in NUMBER_OF_WORDS:
                continue
            spans = [
                (at - start, at - start + len(name), label)
                for at, name, label in _named(function, labels, source, place)
                if at >= start and name not in WELL_KNOWN  # decorators stand before
            ]
            if all(label != UNKNOWN for *_, label in spans):
                tags, _ = tagged_rows.iob2(spans, text, found)
                tokens = [text[first:last] for first, last in found]
                rows.append({"text": text, "tokens": tokens, "ner_tags": tags, "package": package})
    return rows


def _places(source: str) -> Place:
    lines = source.split("\n")
    starts = [0, *itertools.accumulate(len(line) + 1 for line in lines)]
    return lambda line, offset: starts[line - 1] + len(lines[line - 1].encode()[:offset].decode())


def _functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Those that stand in no other function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield child
        elif isinstance(child, ast.stmt | ast.excepthandler):
            yield from _functions(child)


def _first(pairs: Iterable[tuple[str, str | None]]) -> Labels:
    """What a name is in a scope: what it is first, so that a parameter stays one when it is assigned to."""
    labels: Labels = {}
    for name, label in pairs:
        labels.setdefault(name, label)
    return labels


def _bound(scope: ast.AST) -> Iterator[tuple[str, str | None]]:
    """The names that a scope defines, but not those of the scopes in it, and their labels."""
    for node in ast.iter_child_nodes(scope):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name, "FUNCTION"
            case ast.ClassDef():
                yield node.name, "CLASS"
            case ast.arg():
                yield node.arg, "PARAMETER"
            case ast.Import():
                for alias in node.names:
                    yield alias.asname or alias.name.partition(".")[0], "MODULE"
            case ast.ImportFrom():
                for alias in node.names:
                    yield alias.asname or alias.name, UNKNOWN
            case ast.Name(ctx=ast.Store()):
                yield node.id, None
            case ast.ExceptHandler(name=str(name)):
                yield name, None
        if not isinstance(node, SCOPES | ast.ClassDef):
            yield from _bound(node)


def _named(node: ast.AST, labels: Labels, source: str, place: Place) -> Iterator[tuple[int, str, str]]:
    """Place, name and label of every name that stands in a node and has one.

    Args:
        labels: of the names that are known around the node.
    """
    match node:
        case ast.JoinedStr():
            return  # in quotes
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            if behind := DEFINES.match(source, place(node.lineno, node.col_offset)):
                yield behind.end(), node.name, "CLASS" if isinstance(node, ast.ClassDef) else "FUNCTION"
        case ast.Import():
            for alias in node.names:
                if alias.asname:
                    end = place(alias.end_lineno or 0, alias.end_col_offset or 0)
                    yield end - len(alias.asname), alias.asname, "MODULE"
                else:
                    yield place(alias.lineno, alias.col_offset), alias.name.partition(".")[0], "MODULE"
        case ast.ImportFrom():
            yield place(node.lineno, node.col_offset), "", UNKNOWN
        case ast.arg():
            yield place(node.lineno, node.col_offset), node.arg, "PARAMETER"
        case ast.Name() if label := labels.get(node.id):
            yield place(node.lineno, node.col_offset), node.id, label
    inner = labels | _first(_bound(node)) if isinstance(node, SCOPES) else labels
    for child in ast.iter_child_nodes(node):
        # Defaults, annotations and decorators do not see what the function defines.
        is_outside = isinstance(child, ast.arguments) or (
            isinstance(node, FUNCTIONS) and isinstance(child, ast.expr)
        )
        yield from _named(child, labels if is_outside else inner, source, place)
