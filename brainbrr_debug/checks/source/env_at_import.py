"""`source.env_at_import`: the environment read when a module is imported, so that setting it later does nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import PythonFile, Source, constant
from brainbrr_debug.records import Finding, Severity

ID = "source.env_at_import"
_READS = {"os.environ.get", "os.getenv", "os.environb.get"}


def env_at_import(source: Source) -> Iterable[Finding]:
    """Reads of `os.environ` at the level of a module or class, or in a default, of a module that others import."""
    imported = _imported(source)
    for file in source.core:
        if file not in imported or "env" not in file.text:
            continue
        reads: list[ast.Call | ast.Subscript] = [*file.of(ast.Call), *file.of(ast.Subscript)]
        for node in reads:
            variable = _variable(file, node)
            if variable and _at_import(file, node) and not _when_run(file, node):
                yield found(
                    ID,
                    Severity.P2,
                    file.path,
                    node.lineno,
                    f"{variable} is read when the module is imported",
                    why="a program, test or notebook that sets the variable after the import is ignored in silence",
                    remedy="read it in the function that needs it",
                )


def _variable(file: PythonFile, node: ast.Call | ast.Subscript) -> str:
    """The name of the variable that `node` reads, "" where it reads none."""
    if isinstance(node, ast.Call) and file.name(node.func) in _READS and node.args:
        return _spelled(node.args[0])
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and file.name(node.value) == "os.environ":
        return _spelled(node.slice)
    return ""


def _spelled(name: ast.expr) -> str:
    value = constant(name)
    return value if isinstance(value, str) else f"the variable {ast.unparse(name)}"


def _at_import(file: PythonFile, node: ast.AST) -> bool:
    """At the level of the module or a class, or in a default: those are computed when the function is defined."""
    default = False
    for around in file.ancestors(node):
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not default:
            return False
        default = isinstance(around, ast.arguments)
    return True


def _when_run(file: PythonFile, node: ast.AST) -> bool:
    """Within `if __name__ == "__main__":`, or a value that is set again at once (`environ["A"] = environ["B"]`)."""
    for around in file.ancestors(node):
        if isinstance(around, ast.If) and "__name__" in ast.unparse(around.test):
            return True
        if isinstance(around, ast.Assign) and any("environ" in ast.unparse(t) for t in around.targets):
            return True
    return False


def _imported(source: Source) -> set[PythonFile]:
    """The modules that another file of the repository imports."""
    modules: set[PythonFile] = set()
    for file in source.python:
        for name in file.imports.values():
            for candidate in (name, name.rpartition(".")[0]):
                module = source.modules.get(candidate)
                if module is not None and module is not file:
                    modules.add(module)
    return modules
