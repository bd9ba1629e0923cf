"""`source.uncounted_sanitiser`: NaNs made into numbers without anybody hearing of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import PythonFile, Source, constant, dotted, keyword, walk, within
from brainbrr_debug.records import Finding, Severity

ID = "source.uncounted_sanitiser"
_LOOKS = {"isnan", "isfinite", "isinf", "isneginf", "isposinf", "count_nonfinite"}
_TRAINED = re.compile(
    r"(?i)(^|[._])(logits?|grads?|gradients?|loss(es)?|params?|weights?|outputs?|outs?|preds?|hidden\w*)$"
)


def uncounted_sanitiser(source: Source) -> Iterable[Finding]:
    """`nan_to_num`, a mask of `isnan` overwritten, and two-sided clamps of logits or gradients, in code of torch.

    Counted means: the same function also sums, counts, tests or logs what is not finite.
    """
    for file in source.core:
        if not any(name.split(".")[0] == "torch" for name in file.imports.values()):
            continue
        nodes: list[ast.Call | ast.Assign] = [*file.of(ast.Call), *file.of(ast.Assign)]
        for node in nodes:
            what = _sanitises(file, node)
            if what and not _beside(node) and not _counted(file, node):
                yield found(
                    ID,
                    Severity.P2,
                    file.path,
                    node.lineno,
                    f"{what} is not counted",
                    why="dead weights behind it give one constant and a loss that looks healthy",
                    remedy="count what it alters and report the count: `altered = (~torch.isfinite(x)).sum()`",
                )


def _sanitises(file: PythonFile, node: ast.Call | ast.Assign) -> str:
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        masked = (
            isinstance(target, ast.Subscript) and _looked(file, target.slice) and isinstance(node.value, ast.Constant)
        )
        return f"overwriting {ast.unparse(target)}" if masked else ""
    called = file.name(node.func) or getattr(node.func, "attr", "")
    last = called.rpartition(".")[2]
    if last in ("nan_to_num", "nan_to_num_") and not called.startswith(("numpy.", "jax.", "tensorflow.")):
        return last
    if last == "where" and called.startswith("torch.") and node.args and _looked(file, node.args[0]) and _fills(node):
        return f"torch.where({ast.unparse(node.args[0])}, …)"
    method = isinstance(node.func, ast.Attribute) and not called.startswith("torch.")
    clamped = node.func.value if method and isinstance(node.func, ast.Attribute) else next(iter(node.args), None)
    if last in ("clamp", "clamp_", "clip_") and clamped is not None and _two_sided(node, method=method):
        name = dotted(clamped)
        return f"{last} of {name}" if _TRAINED.search(name) else ""
    return ""


def _beside(node: ast.AST) -> bool:
    """A detached copy: a look at the numbers beside the graph."""
    return any(isinstance(n, ast.Attribute) and n.attr == "detach" for n in walk(node))


def _fills(call: ast.Call) -> bool:
    return any(isinstance(constant(a), (int, float)) for a in call.args[1:])


def _looked(file: PythonFile, node: ast.AST) -> bool:
    """Whether it asks a tensor; arrays are preprocessing, where a NaN is often a missing value."""
    calls = [n for n in walk(node) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") in _LOOKS]
    return any(not file.name(call.func).startswith("numpy.") for call in calls)


def _two_sided(call: ast.Call, *, method: bool) -> bool:
    bounds = len(call.args) - (0 if method else 1)
    return bounds + sum(keyword(call, name) is not None for name in ("min", "max")) >= 2


def _counted(file: PythonFile, node: ast.AST) -> bool:
    inside = set(walk(node))
    for other in within(file.function_of(node) or file.tree):
        if isinstance(other, ast.Call) and other not in inside:
            name = getattr(other.func, "attr", "") or getattr(other.func, "id", "")
            if name in _LOOKS or re.search(r"count|record|log|warn", name):
                return True
    return False
