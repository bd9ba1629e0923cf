"""Which fields of configuration classes the program reads: one by one, by name in a string, or all at once."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from brainbrr_debug.checks.source.config_classes import ConfigClass, ConfigClasses
from brainbrr_debug.checks.source.index import PythonFile, Source, called, constant, dotted, walk

_METHODS = {"model_dump", "dict", "to_dict", "as_dict", "asdict", "_asdict", "__dict__", "__dataclass_fields__"}
_METHODS |= {"__annotations__", "model_fields", "__fields__", "__attrs_attrs__"}
_FUNCTIONS = {"asdict", "vars", "astuple", "fields"}
"""What takes every field of an object at once."""
_STORES = {"setattr", "add_argument", "Field", "field", "replace", "Option", "option"}
_SHOWS = re.compile(
    r"(?i)dump|log|print|save|write|repr|str$|format|hash|len$|info|debug|warn|error|init|update|append|table|yaml|json|"
    r"sorted|copy|dict$|isinstance|type$|equal"
)
"""Calls that show, keep or compare what they are given: none of them acts on a single field."""
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
        for text in source.unparsed_texts:  # whatever stands in them may read a field
            self.attributes.update(re.findall(r"\w+", text))

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
            name = called(node)
            if name == "getattr" and len(node.args) > 1 and constant(node.args[1]) is None:
                self._read_whole(file, node.args[0])
            into_self = name == "setattr" and len(node.args) > 1 and dotted(node.args[0]) == "self"
            self.copied |= into_self and constant(node.args[1]) is None
            for spread in node.keywords:
                if spread.arg is None:  # `**config.part`, which a library's configuration allows
                    self.whole |= self._classes.types_of(dotted(spread.value).rpartition(".")[2])
        for taker, whole in _takers(file):
            nodes: list[ast.expr] = [taker, *_names_for(file, taker)]
            if any(_spread_or_iterated(file, node) for node in nodes):
                self._read_whole(file, whole)
            elif any(_handed_on(file, node) for node in nodes):
                self.whole |= self._classes_of(file, whole)

    def _read_whole(self, file: PythonFile, value: ast.expr) -> None:
        """Every field of what `value` may be is read: of its class where known, else of each the file speaks of."""
        name = dotted(value)
        known = self._classes_of(file, value)
        if name in ("self", "cls"):
            around = file.class_of(value)
            self.whole.add(around.name if around else "")
        elif known:
            self.whole |= known
        elif _CONFIG_LIKE.search(name):
            here = {n.id for n in file.of(ast.Name)} | {n.name for n in file.of(ast.ClassDef)}
            self.whole |= here & self._classes.names

    def _classes_of(self, file: PythonFile, value: ast.expr) -> set[str]:
        """The configuration classes that `value` is known to be of."""
        name = dotted(value)
        last = name.rpartition(".")[2]
        return (_class_of_name(file, value, name) | {last}) & self._classes.names | self._classes.types_of(last)


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
        return called(parent) not in _STORES
    return not isinstance(
        parent, (ast.Assign, ast.AnnAssign, ast.keyword, ast.arguments, ast.FormattedValue, ast.JoinedStr)
    )


def _takers(file: PythonFile) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What holds every field of an object, and that object: `asdict(x)`, `x.model_dump()`, `x.__dict__`."""
    for node in file.of(ast.Attribute):
        if node.attr in _METHODS:
            yield node, node.value
    for call in file.of(ast.Call):
        if call.args and dotted(call.func).rpartition(".")[2] in _FUNCTIONS:
            yield call, call.args[0]


def _names_for(file: PythonFile, node: ast.expr) -> Iterator[ast.Name]:
    """Where the function says a name that it has assigned `node`, or something made of it."""
    function = file.function_of(node)
    for around in file.ancestors(node):
        if isinstance(around, ast.Assign):
            names = {target.id for target in around.targets if isinstance(target, ast.Name)}
            yield from (n for n in file.of(ast.Name) if n.id in names and file.function_of(n) is function)


def _handed_on(file: PythonFile, node: ast.expr) -> bool:
    """Whether a call is given it that does more than show or keep it: `Model(args=asdict(config))`."""
    around = file.parent(node)
    if isinstance(around, ast.Call) and around.func is node:
        node, around = around, file.parent(around)
    call = file.parent(around) if isinstance(around, ast.keyword) else around
    if not isinstance(call, ast.Call) or call.func is node:
        return False
    return not _SHOWS.search(called(call))


def _spread_or_iterated(file: PythonFile, node: ast.expr) -> bool:
    """Whether it stands behind `*` or `**` in a call, or in what a loop or comprehension runs over."""
    inner: ast.AST = node
    for around in file.ancestors(node):
        if isinstance(around, ast.keyword) and around.arg is None:
            return True
        if isinstance(around, ast.Call) and isinstance(inner, ast.Starred):
            return True
        if isinstance(around, (ast.For, ast.comprehension)) and around.iter is inner:
            return True
        if isinstance(around, ast.stmt):
            return False
        inner = around
    return False


def _class_of_name(file: PythonFile, at: ast.expr, name: str) -> set[str]:
    """The classes that the annotation of a parameter, or the assignment of a variable, gives `name`."""
    found: set[str] = set()
    function = file.function_of(at)
    if function is not None:
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.arg == name and argument.annotation is not None:
                found |= set(re.findall(r"\w+", ast.unparse(argument.annotation)))
    for node in walk(function or file.tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and name in map(dotted, node.targets):
            found |= set(dotted(node.value.func).split("."))
    return found
