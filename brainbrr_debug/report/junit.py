"""Findings as JUnit XML, which build servers count: a test case for each check. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from brainbrr_debug.report.characters import legal
from brainbrr_debug.sentence import nearby


def junit(
    rows: Iterable[Mapping[str, Any]],
    *,
    suite: str,
    checks: Iterable[str] = (),
    not_applicable: Sequence[str] = (),
    crashed: Sequence[str] = (),
) -> str:
    """One suite with a test case for each check, by id: failed with its findings, or an error where it crashed, or
    skipped where it does not apply, or passed where it is named in `checks` only.

    `not_applicable` and `crashed` hold lines that begin with the check's id, "id: reason". No time of day is in it.
    """
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in checks}
    for row in rows:
        found.setdefault(str(row["check"]), []).append(row)
    skips, errors = dict(map(_reason, not_applicable)), dict(map(_reason, crashed))
    root = ElementTree.Element("testsuites")
    cases = ElementTree.SubElement(root, "testsuite", name=legal(suite))
    for name in sorted(found.keys() | skips.keys() | errors.keys()):
        case = ElementTree.SubElement(cases, "testcase", classname=legal(suite), name=legal(name))
        if name in errors:
            case.append(_element("error", errors[name], "crashed", found.get(name, ())))
        elif found.get(name):
            case.append(_failure(found[name]))
        elif name in skips:
            ElementTree.SubElement(case, "skipped", message=legal(skips[name]))
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    for element in (root, cases):
        element.set("tests", str(len(cases)))
        for attribute, tag in kinds.items():
            element.set(attribute, str(len(cases.findall(f"testcase/{tag}"))))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _failure(rows: Sequence[Mapping[str, Any]]) -> ElementTree.Element:
    """All findings of a check in one element: readers of the format look at the first one only."""
    message = str(rows[0]["message"]) if len(rows) == 1 else f"{len(rows)} findings, the first: {rows[0]['message']}"
    worst = min(str(row["severity"]) for row in rows)
    return _element("failure", message, worst, rows)


def _element(tag: str, message: str, kind: str, rows: Iterable[Mapping[str, Any]]) -> ElementTree.Element:
    element = ElementTree.Element(tag, message=legal(message), type=kind)
    element.text = legal("\n\n".join("\n".join(_lines(row)) for row in rows)) or None
    return element


def _lines(row: Mapping[str, Any]) -> Iterable[str]:
    place = nearby(row["file"]) + (f":{row['line']}" if row.get("line") else "") if row.get("file") else ""
    at = ", ".join(part for part in (place, str(row.get("where") or "")) if part)
    yield f"{row['severity']} {row['check']}{f' at {at}' if at else ''}"
    yield from (str(row[key]) for key in ("message", "why", "remedy") if row.get(key))


def _reason(line: str) -> tuple[str, str]:
    name, _, reason = line.partition(":")
    return name.strip(), reason.strip() or line
