"""The classes of a repository that hold configuration: dataclasses, pydantic, attrs, named tuples; and their fields."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import cast

from brainbrr_debug.checks.source.index import PythonFile, Source, dotted, walk

_NAMED = re.compile(
    r"(Config|Configs|Configuration|Cfg|Args|Arguments|Settings|Options|Opts|Params|Parameters|H[Pp]arams)$"
)
_FOLDER = re.compile(r"(^|/)(configs?|configuration|settings)(/|\.py$)|_config\.py$")
_BASES = {"BaseModel", "BaseSettings", "NamedTuple", "Struct"}
_DECORATORS = {"dataclass", "define", "frozen", "mutable", "attrs", "s", "pydantic_dataclass"}
_CLASS_LEVEL = {"ClassVar", "PrivateAttr"}
_PLAIN = {"object", "Generic", "ABC", "Enum"}
"""Bases that read no field: any other from outside the repository belongs to a library that may read them all."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ConfigClass:
    """One configuration class: its fields with the line of each."""

    name: str
    file: PythonFile
    fields: Mapping[str, int]


class ConfigClasses:
    """All of them, and who is related to whom."""

    def __init__(self, source: Source) -> None:
        self._all = [(file, node) for file in source.program for node in file.of(ast.ClassDef)]
        self.bases: dict[str, set[str]] = {}
        for _, node in self._all:
            # `class Args(library.Args)`: a base of the same name is another class, from elsewhere
            bases = {f"another {name}" if name == node.name else name for name in _base_names(node)}
            self.bases.setdefault(node.name, set()).update(bases)

    @cached_property
    def classes(self) -> list[ConfigClass]:
        """The configuration classes of the program; tests have none."""
        return [c for file, node in self._all if (c := self._config(file, node)) is not None and c.fields]

    @cached_property
    def names(self) -> frozenset[str]:
        """Their names."""
        return frozenset(c.name for c in self.classes)

    def types_of(self, field: str) -> set[str]:
        """The configuration classes that annotations of fields of this name speak of, in whatever class."""
        return self._types.get(field, set()) & self.names

    @cached_property
    def _types(self) -> Mapping[str, set[str]]:
        words: dict[str, set[str]] = defaultdict(set)
        for _, node in self._all:
            for statement in _fields(node):
                words[statement.target.id] |= _words(statement.annotation)
        return words

    def related(self, name: str, other: str) -> bool:
        """Whether one of the two classes is the other, or inherits from it."""
        return name == other or other in self.above(name) or name in self.above(other)

    def above(self, name: str) -> set[str]:
        """Every class that `name` inherits from, by name."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            for base in self.bases.get(waiting.pop(), ()):
                if base not in seen:
                    seen.add(base)
                    waiting.append(base)
        return seen

    def _config(self, file: PythonFile, node: ast.ClassDef) -> ConfigClass | None:
        above = self.above(node.name)
        if not (_NAMED.search(node.name) or _FOLDER.search(file.path)) or above - self.bases.keys() - _BASES - _PLAIN:
            return None
        declares = any(_decorates(d) for d in node.decorator_list) or bool(above & _BASES)
        if not declares:
            return None
        return ConfigClass(
            name=node.name,
            file=file,
            fields={s.target.id: s.lineno for s in _fields(node)},
        )


def _base_names(node: ast.ClassDef) -> Iterator[str]:
    for base in node.bases:
        name = dotted(base.value if isinstance(base, ast.Subscript) else base)
        if name:
            yield name.rpartition(".")[2]


def _decorates(decorator: ast.expr) -> bool:
    name = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return name.rpartition(".")[2] in _DECORATORS


class _Field(ast.AnnAssign):
    target: ast.Name


def _fields(node: ast.ClassDef) -> Iterator[_Field]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            kept = name == "model_config" or name.startswith("_") or _tells_apart(statement)
            if not kept and _CLASS_LEVEL.isdisjoint(_words(statement.annotation)):
                yield cast(_Field, statement)


def _tells_apart(statement: ast.AnnAssign) -> bool:
    """Whether it is there to tell classes apart when one is read from a file: it has one value only."""
    kind = statement.annotation
    one_value = isinstance(kind, ast.Subscript) and isinstance(kind.slice, ast.Constant)
    literal = isinstance(kind, ast.Subscript) and dotted(kind.value).rpartition(".")[2] == "Literal"
    return (one_value and literal) or re.match(r"is_\w+_config$", dotted(statement.target)) is not None


def _words(annotation: ast.expr) -> set[str]:
    """Every name in an annotation, also in one that is a string."""
    nodes = walk(annotation)
    names = {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    quoted = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return names | set(re.findall(r"\w+", " ".join(quoted)))
