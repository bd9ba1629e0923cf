"""Which names of a loop over batches hold tensors as large as a batch, and which lists collect them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from brainbrr_debug.checks.source.index import dotted, walk, within

_MODEL = re.compile(
    r"(?i)(^|[._])(\w*model|\w*net|network|unet|module|encoder|decoder|classifier|detector|forward|predict\w*|"
    r"infer\w*|sliding_window_inference|segment\w*|generator)$"
)
_SAME_SIZE = {
    "cpu",
    "detach",
    "numpy",
    "float",
    "half",
    "double",
    "long",
    "int",
    "bool",
    "clone",
    "to",
    "cuda",
    "squeeze",
    "unsqueeze",
    "argmax",
    "sigmoid",
    "softmax",
    "log_softmax",
    "view",
    "reshape",
    "permute",
    "transpose",
    "flatten",
    "contiguous",
    "round",
    "astype",
    "type",
    "ravel",
    "copy",
    "tolist",
    "exp",
    "expand",
    "clamp",
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
    "interpolate",
    "asarray",
    "array",
    "as_tensor",
    "tensor",
    "from_numpy",
    "relu",
    "tanh",
    "swapaxes",
    "moveaxis",
    "get",
    "pop",
    "concatenate",
    "cat",
    "stack",
    "gather",
    "all_gather",
    "gather_for_metrics",
    "data",
    "unwrap",
}
"""Methods and functions that keep the size of what they get, within the number of classes."""
_NOT_SIZED = {"shape", "size", "device", "dtype", "ndim", "loss"}


class Volumes:
    """The batch-sized tensors of one loop, followed through its assignments.

    The loop's own variables are batch-sized, and so is what a model or an operation of `_SAME_SIZE` makes of something
    batch-sized. What any other function returns is taken for small: metrics return numbers.
    """

    def __init__(self, loop: ast.For | ast.AsyncFor) -> None:
        self.loop = loop
        self.names = set(_bound(loop.target, skip_first=_counts(loop.iter)))
        if _is_range(loop.iter):
            self.names.clear()
        self._stores: set[str] = set()
        for _ in range(2):  # a name may be used above the line that assigns it, in the next turn
            for statement in loop.body:
                self._follow(statement)

    def _follow(self, statement: ast.stmt) -> None:
        for node in sorted((n for n in within(statement) if hasattr(n, "lineno")), key=lambda n: n.lineno):
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self._assign(target, large=self.large(node.value))
            elif isinstance(node, ast.Call) and _adds(node) and self.large(node.args[0]):
                self.names.add(_collection(node.func.value))  # type: ignore[attr-defined]
            elif isinstance(node, (ast.For, ast.AsyncFor)):
                self._assign(node.target, large=any(self.large(e) for e in _iterated(node.iter)))

    def _assign(self, target: ast.expr, *, large: bool) -> None:
        for name in _bound(target):
            self._stores.add(name)
            (self.names.add if large else self.names.discard)(name)

    def made_in_loop(self, name: str) -> bool:
        """Whether the loop itself makes `name` anew in each turn."""
        return name in self._stores and name not in self._joined()

    def _joined(self) -> set[str]:
        return {kept for node, kept in self.kept() if isinstance(node, ast.Assign)}

    def large(self, node: ast.expr) -> bool:
        """Whether `node` is as large as a batch."""
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.Attribute):
            return node.attr not in _NOT_SIZED and self.large(node.value)
        if isinstance(node, ast.Call):
            return self._large_call(node)
        if isinstance(node, ast.Subscript):
            return self.large(node.value) or (_asked(node) and not self.names.isdisjoint(_index_names(node)))
        if isinstance(node, ast.Dict):
            return any(self.large(v) for v in node.values)
        parts = {ast.BinOp: ("left", "right"), ast.UnaryOp: ("operand",), ast.IfExp: ("body", "orelse")}
        if isinstance(node, ast.Compare):
            return self.large(node.left)
        if isinstance(node, (ast.Tuple, ast.List)):
            return any(self.large(e) for e in node.elts)
        if isinstance(node, ast.ListComp):
            return any(self.large(e) for g in node.generators for e in _iterated(g.iter)) and not _reduces(node.elt)
        return any(self.large(getattr(node, part)) for part in parts.get(type(node), ()))

    def _large_call(self, call: ast.Call) -> bool:
        name = dotted(call.func) or getattr(call.func, "attr", "")
        if _MODEL.search(name):
            return True
        last = name.rpartition(".")[2]
        of_method = isinstance(call.func, ast.Attribute) and self.large(call.func.value)
        return last in _SAME_SIZE and (of_method or any(self.large(a) for a in call.args))

    def kept(self) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
        """Where the loop adds something batch-sized to a collection, and the collection's name."""
        for statement in self.loop.body:
            for node in within(statement):
                if isinstance(node, ast.Call) and _adds(node) and self.large(node.args[0]):
                    yield node, _collection(node.func.value)  # type: ignore[attr-defined]
                elif isinstance(node, ast.AugAssign) and isinstance(node.value, ast.List) and self.large(node.value):
                    yield node, _collection(node.target)
                elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                    target = _collection(node.targets[0])
                    joins = getattr(node.value.func, "attr", "") in ("cat", "concatenate", "concat", "vstack", "hstack")
                    if joins and target and target in _inside(node.value) and self.large(node.value):
                        yield node, target


def _adds(call: ast.Call) -> bool:
    return getattr(call.func, "attr", "") in ("append", "extend", "appendleft") and len(call.args) == 1


def _collection(node: ast.expr) -> str:
    return dotted(node.value if isinstance(node, ast.Subscript) else node)


def _inside(call: ast.Call) -> set[str]:
    return {dotted(e) for a in call.args for e in (a.elts if isinstance(a, (ast.Tuple, ast.List)) else [a])}


def _bound(target: ast.expr, *, skip_first: bool = False) -> list[str]:
    """The names (dotted ones too) that an assignment to `target` binds."""
    if isinstance(target, (ast.Tuple, ast.List)):
        return [name for e in target.elts[skip_first:] for name in _bound(e)]
    if isinstance(target, ast.Starred):
        return _bound(target.value)
    return [dotted(target)] if dotted(target) else []


def _counts(iterated: ast.expr) -> bool:
    return isinstance(iterated, ast.Call) and dotted(iterated.func) == "enumerate"


def _is_range(iterated: ast.expr) -> bool:
    inner = iterated
    while isinstance(inner, ast.Call) and inner.args and dotted(inner.func) != "range":
        inner = inner.args[0]
    return isinstance(inner, ast.Call)


def _iterated(expression: ast.expr) -> list[ast.expr]:
    return list(expression.args) if isinstance(expression, ast.Call) and expression.args else [expression]


def _asked(node: ast.Subscript) -> bool:
    return re.search(r"(?i)(dataset|data|set|samples)$", dotted(node.value)) is not None


def _index_names(node: ast.Subscript) -> set[str]:
    return {n.id for n in walk(node.slice) if isinstance(n, ast.Name)}


def _reduces(element: ast.expr) -> bool:
    return (
        isinstance(element, ast.Call)
        and getattr(element.func, "attr", getattr(element.func, "id", "")) not in _SAME_SIZE
    )
