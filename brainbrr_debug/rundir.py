"""The run directory: what a run leaves behind, and all that later commands read. Imports no torch.

    runs/0007-batch7/
      config.yaml  environment.json  readings.jsonl  findings.jsonl  bisect.jsonl  outcome.json
      checkpoints/  captures/NNNNNN.h5  verdicts/NNNNNN.json

Lines are appended with one write each, so a run that dies can leave at most a torn last line, which is skipped and
counted when read. Whole files appear under their name only when they are complete and synced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

from brainbrr_debug.errors import UsageError
from brainbrr_debug.records import Finding, Reading, Severity, dumps, number, to_json

T = TypeVar("T")


class RunDirError(UsageError):
    """A run directory that cannot be used: which, why, and what to give instead."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lines(Generic[T]):
    """What a file of lines holds; `damaged` counts lines that could not be read (a torn last one, usually)."""

    items: tuple[T, ...]
    damaged: int


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, synced and renamed to it when the block ends well, removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """A UTF-8 text file that appears under `path`, synced, when the block ends without an error."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunDir:
    """One run's directory. `create` makes a new one, `open` takes one that is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.captures = path / "captures"
        self.verdicts = path / "verdicts"
        self._mended: set[Path] = set()

    @classmethod
    def create(cls, root: str | Path, name: str = "run") -> Self:
        """A new directory `root/NNNN-name`, numbered behind the last one; safe against others who do the same."""
        root = Path(root)
        root.mkdir(parents=True, exist_ok=True)
        safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name) or "run"
        while True:
            taken = [int(p.name[:4]) for p in root.iterdir() if p.name[:4].isdigit()]
            path = root / f"{max(taken, default=0) + 1:04d}-{safe}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return cls(path)._prepared()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The run directory at `path`. Raises RunDirError where there is none."""
        path = Path(path)
        if not path.is_dir():
            raise RunDirError(f"{path}: no such folder; expected a run directory such as runs/0001-run")
        marks = ("config.yaml", "environment.json", "readings.jsonl", "findings.jsonl")
        if not any((path / mark).exists() for mark in marks):
            raise RunDirError(f"{path}: holds none of {', '.join(marks)}; expected a run directory")
        return cls(path)

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """The run directory at exactly `path`, made if it is not there."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)._prepared()

    def _prepared(self) -> Self:
        for folder in (self.checkpoints, self.captures, self.verdicts):
            folder.mkdir(exist_ok=True)
        return self

    # Whole files

    def write_config(self, config: Mapping[str, Any]) -> Path:
        """Write the resolved configuration (plain values) as config.yaml."""
        import yaml

        path = self.path / "config.yaml"
        with atomic_write(path) as file:
            yaml.safe_dump(to_json(config), file, sort_keys=False, allow_unicode=True)
        return path

    def write_environment(self, environment: Mapping[str, Any]) -> Path:
        """Write environment.json: versions, device, precision, backends, fallbacks, overrides."""
        return self._write_json(self.path / "environment.json", environment)

    def write_verdict(self, verdict: Mapping[str, Any], path: Path | None = None) -> Path:
        """Write the next verdicts/NNNNNN.json, or in place of the one at `path`."""
        if path is not None:
            return self._write_json(path, verdict)
        numbers = [int(p.stem) for p in self.verdicts.glob("[0-9]*.json") if p.stem.isdigit()]
        return self._write_json(self.verdicts / f"{max(numbers, default=-1) + 1:06d}.json", verdict)

    def write_outcome(self, outcome: Mapping[str, Any]) -> Path:
        """Write what a run that came to its end came to, everything skipped or altered counted, as outcome.json."""
        return self._write_json(self.path / "outcome.json", outcome)

    def _write_json(self, path: Path, value: Any) -> Path:
        with atomic_write(path) as file:
            file.write(dumps(value, indent=2) + "\n")
        return path

    def config(self) -> dict[str, Any]:
        """The resolved configuration; empty when the run wrote none. Raises RunDirError when it cannot be read."""
        import yaml

        path = self.path / "config.yaml"
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunDirError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise RunDirError(f"{path}: holds a {type(values).__name__}; expected a mapping")
        return values

    def environment(self) -> dict[str, Any]:
        """The environment; empty when the run wrote none. Raises RunDirError when it cannot be read."""
        path = self.path / "environment.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise RunDirError(f"{path}: cannot be read: {error}") from error
        return dict(values)

    def capture_path(self, step: int) -> Path:
        """Where the capture of `step` goes: captures/NNNNNN.h5, with -1, -2, … behind a name that is taken."""
        path = self.captures / f"{step:06d}.h5"
        again = 0
        while path.exists():
            again += 1
            path = self.captures / f"{step:06d}-{again}.h5"
        return path

    def list_captures(self) -> list[Path]:
        """All captures by step, those of one step in the order they were written."""
        return sorted(self.captures.glob("[0-9]*.h5"), key=lambda path: (path.stem[:6], len(path.stem), path.stem))

    def list_verdicts(self) -> list[Path]:
        """All verdicts in the order they were written."""
        return sorted(self.verdicts.glob("[0-9]*.json"))

    # Files of lines

    def append_readings(self, step: int, readings: Iterable[Reading]) -> None:
        """One line: the step, the time of day (s since 1970) and its readings."""
        rows: list[list[Any]] = [
            [r.phase, r.site, r.quantity, r.value if math.isfinite(r.value) else to_json(r.value), r.sample]
            for r in readings
        ]
        for row in rows:
            if row[4] is None:
                row.pop()
        line = {"step": step, "time": round(time.time(), 3), "readings": rows}
        self._append_line("readings.jsonl", json.dumps(line, allow_nan=False, ensure_ascii=False))

    def append_finding(self, finding: Finding) -> None:
        """One line: the finding."""
        self.append("findings.jsonl", finding)

    def append(self, name: str, value: Any) -> None:
        """One JSON line at the end of file `name`, handed to the operating system in one write."""
        self._append_line(name, dumps(value))

    def _append_line(self, name: str, text: str) -> None:
        path = self.path / name
        line = text.encode() + b"\n"
        with path.open("ab", buffering=0) as file:
            if path not in self._mended and file.tell() and not _ends_line(path):
                line = b"\n" + line  # a line torn by a crash must not swallow the next one
            self._mended.add(path)
            file.write(line)

    def sync(self) -> None:
        """Bring what was appended so far to the disk."""
        for path in self._mended:
            _sync(path)

    def readings(self) -> Lines[Reading]:
        """Every reading in the order of the run."""
        steps = self.lines("readings.jsonl", _parse_readings)
        return Lines(items=tuple(r for readings in steps.items for r in readings), damaged=steps.damaged)

    def findings(self) -> Lines[Finding]:
        """Every finding in the order of the run."""
        return self.lines("findings.jsonl", _parse_finding)

    def lines(self, name: str, parse: Callable[[dict[str, Any]], T]) -> Lines[T]:
        """The parsed lines of file `name`; empty where there is none."""
        path = self.path / name
        items: list[T] = []
        damaged = 0
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    items.append(parse(json.loads(line)))
                except (ValueError, KeyError, TypeError, IndexError):
                    damaged += 1
        return Lines(items=tuple(items), damaged=damaged)


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _parse_readings(line: dict[str, Any]) -> tuple[Reading, ...]:
    return tuple(
        Reading(
            step=int(line["step"]),
            phase=str(row[0]),
            site=str(row[1]),
            quantity=str(row[2]),
            value=number(row[3]),
            order=order,
            sample=row[4] if len(row) > 4 else None,
        )
        for order, row in enumerate(line["readings"])
    )


def _parse_finding(line: dict[str, Any]) -> Finding:
    values = {**line, "severity": Severity[line["severity"]], "commands": tuple(line["commands"])}
    return Finding(**values)
