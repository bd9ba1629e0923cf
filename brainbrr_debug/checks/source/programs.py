"""The programs of a repository: console scripts, modules and files that can be run, with what each accepts."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from brainbrr_debug.checks.source.argparse_cli import ArgparseProgram, argparse_command
from brainbrr_debug.checks.source.click_cli import ClickCommands
from brainbrr_debug.checks.source.command_line import Command
from brainbrr_debug.checks.source.index import PythonFile, Source, constant, dotted, keyword, walk

_ENTRY = re.compile(r"^\s*([\w.-]+)\s*=\s*([\w.]+)\s*:\s*([\w.]+)")


class Programs:
    """What can be run by name, by module and by path; a value is None where the source does not say what it accepts."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._files: dict[str, Command | None] = {}

    @cached_property
    def _click(self) -> ClickCommands:
        return ClickCommands(self._source)

    @cached_property
    def scripts(self) -> dict[str, Command | None]:
        """Console scripts by name."""
        return {name: self._entry(module, attribute) for name, module, attribute in entry_points(self._source)}

    def module(self, name: str) -> Command | None:
        """What `python -m name` accepts."""
        file = self._source.modules.get(f"{name}.__main__") or self._source.modules.get(name)
        return self.file(file.path) if file is not None else None

    def file(self, path: str) -> Command | None:
        """What `python path` accepts."""
        if path not in self._files:
            file = next((f for f in self._source.python if f.path == path), None)
            self._files[path] = self._run(file, file.tree.body) if file is not None else None
        return self._files[path]

    def _entry(self, module: str, attribute: str) -> Command | None:
        known = self._click.named(f"{module}.{attribute}")
        if known is not None:
            return known
        file = self._source.modules.get(module)
        if file is None:
            return None
        found = ArgparseProgram.find(self._source, file, attribute)
        return self._run(found[0], found[1].body) if found is not None else None

    def _run(self, file: PythonFile, body: list[ast.stmt]) -> Command | None:
        """What the statements read from the command line: with click or typer when they call a command of it."""
        for node in _run_at_last(body):
            if isinstance(node, ast.Call):
                known = self._click.of(file, node.func)
                if known is not None:
                    return known
        command = argparse_command(self._source, file, body)
        if command is not None:
            return command
        return self._called_main(file, body)

    def _called_main(self, file: PythonFile, body: list[ast.stmt]) -> Command | None:
        """`main()` imported or defined here, which calls a command of click or typer."""
        for node in _run_at_last(body):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found = ArgparseProgram.find(self._source, file, file.name(node.func))
                if found is not None:
                    for inner in walk(found[1]):
                        if isinstance(inner, ast.Call):
                            known = self._click.of(found[0], inner.func)
                            if known is not None:
                                return known
        return None


def _run_at_last(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Everything that runs when the statements do, without the functions and classes that they define."""
    for statement in body:
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from walk(statement)


def entry_points(source: Source) -> Iterator[tuple[str, str, str]]:
    """The console scripts as (name, module, attribute), from pyproject.toml, setup.cfg and setup.py."""
    project = source.text("pyproject.toml")
    if project is not None:
        try:
            table: Any = tomllib.loads(project.text)
        except tomllib.TOMLDecodeError:
            table = {}
        scripts = {**_table(table, "tool", "poetry", "scripts"), **_table(table, "project", "scripts")}
        for name, value in scripts.items():
            if isinstance(value, str) and ":" in value:
                yield name, *_split(value)
    for line in getattr(source.text("setup.cfg"), "lines", ()):
        if match := _ENTRY.match(line):
            yield match[1], match[2], match[3]
    for file in source.python:
        if file.path.rpartition("/")[2] == "setup.py":
            yield from _of_setup(file)


def _of_setup(file: PythonFile) -> Iterator[tuple[str, str, str]]:
    for call in file.of(ast.Call):
        if dotted(call.func).rpartition(".")[2] == "setup":
            for node in walk(keyword(call, "entry_points") or ast.Constant(None)):
                value = constant(node)
                if isinstance(value, str):
                    for line in value.splitlines():
                        if match := _ENTRY.match(line):
                            yield match[1], match[2], match[3]


def _table(table: Any, *names: str) -> dict[str, Any]:
    for name in names:
        table = table.get(name) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def _split(value: str) -> tuple[str, str]:
    module, _, attribute = value.partition(":")
    return module.strip(), attribute.partition("[")[0].strip()
