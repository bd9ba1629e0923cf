"""The files of a repository as text and syntax trees: nothing is imported, nothing is run. Imports no torch.

Left out: hidden folders, virtual environments, build outputs, and what `[tool.triage] exclude` in the repository's
pyproject.toml matches (globs of paths below the root).
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import functools
import os
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

_OUTPUTS = {"__pycache__", "node_modules", "site-packages", "build", "dist", "wheels"}
_LARGEST = 2 << 20  # bytes; a longer text was written by a program


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file; `name` is its path below the root, with slashes."""

    path: Path
    name: str

    @functools.cached_property
    def text(self) -> str:
        """Its text; bytes that are not UTF-8 become U+FFFD."""
        return self.path.read_bytes().decode("utf-8", errors="replace")

    @functools.cached_property
    def lines(self) -> list[str]:
        """Its lines; line n of a finding is `lines[n - 1]`."""
        return self.text.splitlines()

    @functools.cached_property
    def tree(self) -> ast.Module | None:
        """The syntax tree of a Python file; None where this Python cannot parse it."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes and the like of somebody else's code
                return ast.parse(self.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


class Sources:
    """The files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @functools.cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """All of them in the order of their names."""
        excluded = self._excluded()
        found = [
            SourceFile(path=path, name=name)
            for path, name in self._walk()
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in excluded)
        ]
        return tuple(sorted(found, key=lambda file: file.name))

    def with_suffix(self, *suffixes: str) -> tuple[SourceFile, ...]:
        """The files whose names end so: ".py", ".md", …"""
        return tuple(file for file in self.files if file.path.suffix.lower() in suffixes)

    @functools.cached_property
    def python(self) -> tuple[SourceFile, ...]:
        """The Python files that can be parsed."""
        return tuple(file for file in self.with_suffix(".py") if file.tree is not None)

    @functools.cached_property
    def unparsed(self) -> tuple[SourceFile, ...]:
        """The Python files that cannot."""
        return tuple(file for file in self.with_suffix(".py") if file.tree is None)

    @functools.cached_property
    def project(self) -> dict[str, object]:
        """The tables of pyproject.toml; empty where there is none, or it cannot be read."""
        try:
            return tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            return {}

    def _excluded(self) -> list[str]:
        tool = self.project.get("tool")
        table = tool.get("triage") if isinstance(tool, dict) else None
        patterns = table.get("exclude") if isinstance(table, dict) else None
        return [str(pattern) for pattern in patterns] if isinstance(patterns, list) else []

    def _walk(self) -> Iterator[tuple[Path, str]]:
        for parent, folders, files in os.walk(self.root):
            here = Path(parent)
            folders[:] = [name for name in folders if _is_source(here / name)]
            for file in files:
                path = here / file
                if path.is_file() and path.stat().st_size <= _LARGEST:
                    yield path, path.relative_to(self.root).as_posix()


def _is_source(folder: Path) -> bool:
    hidden = folder.name.startswith(".") and folder.name != ".github"
    return not (hidden or folder.name in _OUTPUTS or (folder / "pyvenv.cfg").exists())
