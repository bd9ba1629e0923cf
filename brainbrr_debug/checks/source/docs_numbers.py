"""`docs.numbers`: a default that a documentation string or a help text gives, against the default of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import Function, PythonFile, Source, constant, keyword
from brainbrr_debug.records import Finding, Severity

ID = "docs.numbers"
_VALUE = (
    r"[`'\"]*(?P<value>[-+]?\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?|True|False)(?![\w%/^*:-]|\s*[*/^x×%]|[.,]\d|`*,\s*`*\d)"
)
_DEFAULT = re.compile(rf"(?i:\bdefaults?\b)\s*(?:value)?\s*(?:is|to|of|=|:)?\s*(?:is|to|=|:)?\s*{_VALUE}")
_ENTRY = re.compile(r"^\s*(?::param\s+(?:[\w\[\], .]+\s)?)?[`*]*(?P<name>\w+)[`*]*\s*(?:\([^)]*\))?\s*:")


def docs_numbers(source: Source) -> Iterable[Finding]:
    """Numbers and booleans only: where the text says "default 0.1" and the parameter says otherwise."""
    for file in source.core:
        for function in file.functions:
            owner = file.class_of(function) if function.name == "__init__" else None
            for documented in (function, owner):
                yield from _compare(file, documented, function)
        for node in file.of(ast.ClassDef):
            yield from _compare(file, node, node)
        for call in file.of(ast.Call):
            yield from _help(file, call)


def _compare(
    file: PythonFile, documented: Function | ast.ClassDef | None, owner: Function | ast.ClassDef
) -> Iterator[Finding]:
    """What the text of `documented` says about the defaults of `owner`."""
    entries = list(_documented(documented))
    if not entries:
        return
    defaults = _fields(owner) if isinstance(owner, ast.ClassDef) else _parameters(owner)
    for name, said, line in entries:
        if name in defaults and not _same(said, defaults[name]):
            yield _finding(file, line, name, said, defaults[name])


def _documented(node: Function | ast.ClassDef | None) -> Iterator[tuple[str, str, int]]:
    """Parameter, documented default and line, from a documentation string: the last parameter named above it."""
    text = ast.get_docstring(node, clean=False) if node is not None else None
    if node is None or text is None or not _DEFAULT.search(text):
        return
    first = node.body[0].lineno
    name, given = "", False
    for number, line in enumerate(text.splitlines()):
        entry = _ENTRY.match(line)
        if entry is not None:
            name, given = entry["name"], False
        default = _DEFAULT.search(line)
        if name and default is not None and not given:
            given = True  # a second number under one parameter is about something else
            yield name, default["value"], first + number


def _parameters(function: Function) -> dict[str, object]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [
        *zip(reversed(positional), reversed(arguments.defaults), strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return {a.arg: value for a, default in pairs if isinstance(value := constant(default), (bool, int, float))}


def _fields(node: ast.ClassDef) -> dict[str, object]:
    return {
        s.target.id: value
        for s in node.body
        if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
        if isinstance(value := constant(s.value), (bool, int, float))
    }


def _help(file: PythonFile, call: ast.Call) -> Iterator[Finding]:
    """`add_argument("--x", default=1, help="… (default: 2)")`, and the same of click."""
    if getattr(call.func, "attr", "") in ("add_argument", "option", "Option", "Field", "field"):
        text, default = constant(keyword(call, "help")), constant(keyword(call, "default"))
        said = _DEFAULT.search(text) if isinstance(text, str) else None
        if said is not None and isinstance(default, (bool, int, float)) and not _same(said["value"], default):
            name = constant(call.args[0]) if call.args else ""
            yield _finding(file, call.lineno, str(name), said["value"], default)


def _same(said: str, default: object) -> bool:
    if said in ("True", "False"):
        return str(default) == said or not isinstance(default, bool)
    if isinstance(default, bool):
        return True
    return float(said.replace("_", "")) == float(str(default))


def _finding(file: PythonFile, line: int, name: str, said: str, default: object) -> Finding:
    return found(
        ID,
        Severity.P3,
        file.path,
        line,
        f"{name} is documented with the default {said}, and has {default!r}",
        why="whoever relies on the text trains with another value",
        remedy=f"write {default!r} in the text, or let it be taken from the code",
    )
