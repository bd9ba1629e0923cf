"""A YAML file with the line of every key, read without running anything that its text asks for. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

NOT_YAML = (yaml.YAMLError, ValueError, TypeError, IndexError, AttributeError, RecursionError, OverflowError)
"""What PyYAML raises over a text: besides its own errors those of Python at the 99th of a month, at `!!int ""`, …"""
_DEEPEST = 12
_MOST = 20_000  # keys; aliases can make a short file a long document


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class YamlFile:
    """`values` as plain types; `lines`: 1-based, by dotted key. `error`: why there are none."""

    values: Any
    lines: Mapping[str, int]
    error: str | None = None
    error_line: int | None = None


def read_yaml(path: Path) -> YamlFile:
    """Read the file; what is wrong with it is in the result. Raises OSError."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        _note_lines(node, "", lines, 0)
        return YamlFile(values=None if node is None else loader.construct_document(node), lines=lines)
    except UnicodeDecodeError:
        return YamlFile(values=None, lines={}, error="not UTF-8 text")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        return YamlFile(
            values=None, lines={}, error=_one_line(error), error_line=None if mark is None else mark.line + 1
        )
    except NOT_YAML as error:
        return YamlFile(values=None, lines={}, error=_one_line(error))


def _note_lines(node: Any, prefix: str, lines: dict[str, int], depth: int) -> None:
    if depth > _DEEPEST or not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and len(lines) < _MOST:
            name = f"{prefix}{key.value}"
            lines[name] = key.start_mark.line + 1
            _note_lines(value, f"{name}.", lines, depth + 1)


def _one_line(error: Exception) -> str:
    problem = getattr(error, "problem", None)
    return " ".join(str(problem or error).split())
