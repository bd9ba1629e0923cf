"""`source.swallow`: a broad `except` after which nobody can know that anything went wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import PythonFile, Source, constant, dotted, within
from brainbrr_debug.records import Finding, Severity

ID = "source.swallow"
_BROAD = {"Exception", "BaseException", "builtins.Exception", "builtins.BaseException"}
_TELLS = re.compile(
    r"(?i)(^|[._])(log\w*|print\w*|pprint|warn\w*|error|exception|critical|info|debug|echo|exit|_exit|abort|fail\w*|"
    r"report\w*|record\w*|notify\w*|exc_info|format_exc|print_exc|traceback|skip\w*|add_note|write|secho|"
    r"showwarning|message|rprint|toast|emit\w*|handle_\w*|on_error|put|capture_exception|breakpoint|set_trace)$"
)
"""Last part of the name of a call that tells somebody."""
_PROBE = re.compile(
    r"(?i)^_*(is|has|have|can|supports?|check|detect|probe|test|try)_|_?(available|supported|exists|installed)$"
)
_CLEANING = re.compile(
    r"(^|[._])(close|shutdown|unlink|remove|rmtree|rmdir|kill|terminate|join|cleanup|destroy\w*|release|stop|flush|"
    r"disconnect|finish|empty_cache|removeHandler|detach|delete|unregister\w*|cancel)$"
)
_ASIDE = {"__del__", "__exit__", "__aexit__", "__repr__", "__str__", "close", "cleanup", "shutdown", "teardown"}


def swallow(source: Source) -> Iterable[Finding]:
    """Broad handlers that neither raise, nor tell anybody, nor look at the exception, nor count.

    Not meant: guards of optional imports, probes that answer no by returning False, and clearing up.
    """
    for file in source.core:
        for handler in file.of(ast.ExceptHandler):
            if _broad(file, handler) and not _tells(handler):
                around = file.parent(handler)
                if isinstance(around, ast.Try) and not _benign(file, around, handler):
                    yield _finding(file, around, handler)


def _broad(file: PythonFile, handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or file.name(kind) in _BROAD for kind in kinds)


def _tells(handler: ast.ExceptHandler) -> bool:
    for statement in handler.body:
        for node in within(statement):
            if isinstance(node, (ast.Raise, ast.AugAssign, ast.Assert, ast.Yield)):
                return True
            if isinstance(node, ast.Name) and node.id == handler.name:
                return True
            if isinstance(node, ast.Call) and _TELLS.search(_called(node)):
                return True
    return False


def _called(call: ast.Call) -> str:
    return dotted(call.func) or (call.func.attr if isinstance(call.func, ast.Attribute) else "")


def _benign(file: PythonFile, around: ast.Try, handler: ast.ExceptHandler) -> bool:
    if all(isinstance(s, (ast.Import, ast.ImportFrom)) or _flag(s) for s in around.body):
        return True
    function = file.function_of(around)
    name = getattr(function, "name", "")
    if name in _ASIDE or name.lstrip("_").startswith(("cleanup", "teardown")):
        return True
    if all(_clearing(s) for s in around.body):
        return True
    return any(_answers_no(s, probe=_PROBE.search(name) is not None) for s in handler.body)


def _flag(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)


def _clearing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return all(_clearing(s) for s in [*statement.body, *statement.orelse])
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and _CLEANING.search(_called(statement.value)) is not None
    )


def _answers_no(statement: ast.stmt, *, probe: bool) -> bool:
    """`return False` says that it did not work; None does where the function's name asks."""
    if isinstance(statement, ast.Return) and statement.value is not None:
        return constant(statement.value) is False
    return probe and isinstance(statement, ast.Return)


def _finding(file: PythonFile, around: ast.Try, handler: ast.ExceptHandler) -> Finding:
    success = next((s.value for s in handler.body if isinstance(s, ast.Return) and constant(s.value) is True), None)
    kind = f"except {ast.unparse(handler.type)}" if handler.type is not None else "bare except"
    then = f"returns {ast.unparse(success)}, which means success" if success is not None else "hides every error"
    return found(
        ID,
        Severity.P1 if success is not None else Severity.P2,
        file.path,
        handler.lineno,
        f"{kind} {then}: nothing is raised, logged or counted",
        why=f"whatever goes wrong in lines {around.body[0].lineno}–{around.body[-1].end_lineno}, a typing error "
        "included, looks like a normal run",
        remedy="catch the exceptions that are expected by name, and log or count them; let the others through",
    )
