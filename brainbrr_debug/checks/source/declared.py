"""The distributions that a repository declares to need, and the modules that a distribution gives."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from brainbrr_debug.checks.source.index import PythonFile, Source, TextFile, constant, keyword, walk
from brainbrr_debug.triage.shipped import shipped

_NAME = re.compile(r"^\s*[\"']?([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*($|[<>=!~;@,\"'(#\s])")
_REQUIREMENTS = re.compile(r"(^|/)requirements[^/]*\.txt$|(^|/)requirements/[^/]*\.txt$")
_FOR_DEVELOPERS = re.compile(
    r"(?i)dev|test|lint|doc|typ(e|ing)|format|ci\b|style|check|build|quality|notebook|example|bench"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """One requirement by its normal name ("scikit-learn") and where it stands.

    `judged`: the program itself asks for it by name; what only developers need, and what a lock file or a conda
    environment lists, is not.
    """

    name: str
    file: str
    line: int
    judged: bool


def normal(name: str) -> str:
    """The name of a distribution as package indices compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def _shipped() -> Mapping[str, Any]:
    table: Mapping[str, Any] = yaml.safe_load(shipped("distributions.yaml").read_text(encoding="utf-8"))
    return table


def modules_of(distribution: str) -> set[str]:
    """The top-level modules of a distribution: listed ones, else its own name with underscores."""
    return set(_shipped()["modules"].get(distribution, ())) | {distribution.replace("-", "_")}


def parts_of(distribution: str) -> set[str]:
    """Modules that its name suggests: "ai2-tango" may give tango, "beaker-py" beaker."""
    return {part for part in distribution.split("-") if len(part) > 3}


def never_imported(distribution: str) -> bool:
    """Whether it is a tool, a plug-in or a set of stubs, which no program imports."""
    return any(re.fullmatch(pattern, distribution) for pattern in _shipped()["tools"])


def declared(source: Source) -> list[Declared]:
    """Every requirement of pyproject.toml, requirements files, setup.cfg, setup.py and environment.yml."""
    found: list[Declared] = []
    for file in source.texts:
        name = file.path.rpartition("/")[2]
        if file.path == "pyproject.toml":
            found += _of_pyproject(file)
        elif _REQUIREMENTS.search(file.path):
            developers = _FOR_DEVELOPERS.search(name.removeprefix("requirements")) is not None
            found += _listed(file, file.lines, developers=developers)
        elif file.path == "setup.cfg":
            found += _of_setup_cfg(file)
        elif re.fullmatch(r"(conda_?)?env(ironment)?\w*\.ya?ml", name):
            found += _listed(file, [line.strip().removeprefix("- ") for line in file.lines if "- " in line])
    for module in source.python:
        if module.path == "setup.py":
            found += _of_setup(module)
    return found


def _listed(file: TextFile, entries: Iterable[str], *, developers: bool = False) -> Iterator[Declared]:
    entries = list(entries)
    locked = len(entries) > 25 and sum("==" in e for e in entries) > 0.9 * len(entries)
    for entry in entries:
        match = _NAME.match(entry)
        if match is not None and match[1].lower() != "python" and not match[1].endswith(".txt"):
            line = next((i for i, text in enumerate(file.lines, start=1) if match[1] in text), 1)
            judged = not developers and not locked and not file.path.endswith((".yml", ".yaml"))
            yield Declared(name=normal(match[1]), file=file.path, line=line, judged=judged)


def _of_pyproject(file: TextFile) -> Iterator[Declared]:
    try:
        table = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError:
        return
    project = _mapping(table.get("project"))
    yield from _listed(file, _strings(project.get("dependencies")))
    groups = {**_mapping(project.get("optional-dependencies")), **_mapping(table.get("dependency-groups"))}
    for group, entries in groups.items():
        yield from _listed(file, _strings(entries), developers=_FOR_DEVELOPERS.search(group) is not None)
    poetry = _mapping(_mapping(table.get("tool")).get("poetry"))
    yield from _listed(file, list(_mapping(poetry.get("dependencies"))))
    poetry_groups = {"dev": {"dependencies": poetry.get("dev-dependencies")}, **_mapping(poetry.get("group"))}
    for group, entries in poetry_groups.items():
        names = list(_mapping(_mapping(entries).get("dependencies")))
        yield from _listed(file, names, developers=_FOR_DEVELOPERS.search(group) is not None)


def _of_setup_cfg(file: TextFile) -> Iterator[Declared]:
    section, developers = "", False
    for line in file.lines:
        if re.match(r"\S", line):
            section = line.partition("=")[0].strip() if not line.startswith("[") else line.strip("[]")
            developers = _FOR_DEVELOPERS.search(section) is not None and "require" not in section
        elif section in ("install_requires", "options.extras_require") or (developers and line.strip()):
            yield from _listed(file, [line.strip()], developers=developers)


def _of_setup(file: PythonFile) -> Iterator[Declared]:
    """What `setup.py` lists; names of variables in it are followed to lists of strings."""
    for call in file.of(ast.Call):
        needed = keyword(call, "install_requires")
        if needed is not None:
            yield from _listed(file, _spelled(file, needed))
        extras = keyword(call, "extras_require")
        if isinstance(extras, ast.Dict):
            for key, value in zip(extras.keys, extras.values, strict=True):
                developers = _FOR_DEVELOPERS.search(str(constant(key))) is not None
                yield from _listed(file, _spelled(file, value), developers=developers)


def _spelled(file: PythonFile, node: ast.expr) -> list[str]:
    names = {n.id for n in walk(node) if isinstance(n, ast.Name)}
    assigned = [
        a.value for a in file.of(ast.Assign) if any(isinstance(t, ast.Name) and t.id in names for t in a.targets)
    ]
    return [v for root in (node, *assigned) for n in walk(root) if isinstance(v := constant(n), str)]


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
