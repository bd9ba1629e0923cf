"""`docs.paths`: where documents say that caches lie and files are, against the code and the repository."""

from __future__ import annotations

import ast
import dataclasses
import posixpath
import re
from collections.abc import Iterable, Iterator

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import PythonFile, Source, TextFile, constant, dotted
from brainbrr_debug.records import Finding, Severity

ID = "docs.paths"
_CACHE_NAME = re.compile(r"(?i)cache_?(dir(ectory)?|path|root|folder|location|home)?$")
_PATH = re.compile(
    r"(?<![\w/:.@-])(?:~|\.{1,2}|\$\{?\w+\}?|<[\w-]+>|[\w.-]+)?(?:/[\w.${}<>*-]+)+/?|(?<=`)[\w-]*cache[\w-]*/(?=`)"
)
_TOOLS = re.compile(
    r"__pycache__|\.(pytest|mypy|ruff|uv|pip|npm)_?cache|actions/cache|buildcache|kv_?cache|ccache|\.cache/(uv|pip)"
)
_LINK = re.compile(
    r"(?<!!)\[[^\]]*\]\((?P<target>[^)#?\s:]+\.(?:md|rst|py|ya?ml|toml|txt|sh|json|ipynb|cfg|svg|png))(?:#[^)]*)?\)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Location:
    """A folder that code calls a cache: the parts of its path that are literal, from the last one that is not."""

    file: str
    line: int
    tail: tuple[str, ...]


def docs_paths(source: Source) -> Iterable[Finding]:
    """Caches that no document names, documents that name other caches only, and links to files that do not exist."""
    locations = {one.tail: one for one in _locations(source)}
    mentions = {file: list(_mentions(file)) for file in source.documents}
    spoken = [parts for said in mentions.values() for _, parts in said]
    for tail, one in locations.items():
        if source.documents and not any(_holds(parts, tail) for parts in spoken):
            yield _undocumented(one)
    for file, said in mentions.items():
        if locations and said and not any(_holds(parts, tail) for _, parts in said for tail in locations):
            yield _elsewhere(file, *said[0], sorted(locations))
        yield from _dead_links(source, file)


def _locations(source: Source) -> Iterator[Location]:
    for file in source.core:
        for name, value in _named_values(file) if "cache" in file.text.lower() else ():
            if _CACHE_NAME.search(name) and not _TOOLS.search(name):
                parts = _parts(value)
                tail = parts[max((i + 1 for i, p in enumerate(parts) if p is None), default=0) :]
                literal = tuple(p for p in tail if p not in (None, "", "."))
                if literal and (len(parts) > 1 or "cache" in literal[-1].lower()):
                    yield Location(file=file.path, line=value.lineno, tail=tuple(str(p) for p in literal))


def _named_values(file: PythonFile) -> Iterator[tuple[str, ast.expr]]:
    """What is assigned, passed by keyword or a default, with the name that it gets."""
    for node in file.of(ast.Assign):
        yield from ((dotted(t).rpartition(".")[2], node.value) for t in node.targets)
    for given in file.of(ast.AnnAssign):
        if given.value is not None:
            yield dotted(given.target).rpartition(".")[2], given.value
    yield from ((passed.arg, passed.value) for passed in file.of(ast.keyword) if passed.arg)
    for function in file.functions:
        names = [*function.args.posonlyargs, *function.args.args]
        yield from zip((a.arg for a in reversed(names)), reversed(function.args.defaults), strict=False)
        kwonly = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
        yield from ((a.arg, default) for a, default in kwonly if default is not None)


def _parts(node: ast.expr) -> list[str | None]:
    """The parts of a path that `node` builds; None for each that is not literal."""
    value = constant(node)
    if isinstance(value, str):
        return list(value.rstrip("/").split("/"))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _parts(node.left) + _parts(node.right)
    if isinstance(node, ast.JoinedStr):
        text = "".join(v if isinstance(v := constant(p), str) else "\0" for p in node.values)
        return [None if "\0" in part else part for part in text.rstrip("/").split("/")]
    if isinstance(node, ast.Call):
        name = dotted(node.func) or getattr(node.func, "attr", "")
        last = name.rpartition(".")[2]
        if last in ("Path", "PurePath", "join", "expanduser", "abspath", "str", "fspath", "field", "Field"):
            owner = node.func.value if isinstance(node.func, ast.Attribute) and not node.args else None
            return [part for a in ([owner] if owner is not None else node.args) for part in _parts(a)] or [None]
        if last == "home":
            return ["~"]
    if isinstance(node, ast.BoolOp):
        return _parts(node.values[-1])
    return [None]


def _mentions(file: TextFile) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, line in enumerate(file.lines, start=1):
        for match in _PATH.finditer(re.sub(r"https?://\S+", "", line)) if "cache" in line.lower() else ():
            is_folder = "." not in posixpath.basename(match[0].rstrip("/")).lstrip(".")
            if "cache" in match[0].lower() and is_folder and not _TOOLS.search(match[0]):
                yield number, tuple(part for part in match[0].strip("/").split("/") if part not in ("", "."))


def _holds(parts: tuple[str, ...], tail: tuple[str, ...]) -> bool:
    return any(parts[i : i + len(tail)] == tail for i in range(len(parts) - len(tail) + 1))


def _undocumented(one: Location) -> Finding:
    return found(
        ID,
        Severity.P3,
        one.file,
        one.line,
        f"a cache goes to …/{'/'.join(one.tail)}, which no document names",
        why="nobody knows what fills the disk, what to delete after a change, or which cache a run really used",
        remedy="write in the README where the cache lies and when it must be built again",
    )


def _elsewhere(file: TextFile, line: int, parts: tuple[str, ...], known: Iterable[tuple[str, ...]]) -> Finding:
    return found(
        ID,
        Severity.P3,
        file.path,
        line,
        f"the document names the cache {'/'.join(parts)}; the code uses {', '.join('…/' + '/'.join(k) for k in known)}",
        why="whoever looks for the cache, or deletes it, does so in the wrong place",
        remedy="write the path that the code uses",
    )


def _dead_links(source: Source, file: TextFile) -> Iterator[Finding]:
    folders = {path.partition("/")[0] for path in source.paths}
    for number, line in enumerate(file.lines, start=1):
        for match in _LINK.finditer(line) if "](" in line else ():
            target = match["target"]
            path = posixpath.normpath(
                posixpath.join(posixpath.dirname(file.path), target.lstrip("/") if target[0] == "/" else target)
            )
            inside = path.partition("/")[0] in folders and not path.startswith("..")
            known = path in source.paths or target.lstrip("/") in source.paths or (source.root / path).exists()
            if inside and not known and file.path.endswith((".md", ".markdown")) and not target.endswith(".html"):
                yield found(
                    ID,
                    Severity.P3,
                    file.path,
                    number,
                    f"the link to {target} leads nowhere",
                    why="what the document relies on was moved or never written",
                    remedy="point it to where the file is, or take it out",
                )
