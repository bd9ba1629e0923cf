"""`source.call_drift`: the same call passes a cache, seed or device in one place and leaves it out in another."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import Function, PythonFile, Source
from brainbrr_debug.records import Finding, Severity

ID = "source.call_drift"
_SHARED = re.compile(r"(^|_)(cache|cached|seed|device|rng|generator|random_state)(_|$)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Optional:
    """A parameter that may be left out: where it stands among the positional ones (None: keyword only)."""

    name: str
    position: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Site:
    file: PythonFile
    call: ast.Call


def call_drift(source: Source) -> Iterable[Finding]:
    """Calls that leave out an optional cache that another call of the same function passes; also a seed or device
    where the function around the call was given one.

    Only functions and classes of the repository itself, told by where the name is imported from.
    """
    defined = _definitions(source)
    by_last: dict[str, list[str]] = defaultdict(list)
    for name in defined:
        by_last[name.rpartition(".")[2]].append(name)
    sites: dict[str, list[_Site]] = defaultdict(list)
    for file in source.core:
        for call in file.of(ast.Call):
            target = _target(file, call, by_last)
            if target and not any(k.arg is None for k in call.keywords) and not _starred(call):
                sites[target].append(_Site(file=file, call=call))
    for target, calls in sites.items():
        for parameter in defined[target]:
            passing = [s for s in calls if _passes(s.call, parameter)]
            for site in calls if passing else ():
                if not _passes(site.call, parameter) and ("cache" in parameter.name or _at_hand(site, parameter)):
                    yield _finding(target, parameter, site, passing[0], total=len(passing))


def _definitions(source: Source) -> Mapping[str, list[_Optional]]:
    """The functions and classes of the repository that take such a parameter and do without it, by dotted name."""
    found_here: dict[str, list[_Optional]] = {}
    for file in source.program:
        for node in file.tree.body:
            if isinstance(node, Function):
                optional = _optional(node, method=False)
            elif isinstance(node, ast.ClassDef):
                makers = [n for n in node.body if isinstance(n, Function) and n.name == "__init__"]
                optional = _optional(makers[0], method=True) if makers else []
            else:
                continue
            if optional:
                found_here[f"{file.module}.{node.name}"] = optional
    return found_here


def _optional(function: Function, *, method: bool) -> list[_Optional]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args][1 if method else 0 :]
    with_default = len(arguments.defaults)
    first = len(positional) - with_default
    names = [_Optional(name=a.arg, position=i) for i, a in enumerate(positional) if i >= first]
    names += [
        _Optional(name=a.arg, position=None)
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is not None
    ]
    return [n for n in names if _SHARED.search(n.name)]


def _target(file: PythonFile, call: ast.Call, defined: Mapping[str, Sequence[str]]) -> str:
    """The definition that a call reaches: by its import, through a package that passes it on, or in the same file.

    `defined`: the dotted names of definitions, by their last part.
    """
    name = file.name(call.func)
    package, _, last = name.rpartition(".")
    candidates = defined.get(last, ())
    for exact in (name, f"{file.module}.{name}") if candidates else ():
        if exact in candidates:
            return exact
    passed_on = [d for d in candidates if package and d.startswith(package + ".")]
    return passed_on[0] if len(passed_on) == 1 else ""


def _at_hand(site: _Site, parameter: _Optional) -> bool:
    """Whether the function around the call was itself given one: only a cache is worth asking for elsewhere."""
    around = site.file.function_of(site.call)
    return around is not None and any(
        argument.arg == parameter.name for argument in (*around.args.args, *around.args.kwonlyargs)
    )


def _starred(call: ast.Call) -> bool:
    return any(isinstance(a, ast.Starred) for a in call.args)


def _passes(call: ast.Call, parameter: _Optional) -> bool:
    by_position = parameter.position is not None and len(call.args) > parameter.position
    return by_position or any(k.arg == parameter.name for k in call.keywords)


def _finding(target: str, parameter: _Optional, site: _Site, other: _Site, *, total: int) -> Finding:
    name = target.rpartition(".")[2]
    return found(
        ID,
        Severity.P2,
        site.file.path,
        site.call.lineno,
        f"{name}(…) leaves out {parameter.name}, which {total} other call{'s' * (total > 1)} of it pass"
        f"{'es' * (total == 1)} ({other.file.path}:{other.call.lineno})",
        why="this path works with the default: another cache is filled, another seed drawn, another device used",
        remedy=f"pass {parameter.name} here too, or make it a parameter without a default",
    )
