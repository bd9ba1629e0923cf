"""`source.tempfiles`: a temporary file or folder that nobody removes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import Function, PythonFile, Source, constant, dotted, keyword
from brainbrr_debug.records import Finding, Severity

ID = "source.tempfiles"
_REMOVES = re.compile(
    r"(^|\.)(unlink|remove|rmtree|rmdir|removedirs|cleanup|delete|rename|replace|move|_cleanup\w*|clean_?up\w*)$"
)


def tempfiles(source: Source) -> Iterable[Finding]:
    """Calls of `mkdtemp`, `mkstemp` and `NamedTemporaryFile(delete=False)` whose result no code near it removes.

    Near is the function; for an attribute of `self` the class; for what a function returns, whoever calls it.
    """
    for file in source.program:
        for call in file.of(ast.Call):
            kind = _leaking(file, call)
            if kind and not _removed(source, file, call):
                yield found(
                    ID,
                    Severity.P2,
                    file.path,
                    call.lineno,
                    f"{kind} is never removed",
                    why="each call leaves a file or folder in the temporary folder until the disk is full",
                    remedy="use `with tempfile.TemporaryDirectory() as folder:`, or remove it in a `finally`",
                )


def _leaking(file: PythonFile, call: ast.Call) -> str:
    name = file.name(call.func)
    if name in ("tempfile.mkdtemp", "tempfile.mkstemp"):
        return name
    if name == "tempfile.NamedTemporaryFile" and constant(keyword(call, "delete")) is False:
        return "NamedTemporaryFile(delete=False)"
    return ""


def _removed(source: Source, file: PythonFile, call: ast.Call) -> bool:
    function = file.function_of(call)
    places: list[ast.AST] = [function if function is not None else file.tree]
    owner = file.class_of(call)
    if owner is not None and _kept_by_self(file, call):
        places.append(owner)
    if any(_removes(place) for place in places):
        return True
    if not isinstance(function, Function) or not any(
        isinstance(n, (ast.Return, ast.Yield)) for n in ast.walk(function)
    ):
        return False
    return any(_removes(caller) for caller in _callers(source, function.name))


def _kept_by_self(file: PythonFile, call: ast.Call) -> bool:
    statement = next((a for a in file.ancestors(call) if isinstance(a, ast.stmt)), None)
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return any(isinstance(t, ast.Attribute) for t in targets)


def _removes(place: ast.AST) -> bool:
    """Whether anything in `place` removes, or hands something that removes to somebody who will call it."""
    for node in ast.walk(place):
        if isinstance(node, ast.Call):
            name = dotted(node.func) or getattr(node.func, "attr", "")
            handed = (
                [dotted(a) for a in node.args] if name.endswith(("register", "finalize", "callback", "push")) else []
            )
            if any(_REMOVES.search(n) for n in (name, *handed)):
                return True
    return False


def _callers(source: Source, name: str) -> Iterator[ast.AST]:
    for file in source.program:
        for call in file.of(ast.Call):
            if (dotted(call.func) or getattr(call.func, "attr", "")).rpartition(".")[2] == name:
                yield file.function_of(call) or file.tree
