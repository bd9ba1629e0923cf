"""Which fields of configuration classes the program reads: one by one, by name in a string, or all at once."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from brainbrr_debug.checks.source.config_classes import ConfigClass, ConfigClasses
from brainbrr_debug.checks.source.index import PythonFile, Source, constant, dotted

_METHODS = {"model_dump", "dict", "to_dict", "as_dict", "asdict", "_asdict", "__dict__", "__dataclass_fields__"}
_METHODS |= {"__annotations__", "model_fields", "__fields__", "__attrs_attrs__"}
_FUNCTIONS = {"asdict", "vars", "astuple", "fields"}
"""What takes every field of an object at once."""
_STORES = {"setattr", "add_argument", "Field", "field", "replace", "Option", "option"}
_CONFIG_LIKE = re.compile(r"(?i)(config|cfg|conf|args|opts?|options|params|hparams|settings|self|cls)$")


class Reads:
    """What is read, collected in one pass over the program (tests do not count: a test of a dead field is no use)."""

    def __init__(self, source: Source, classes: ConfigClasses) -> None:
        self._classes = classes
        self.attributes: set[str] = set()
        self.own: dict[str, set[str]] = defaultdict(set)
        self.strings: set[str] = set()
        self.whole: set[str] = set()
        self.copied = False  # whether fields are copied into other objects by computed names
        for file in source.program:
            self._attributes(file)
            self._strings(file)
            self._matches(file)
            self._whole(file)

    def read(self, owner: ConfigClass, field: str) -> bool:
        """Whether any expression of the program reads `field` of `owner`."""
        if field in self.attributes or field in self.strings:
            return True
        for name, read in self.own.items():
            if field in read and (self.copied or self._classes.related(owner.name, name)):
                return True
        return any(self._classes.related(owner.name, name) for name in self.whole)

    def _attributes(self, file: PythonFile) -> None:
        for node in file.of(ast.Attribute):
            if isinstance(node.ctx, ast.Load) and not self._forwarded(file, node):
                if dotted(node.value) in ("self", "cls"):
                    around = file.class_of(node)
                    self.own[around.name if around else ""].add(node.attr)
                else:
                    self.attributes.add(node.attr)

    def _forwarded(self, file: PythonFile, node: ast.Attribute) -> bool:
        """`Other(x=config.x)`: handed on to the field of the same name, which somebody must read in turn."""
        passed = file.parent(node)
        call = file.parent(passed) if isinstance(passed, ast.keyword) and passed.arg == node.attr else None
        return isinstance(call, ast.Call) and dotted(call.func).rpartition(".")[2] in self._classes.names

    def _strings(self, file: PythonFile) -> None:
        for node in file.of(ast.Constant):
            if isinstance(node.value, str) and node.value.isidentifier() and _reads_by_name(file, node):
                self.strings.add(node.value)

    def _matches(self, file: PythonFile) -> None:
        for pattern in file.of(ast.MatchClass):
            self.attributes.update(pattern.kwd_attrs)

    def _whole(self, file: PythonFile) -> None:
        for node in file.of(ast.Call):
            name = dotted(node.func).rpartition(".")[2] or getattr(node.func, "attr", "")
            if name == "getattr" and len(node.args) > 1 and constant(node.args[1]) is None:
                self._read_whole(file, node.args[0], spread=False)
            into_self = name == "setattr" and len(node.args) > 1 and dotted(node.args[0]) == "self"
            self.copied |= into_self and constant(node.args[1]) is None
            spread = [k.value for k in node.keywords if k.arg is None]
            spread += [a.value for a in node.args if isinstance(a, ast.Starred)]
            for value in spread:
                for whole in _taken_whole(file, value):
                    self._read_whole(file, whole, spread=True)
        iterated = [loop.iter for loop in file.of(ast.For)] + [part.iter for part in file.of(ast.comprehension)]
        for value in iterated:
            for whole in _taken_whole(file, value):
                self._read_whole(file, whole, spread=False)

    def _read_whole(self, file: PythonFile, value: ast.expr, *, spread: bool) -> None:
        """Every field of what `value` may be is read: of its class where known, else of each the file speaks of."""
        name = dotted(value)
        last = name.rpartition(".")[2]
        known = (_class_of_name(file, value, name) | self._classes.types_of(last) | {last}) & self._classes.names
        if name in ("self", "cls"):
            around = file.class_of(value)
            self.whole.add(around.name if around else "")
        elif known:
            self.whole |= known
        elif _CONFIG_LIKE.search(name):
            here = {n.id for n in file.of(ast.Name)} | {n.name for n in file.of(ast.ClassDef)}
            self.whole |= here & self._classes.names


def _reads_by_name(file: PythonFile, node: ast.Constant) -> bool:
    """A string that may name a field which is read: not a key that is written, not a documentation string."""
    parent = file.parent(node)
    if isinstance(parent, ast.Expr):
        return False
    if isinstance(parent, ast.Dict):
        return node not in parent.keys
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.ctx, ast.Load)
    if isinstance(parent, ast.Call):
        return (dotted(parent.func).rpartition(".")[2] or getattr(parent.func, "attr", "")) not in _STORES
    return not isinstance(
        parent, (ast.Assign, ast.AnnAssign, ast.keyword, ast.arguments, ast.FormattedValue, ast.JoinedStr)
    )


def _taken_whole(file: PythonFile, value: ast.expr) -> Iterator[ast.expr]:
    """The objects whose fields `value` holds all of: `asdict(x)`, `x.model_dump()`, `x.__dict__`, also by a name."""
    for node in [value, *_assigned(file, value)]:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and inner.attr in _METHODS:
                yield inner.value
            elif isinstance(inner, ast.Call) and dotted(inner.func).rpartition(".")[2] in _FUNCTIONS and inner.args:
                yield inner.args[0]


def _assigned(file: PythonFile, value: ast.expr) -> Iterator[ast.expr]:
    function = file.function_of(value)
    for node in ast.walk(value):
        for assigned in file.assigned.get(node.id, ()) if isinstance(node, ast.Name) else ():
            if file.function_of(assigned) is function:
                yield assigned


def _class_of_name(file: PythonFile, at: ast.expr, name: str) -> set[str]:
    """The classes that the annotation of a parameter, or the assignment of a variable, gives `name`."""
    found: set[str] = set()
    function = file.function_of(at)
    if function is not None:
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.arg == name and argument.annotation is not None:
                found |= set(re.findall(r"\w+", ast.unparse(argument.annotation)))
    for node in ast.walk(function or file.tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and name in map(dotted, node.targets):
            found |= set(dotted(node.value.func).split("."))
    return found
