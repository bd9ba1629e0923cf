"""Label files are text: reading it, and writing it whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from brainbrr.data.errors import LabelError
from brainbrr.files import atomic_write


def read_text(path: Path) -> str:
    """The text of a label file, without a byte-order mark. Raises LabelError for what is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file ({error.reason} at byte {error.start}); expected UTF-8") from None


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write whole or not at all."""
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def number(where: str, field: str, text: str) -> float:
    """A finite number, or LabelError saying where it should have stood."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LabelError(f"{where}: {field} is {text!r}; expected a number")
    return value
