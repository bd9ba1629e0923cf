"""The parsed source of a repository, read once and shared by every check over it. Nothing of it is run."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import fnmatch
import gc
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

SKIPPED_FOLDERS = frozenset(
    {"venv", "env", "node_modules", "build", "dist", "site-packages", "__pycache__", "vendor", "vendored", "_vendor"}
    | {"third_party", "thirdparty", "third-party", "3rdparty", "external", "extern"}
)
LARGEST = 1_000_000
"""Bytes above which a file is data rather than source."""
_TEXTS = re.compile(
    r"(\.(md|markdown|rst|ya?ml|toml|cfg|txt|sh|bash|slurm|sbatch|mk)|(^|/)GNUmakefile|(^|/)[Mm]akefile)$"
)
_TESTS = re.compile(r"(^|/)(tests?|testing|unit_?tests?)/|(^|/)(test_[^/]*|[^/]*_test|tests?|conftest)\.py$")
_EXAMPLES = re.compile(r"(^|/)(examples?|tutorials?|docs?|doc_?src|demos?|bench(mark)?s?|notebooks?|gallery)/")

Node = TypeVar("Node", bound=ast.AST)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.Lambda | ast.ClassDef | ast.Module


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TextFile:
    """A document, script or settings file: `path` is relative to the root, with slashes."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        """The lines, without their ends; line 1 is `lines[0]`."""
        return self.text.splitlines()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PythonFile(TextFile):
    """A parsed module: its nodes by type, the parent of each, and what its imports call things."""

    tree: ast.Module

    @cached_property
    def _walked(self) -> tuple[dict[type[ast.AST], list[ast.AST]], dict[ast.AST, ast.AST]]:
        nodes: dict[type[ast.AST], list[ast.AST]] = {kind: [] for kind in _FIELDS}
        parents: dict[ast.AST, ast.AST] = {}
        nodes[ast.Module].append(self.tree)
        stack: list[ast.AST] = [self.tree]
        while stack:  # `children` written out: this loop sees every node of a repository
            node = stack.pop()
            for name in _FIELDS[type(node)]:
                value = getattr(node, name)
                for child in value if type(value) is list else (value,):
                    inner = _FIELDS.get(type(child))
                    if inner is not None:
                        nodes[type(child)].append(child)
                        parents[child] = node
                        if inner:
                            stack.append(child)
        return nodes, parents

    def of(self, kind: type[Node]) -> Sequence[Node]:
        """Every node of exactly this type, in no particular order."""
        return self._walked[0][kind]  # type: ignore[return-value]

    @property
    def functions(self) -> list[Function]:
        """Every function and method."""
        return [*self.of(ast.FunctionDef), *self.of(ast.AsyncFunctionDef)]

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around `node`, innermost first; the module is last."""
        parents = self._walked[1]
        while (parent := parents.get(node)) is not None:
            yield parent
            node = parent

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node directly around `node`."""
        return self._walked[1].get(node)

    def function_of(self, node: ast.AST) -> Function | ast.Lambda | None:
        """The innermost function around `node`, None at the level of module or class."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        return next((a for a in self.ancestors(node) if isinstance(a, kinds)), None)

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        """The innermost class around `node`."""
        return next((a for a in self.ancestors(node) if isinstance(a, ast.ClassDef)), None)

    @cached_property
    def module(self) -> str:
        """The dotted name under which it would be imported: "src/a/b/__init__.py" is "a.b"."""
        parts = self.path.removesuffix(".py").split("/")
        if parts[0] in ("src", "lib", "python") and len(parts) > 1:
            parts = parts[1:]
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)

    @cached_property
    def imports(self) -> Mapping[str, str]:
        """What a name that an import binds stands for, as a dotted name; relative imports resolved by the path."""
        found: dict[str, str] = {}
        package = self.module.split(".")
        if not self.path.endswith("__init__.py"):
            package = package[:-1]
        for node in self.of(ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        for taken in self.of(ast.ImportFrom):
            above = package[: len(package) - taken.level + 1] if taken.level else []
            prefix = ".".join(part for part in (*above, taken.module or "") if part)
            for alias in taken.names:
                found[alias.asname or alias.name] = f"{prefix}.{alias.name}".strip(".")
        return found

    def name(self, node: ast.AST) -> str:
        """The dotted name of a name or attribute chain, imports resolved: `np.load` is "numpy.load"; else ""."""
        known = self._names.get(node)
        if known is None:
            first, dot, rest = dotted(node).partition(".")
            known = self._names[node] = self.imports.get(first, first) + dot + rest
        return known

    @cached_property
    def _names(self) -> dict[ast.AST, str]:
        return {}

    @cached_property
    def is_test(self) -> bool:
        """Whether the file is a test, by its name or folder."""
        return _TESTS.search(self.path) is not None


_LEAVES = {
    "ctx",
    "op",
    "ops",
    "id",
    "attr",
    "lineno",
    "kind",
    "type_comment",
    "conversion",
    "is_async",
    "level",
    "module",
}
_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {
    kind: () if kind in (ast.Name, ast.Constant) else tuple(f for f in kind._fields if f not in _LEAVES)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
"""The fields of each type of node that can hold nodes: most nodes are names and constants, which hold none."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """Everything of a repository that the checks look at; `unparsed` says which files are not in it, and why."""

    root: Path
    python: tuple[PythonFile, ...]
    texts: tuple[TextFile, ...]
    paths: frozenset[str]
    unparsed: tuple[tuple[str, str], ...]

    @cached_property
    def unparsed_texts(self) -> tuple[str, ...]:
        """What stands in the files that are not Python of this version."""
        return tuple(text for path, _ in self.unparsed if (text := _read(self.root / path)) is not None)

    @cached_property
    def program(self) -> tuple[PythonFile, ...]:
        """The Python files that are no tests."""
        return tuple(file for file in self.python if not file.is_test)

    @cached_property
    def core(self) -> tuple[PythonFile, ...]:
        """The program without its examples, benchmarks and documentation builds."""
        return tuple(file for file in self.program if not _EXAMPLES.search(file.path))

    @cached_property
    def modules(self) -> Mapping[str, PythonFile]:
        """The Python files by the dotted name under which they would be imported."""
        return {file.module: file for file in self.python}

    @cached_property
    def calls(self) -> Mapping[str, Sequence[tuple[PythonFile, ast.Call]]]:
        """The calls of the program by the last part of the called name."""
        found: dict[str, list[tuple[PythonFile, ast.Call]]] = defaultdict(list)
        for file in self.program:
            for call in file.of(ast.Call):
                found[called(call)].append((file, call))
        return found

    @cached_property
    def documents(self) -> tuple[TextFile, ...]:
        """Markdown and reStructuredText, without change logs (what they say was true once)."""
        endings = (".md", ".markdown", ".rst")
        return tuple(t for t in self.texts if t.path.lower().endswith(endings) and not _PAST.search(t.path))

    def text(self, path: str) -> TextFile | None:
        """The text file at `path`, None where there is none."""
        return next((file for file in self.texts if file.path == path), None)


_PAST = re.compile(r"(?i)(change(s|log)?|history|news|releases?|whats_?new|archive[sd]?|legacy)([-_.]|\b)[^/]*($|/)")


def read_source(root: Path, exclude: Iterable[str] = ()) -> Source:
    """Read and parse a repository; `exclude` are patterns of relative paths ("tests/*").

    Folders of environments, builds and other people's code are left out, and so are notebooks.
    """
    with without_collector():
        return _read_source(root, tuple(exclude))


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Within, nothing looks for garbage: a syntax tree is a million objects of which none is."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read_source(root: Path, patterns: Sequence[str]) -> Source:
    python, texts, paths, unparsed = [], [], set(), []
    for path in _files(root, patterns):
        paths.add(path)
        is_python = path.endswith(".py")
        if not is_python and not _TEXTS.search(path):
            continue
        text = _read(root / path)
        if text is None:
            if is_python:
                unparsed.append((path, f"larger than {LARGEST} bytes, or not readable"))
        elif not is_python:
            texts.append(TextFile(path=path, text=text))
        else:
            try:
                python.append(PythonFile(path=path, text=text, tree=_parse(text)))
            except (SyntaxError, ValueError, RecursionError) as error:
                unparsed.append((path, f"{type(error).__name__}: {error}".splitlines()[0]))
    return Source(root=root, python=tuple(python), texts=tuple(texts), paths=frozenset(paths), unparsed=tuple(unparsed))


def _files(root: Path, exclude: Sequence[str]) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root):
        here = Path(folder).relative_to(root)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name not in SKIPPED_FOLDERS
            and not (name.startswith(".") and name != ".github")
            and not name.endswith(".egg-info")
            and not Path(folder, name, "pyvenv.cfg").exists()
            and not _excluded((here / name).as_posix() + "/", exclude)
        )
        for name in sorted(names):
            path = (here / name).as_posix()
            if not _excluded(path, exclude):
                yield path


def _excluded(path: str, patterns: Sequence[str]) -> bool:
    """A pattern names a path, a folder and all in it, or is a shell pattern over the whole relative path."""
    return any(
        path.rstrip("/") == p.rstrip("/") or path.startswith(p.rstrip("/") + "/") or fnmatch.fnmatch(path, p)
        for p in patterns
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8-sig", "replace") if path.stat().st_size <= LARGEST else None
    except OSError:
        return None


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in their source is not ours to report
        return ast.parse(text)


def dotted(node: ast.AST) -> str:
    """The dotted name of a chain of attributes on a name ("self.model.eval"), or ""."""
    spoken = ""
    while type(node) is ast.Attribute:
        spoken = f".{node.attr}{spoken}"
        node = node.value
    return node.id + spoken if type(node) is ast.Name else ""


def called(call: ast.Call) -> str:
    """The last name of what is called: "load" of `np.load(…)` and of `make().load(…)`; "" where it has none."""
    return dotted(call.func).rpartition(".")[2] or getattr(call.func, "attr", "")


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value that a call passes under `name`, None where it passes none."""
    return next((k.value for k in call.keywords if k.arg == name), None)


def constant(node: ast.AST | None) -> object:
    """The value of a literal (also a negative number), None for anything else and for None."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return -value if isinstance(value, (int, float)) else None
    return node.value if isinstance(node, ast.Constant) else None


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes directly in `node`, without contexts and operators: `ast.iter_child_nodes` in half its time."""
    found: list[ast.AST] = []
    for name in _FIELDS[type(node)]:
        value = getattr(node, name)
        if type(value) is list:
            found += [child for child in value if type(child) in _FIELDS]
        elif type(value) in _FIELDS:
            found.append(value)
    return found


def walk(node: ast.AST) -> list[ast.AST]:
    """`node` and every node in it, outer ones before inner ones."""
    found = [node]
    for here in found:  # which grows meanwhile
        found += children(here)
    return found


def within(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and everything in it that runs when it does: bodies of functions and classes within it are left out."""
    stack = [node]
    while stack:
        here = stack.pop()
        yield here
        if here is node or not isinstance(here, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            stack += children(here)
