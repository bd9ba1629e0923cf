"""`deps.unused` and `deps.undeclared`: what is declared to be needed, against what is imported."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator

from brainbrr_debug.checks.source.declared import declared, modules_of, never_imported, normal, parts_of
from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import PythonFile, Source
from brainbrr_debug.records import Finding, Severity

UNUSED = "deps.unused"
UNDECLARED = "deps.undeclared"
_BESIDE = re.compile(
    r"(^|/)(scripts?|tools?|notebooks?|utils?/dev|ci|deploy|docker)/|(^|/)(setup|noxfile|fabfile|tasks|hubconf)\.py$"
)


def unused(source: Source) -> Iterable[Finding]:
    """Requirements of the program whose modules no Python file imports or names in a string."""
    spoken = set(_every_module(source))
    local = {normal(m) for m in _local(source)}
    seen: set[str] = set()
    for one in declared(source):
        given = modules_of(one.name)
        used = given & spoken or parts_of(one.name) & spoken or one.name in local
        if one.name in seen or not one.judged or never_imported(one.name) or used:
            continue
        seen.add(one.name)
        yield found(
            UNUSED,
            Severity.P3,
            one.file,
            one.line,
            f"{one.name} is required, and nothing imports {' or '.join(sorted(given))}",
            why="whoever installs the program downloads it, and its faults and conflicts, for nothing",
            remedy=f"remove {one.name} from {one.file}",
        )


def _every_module(source: Source) -> Iterator[str]:
    """The first name, and the first two, of everything imported, also by name in a string (`backend="tables"`)."""
    for file in source.python:
        for name in _imported(file):
            parts = name.split(".")
            yield from (parts[0], ".".join(parts[:2]), ".".join(parts[:3]))
        for node in file.of(ast.Constant) if file.path != "setup.py" else ():
            if isinstance(node.value, str) and len(node.value) < 40:
                yield node.value.split(".")[0]


def _imported(file: PythonFile) -> Iterator[str]:
    for node in file.of(ast.Import):
        yield from (alias.name for alias in node.names)
    for taken in file.of(ast.ImportFrom):
        if not taken.level and taken.module:
            yield from (f"{taken.module}.{alias.name}" for alias in taken.names)


def undeclared(source: Source) -> Iterable[Finding]:
    """Modules that the program imports when it starts and that no requirement gives.

    Imports in a function, under `try` or for type checking are optional; scripts beside the program have needs of
    their own.
    """
    known = declared(source)
    if not known:
        return
    names = {one.name for one in known}
    given = {module.partition(".")[0] for name in names for module in modules_of(name) | parts_of(name)}
    given |= _local(source)
    sites: dict[str, list[tuple[PythonFile, int]]] = {}
    for file in source.core:
        if not _BESIDE.search(file.path):
            for name, line in _at_start(file):
                if name not in given and name not in sys.stdlib_module_names and not name.startswith("_"):
                    sites.setdefault(name, []).append((file, line))
    for name, places in sites.items():
        file, line = places[0]
        yield found(
            UNDECLARED,
            Severity.P2,
            file.path,
            line,
            f"{name} is imported in {len(places)} place{'s' * (len(places) > 1)}, and no requirement gives it",
            why="where it is not installed by chance, the program stops at this import",
            remedy=f"declare the distribution that gives {name}, or import it where it is optional",
        )


def _at_start(file: PythonFile) -> Iterator[tuple[str, int]]:
    imports: list[ast.Import | ast.ImportFrom] = [*file.of(ast.Import), *file.of(ast.ImportFrom)]
    for node in sorted(imports, key=lambda n: n.lineno):
        around = list(file.ancestors(node))
        if any(isinstance(a, (ast.Try, ast.If, ast.With)) for a in around) or file.function_of(node) is not None:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif not node.level and node.module:
            yield node.module.partition(".")[0], node.lineno


def _local(source: Source) -> set[str]:
    """Every folder and file of the repository that could be imported from somewhere."""
    return {part.removesuffix(".py") for file in source.python for part in file.path.split("/")}
