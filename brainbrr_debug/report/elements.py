"""The few pieces of HTML that every page is made of. What goes in as text comes out escaped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from xml.sax.saxutils import quoteattr

from brainbrr_debug.report.characters import legal
from brainbrr_debug.report.style import CSS
from brainbrr_debug.sentence import yes_no

MARKS = {"good": "✓", "bad": "✗", "skip": "–", "did-not-reproduce": "?"}
"""Beside the word and the colour, for those who see neither well."""


def document(title: str, body: Iterable[str], *, style: str = "") -> str:
    """A whole page without a script and without anything from elsewhere."""
    return legal(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{escape(CSS + style, quote=False)}</style></head>\n"
        "<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it."""
    return "\n".join([f"<section><h2>{escape(title)}</h2>", *parts, "</section>"])


def folded(summary: str, *parts: str, old: bool = False, shown: bool = False) -> str:
    """What is shown when asked for, or at once, and in print unless it is `old`."""
    kind = (' class="old"' if old else "") + (' open="open"' if shown else "")
    return f"<details{kind}><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of ready HTML; without heads the first cell of each row is its head."""
    if not heads:
        body = "".join(f'<tr><th scope="row">{cells[0]}</th>{_cells((), cells[1:])}</tr>' for cells in rows)
        return f'<div class="wide"><table><tbody>{body}</tbody></table></div>'
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(f"<tr>{_cells(heads, cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table class="rows"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(heads: Sequence[str], cells: Sequence[str]) -> str:
    """Each with its head, for a narrow screen, where a row is a list."""
    named = itertools.zip_longest(heads, cells, fillvalue="")
    return "".join(
        f"<td data-head={quoteattr(head)}>{cell}</td>" if head else f"<td>{cell}</td>" for head, cell in named
    )


def outcome(word: str, text: str = "") -> str:
    """good, bad or skip with its mark; `text` in place of the word."""
    return f'<span class="{escape(word)}">{MARKS.get(word, "")} {escape(text or word)}</span>'


def flag(value: bool | None) -> str:
    """yes, no, or a dash for not asked."""
    return outcome("skip" if value is None else "good" if value else "bad", yes_no(value)).replace("– –", "–")


def code(value: Any) -> str:
    """A name or a value to be copied."""
    return f"<code>{escape('–' if value is None else str(value))}</code>"


def dim(text: str) -> str:
    """What is said by the way."""
    return f'<span class="dim">{escape(text)}</span>'


def plain(value: Any) -> str:
    """A value of an environment in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value) or "–"
    return str(value)
