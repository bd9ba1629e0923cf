"""`source.claims`: what the documents call a method, against the symbols that the code uses for it."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import PythonFile, Source, TextFile
from brainbrr_debug.records import Finding, Severity

ID = "source.claims"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A term that must mean one of the symbols `means`, and of which `never` is the mistaken stand-in."""

    term: str
    also: tuple[str, ...]
    means: tuple[str, ...]
    never: tuple[str, ...]
    why: str

    @property
    def words(self) -> re.Pattern[str]:
        """The term and its other names, as whole words, in the case in which they are written."""
        return re.compile(r"(?<![\w-])(" + "|".join(re.escape(w) for w in (self.term, *self.also)) + r")(?![\w-])")


def read_claims(path: Path) -> tuple[Claim, ...]:
    """The claims in a YAML file: a list of mappings with the fields of `Claim`.

    Raises ValueError, which names the file and the entry, where one has other keys or no `means` or `never`.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    if not isinstance(entries, list):
        raise ValueError(f"{path} holds {type(entries).__name__}, expected a list of claims")
    return tuple(_claim(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1))


def _claim(entry: object, where: str) -> Claim:
    known = {field.name for field in dataclasses.fields(Claim)}
    if not isinstance(entry, Mapping) or not {"term", "means", "never"} <= set(entry) <= known:
        raise ValueError(f"{where} is {entry!r:.80}, expected the keys term, means, never, and perhaps also, why")
    lists = {key: tuple(str(v) for v in entry.get(key) or ()) for key in ("also", "means", "never")}
    return Claim(term=str(entry["term"]), why=str(entry.get("why", "")), **lists)


def claims(source: Source, claimed: Sequence[Claim]) -> Iterable[Finding]:
    """Each use of a stand-in for a term that is claimed somewhere, where no symbol that the term means is used."""
    used: dict[str, list[tuple[PythonFile, int]]] = {n: [] for claim in claimed for n in (*claim.means, *claim.never)}
    meant = {name for claim in claimed for name in claim.means}
    for file in source.program:
        for spelled in file.of(ast.Constant):  # getattr(torch.optim, "AdamW")
            if isinstance(spelled.value, str) and spelled.value in meant:
                used[spelled.value].append((file, spelled.lineno))
        for name in file.of(ast.Name):
            if name.id in used:
                used[name.id].append((file, name.lineno))
        for attribute in file.of(ast.Attribute):
            if attribute.attr in used:
                used[attribute.attr].append((file, attribute.lineno))
    for claim in claimed:
        wrong = [(name, file, line) for name in claim.never for file, line in used[name]]
        if not wrong or any(used[name] for name in claim.means):
            continue
        files, count, first = _mentions(source, claim)
        if first is not None:
            yield from (_finding(claim, *w, files=files, count=count, first=first) for w in wrong)


def _mentions(source: Source, claim: Claim) -> tuple[int, int, str | None]:
    """In how many files the term stands, how often, and where first: documents before code."""
    spoken: list[TextFile] = [*source.documents, *source.program]
    counts = [(file, len(claim.words.findall(file.text))) for file in spoken]
    hits = [(file, n) for file, n in counts if n]
    if not hits:
        return 0, 0, None
    file = hits[0][0]
    line = next(i for i, text in enumerate(file.lines, start=1) if claim.words.search(text)) if len(file.lines) else 1
    return len(hits), sum(n for _, n in hits), f"{file.path}:{line}"


def _finding(claim: Claim, name: str, file: PythonFile, line: int, *, files: int, count: int, first: str) -> Finding:
    return found(
        ID,
        Severity.P2,
        file.path,
        line,
        f"{name} is used for what {count} mention{'s' * (count > 1)} in {files} file{'s' * (files > 1)} "
        f"call{'s' * (count == 1)} {claim.term} ({first})",
        why=claim.why or f"{claim.term} means {' or '.join(claim.means)}, which nothing here uses",
        remedy=f"use {claim.means[0]}, or call the method by its name",
    )
