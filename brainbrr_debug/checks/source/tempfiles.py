"""`source.tempfiles`: a temporary file or folder that nobody removes."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterable

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import Function, PythonFile, Source, called, constant, dotted, keyword, walk
from brainbrr_debug.records import Finding, Severity

ID = "source.tempfiles"
_REMOVES = re.compile(
    r"(^|\.)(unlink|remove|rmtree|rmdir|removedirs|cleanup|delete|rename|replace|move|_cleanup\w*|clean_?up\w*)$"
)

_TIDIES = re.compile(r"clean|clear|remove|delete|flush|purge|discard|tear_?down|dispose|drop|unlink|prune|destroy|rm")
_DELETES = re.compile(r"(^|\.)(unlink|remove|rmtree|rmdir|removedirs)$")
_REMEMBERED = re.compile(r"(^|\.)set_(config|setting|option)$")
"""What is written into somebody's settings is meant to stay."""
_FLAG = re.compile(r"(delete|remove|clean)_?(up)?_?(te?mp|dir|files?|folder)")
_CALLS_BACK = ("register", "finalize", "callback", "push", "partial", "add_task")
_DEEPEST = 3
"""So many times a temporary name is followed to whoever calls the function that returns it."""


def tempfiles(source: Source) -> Iterable[Finding]:
    """Calls of `mkdtemp`, `mkstemp` and `NamedTemporaryFile(delete=False)` whose result no code near it removes.

    Near is the function; the class or module for what an attribute or a table keeps; whoever calls a function for what
    it returns.
    """
    files = [file for file in source.core if "tempfile" in file.text]
    leaking = [(file, call, kind) for file in files for call in file.of(ast.Call) if (kind := _leaking(file, call))]
    removers = _removers(source) if leaking else frozenset()
    for file, call, kind in leaking:
        if not _removed(source, file, call, removers):
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


def _removed(source: Source, file: PythonFile, call: ast.Call, removers: Container[str], depth: int = _DEEPEST) -> bool:
    """Whether what the call gives is removed near it, or by a caller of the function that returns it."""
    function = file.function_of(call)
    place: ast.AST = function if function is not None else file.tree
    if _within_another(place, call):
        return True
    names, keeper = _bound(place, call)
    kept_in = (file.class_of(call) if keeper == "self" else None) or file.tree
    if _removes(place, removers) or (keeper and _removes(kept_in, removers)):
        return True
    if not depth or not isinstance(function, Function) or not _returned(function, call, names):
        return False
    callers = source.calls.get(function.name, ())
    return any(_removed(source, calling, above, removers, depth - 1) for calling, above in callers)


def _returned(function: Function, call: ast.Call, names: Container[str]) -> bool:
    """Whether the function returns or yields the call, or one of the names that it is bound to."""
    given = [n.value for n in walk(function) if isinstance(n, (ast.Return, ast.Yield)) and n.value is not None]
    return any(n is call or (isinstance(n, ast.Name) and n.id in names) for value in given for n in walk(value))


def _within_another(place: ast.AST, call: ast.Call) -> bool:
    """Whether it lies in a `TemporaryDirectory` of the same function, which goes as a whole."""
    folder = dotted(keyword(call, "dir") or call)
    items = [item for node in walk(place) if isinstance(node, ast.With) for item in node.items]
    return bool(folder) and any(
        isinstance(item.context_expr, ast.Call)
        and dotted(item.context_expr.func).endswith("TemporaryDirectory")
        and item.optional_vars is not None
        and dotted(item.optional_vars) == folder
        for item in items
    )


def _removers(source: Source) -> frozenset[str]:
    """The functions named for it that remove what they are given, or hand it on: `def drop(path): rmtree(path)`."""
    named = [function for file in source.program for function in file.functions if _TIDIES.search(function.name)]
    handed = {id(function): _given_to(function) for function in named}
    removers: set[str] = set()
    while more := {f.name for f in named if any(_DELETES.search(c) or c in removers for c in handed[id(f)])} - removers:
        removers |= more
    return frozenset(removers)


def _given_to(function: Function) -> set[str]:
    """The functions to which it hands a parameter, or of which a parameter is the object."""
    arguments = function.args
    given = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {"self", "cls"}
    calls = [node for node in walk(function) if isinstance(node, ast.Call)]
    handing = [call for call in calls if any(isinstance(n, ast.Name) and n.id in given for n in walk(call))]
    return {called(call) for call in handing}


def _bound(function: ast.AST, call: ast.Call) -> tuple[set[str], str]:
    """The names that the call is bound to, and what keeps it as an attribute or element: "self", a name, or ""."""
    names: set[str] = set()
    statements = [n for n in walk(function) if isinstance(n, (ast.Assign, ast.With))]
    for node in sorted(statements, key=lambda n: n.lineno):
        if isinstance(node, ast.With):
            for item in node.items:
                if call in walk(item.context_expr) and item.optional_vars is not None:
                    names.add(dotted(item.optional_vars))
            continue
        inside = set(walk(node.value))
        if call in inside or any(isinstance(n, ast.Name) and n.id in names for n in inside):
            targets = [one for t in node.targets for one in (t.elts if isinstance(t, ast.Tuple) else [t])]
            for target in targets:
                if isinstance(target, (ast.Attribute, ast.Subscript)):
                    return names, dotted(target.value).partition(".")[0]
            names |= set(map(dotted, targets))
    return names, ""


def _removes(place: ast.AST, removers: Container[str]) -> bool:
    """Whether anything in `place` removes, calls one of `removers`, or tells another to: a callback, `delete=True`."""
    for node in walk(place):
        if isinstance(node, ast.keyword) and _FLAG.search(node.arg or ""):
            return True
        if isinstance(node, ast.Call):
            name = dotted(node.func) or getattr(node.func, "attr", "")
            handed = [n for a in node.args for n in walk(a)] if name.endswith(_CALLS_BACK) else []
            if (
                called(node) in removers
                or _REMOVES.search(name)
                or _REMEMBERED.search(name)
                or any(_REMOVES.search(dotted(n)) for n in handed)
            ):
                return True
    return False
