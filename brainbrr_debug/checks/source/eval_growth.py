"""`source.eval_growth`: an evaluation that keeps what the model made of every batch until the loop ends."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import PythonFile, Source, called, dotted, walk, within
from brainbrr_debug.checks.source.volumes import Volumes
from brainbrr_debug.records import Finding, Severity

ID = "source.eval_growth"
_LOADER = re.compile(
    r"(?i)(loader|dataset|data|batch(es)?|dl|iter(ator)?|samples|subjects|cases|set|records|recordings)$"
)
_WRAPPERS = {
    "enumerate",
    "tqdm",
    "zip",
    "iter",
    "islice",
    "track",
    "trange",
    "prefetch",
    "progress",
    "list",
    "reversed",
}
_WHOLE = {"cat", "concat", "concatenate", "stack", "vstack", "hstack", "array", "asarray", "dstack"}
_SMALL = {"len", "sum", "print", "mean", "min", "max", "any", "all", "bool", "isinstance", "float", "range", "append"}

Loop = ast.For | ast.AsyncFor


def eval_growth(source: Source) -> Iterable[Finding]:
    """Appends of tensors in a loop over batches without gradients, to a list that is later used as a whole.

    Numbers (`.item()`, means, what a metric returns) may be kept: they are small, and told from tensors by where they
    come from (see `Volumes`).
    """
    for file in source.core:
        loops: list[Loop] = [*file.of(ast.For), *file.of(ast.AsyncFor)]
        for loop in loops:
            if _over_batches(loop) and _evaluates(file, loop):
                yield from _kept(file, loop)


def _evaluates(file: PythonFile, loop: Loop) -> bool:
    function = file.function_of(loop)
    if getattr(function, "name", "") in ("forward", "__call__", "__getitem__", "step", "training_step"):
        return False
    calls = [n for n in within(loop) if isinstance(n, ast.Call)]
    if any(getattr(c.func, "attr", "") == "backward" for c in calls):
        return False
    if any(_without_gradient(d) for d in getattr(function, "decorator_list", ())):
        return True
    withs = [a for a in file.ancestors(loop) if isinstance(a, ast.With)] + [
        n for n in within(loop) if isinstance(n, ast.With)
    ]
    if any(_without_gradient(item.context_expr) for w in withs for item in w.items):
        return True
    return any(
        isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "eval" and not n.args and n.lineno <= loop.lineno
        for n in within(function or file.tree)
    )


def _without_gradient(node: ast.expr) -> bool:
    name = dotted(node.func if isinstance(node, ast.Call) else node)
    return name.rpartition(".")[2] in ("no_grad", "inference_mode")


def _over_batches(loop: Loop) -> bool:
    """Over a loader, or over indices that a data set is asked for within the loop."""
    expression = loop.iter
    while isinstance(expression, ast.Call):
        name = dotted(expression.func).rpartition(".")[2]
        if name == "range":
            return _asks_a_dataset(loop)
        if name not in _WRAPPERS or not expression.args:
            return _LOADER.search(name) is not None
        expression = expression.args[0]
    return _LOADER.search(dotted(expression)) is not None or _asks_a_dataset(loop)


def _asks_a_dataset(loop: Loop) -> bool:
    index = dotted(loop.target)
    return bool(index) and any(
        isinstance(n, ast.Subscript) and dotted(n.slice) == index and _LOADER.search(dotted(n.value)) is not None
        for n in within(loop)
    )


def _kept(file: PythonFile, loop: Loop) -> Iterator[Finding]:
    volumes = Volumes(loop)
    for node, kept in volumes.kept():
        if volumes.made_in_loop(kept):
            continue
        how = _used_whole(file, loop, kept)
        if how:
            yield found(
                ID,
                Severity.P2,
                file.path,
                node.lineno,
                f"{kept} keeps the tensors of every batch, and is {how} after the loop",
                why="memory grows with the number of batches: full volumes or windows of a whole split at once",
                remedy="reduce each batch to the counts or scores that the metric needs, and keep only those",
            )


def _used_whole(file: PythonFile, loop: Loop, kept: str) -> str:
    place: ast.AST | None = file.function_of(loop)
    if kept.startswith("self."):
        place = file.class_of(loop)
    for node in walk(place or file.tree):
        if isinstance(node, ast.Call) and any(
            kept in _names(a) for a in (*node.args, *(k.value for k in node.keywords))
        ):
            name = called(node)
            if name in _WHOLE:
                return f"joined by {name}"
            if node.lineno > loop.lineno and name not in _SMALL:
                return f"handed to {name or 'a call'}"
        if isinstance(node, ast.Return) and node.value is not None and kept in _names(node.value):
            return "returned"
    return ""


def _names(node: ast.expr) -> set[str]:
    """The names that `node` is, holds in a tuple, list or dict, or takes an element of."""
    if isinstance(node, (ast.Tuple, ast.List)):
        return {name for e in node.elts for name in _names(e)}
    if isinstance(node, ast.Dict):
        return {name for e in node.values for name in _names(e)}
    return {dotted(node.value if isinstance(node, ast.Subscript) else node)} - {""}
