"""The frame of every page that is written: one file, no network, no script, light and dark by the reader's choice.

Pictures are inline SVG whose colours are the page's variables, so that one drawing serves both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

COLOURS = {
    "ink": ("#1c2024", "#edeef0"),
    "dim": ("#60646c", "#a3a8b3"),
    "line": ("#d9dce2", "#363a41"),
    "curve": ("#2563b8", "#78aef5"),
    "bad": ("#c62a2f", "#ff7b7f"),
    "good": ("#1a7f4b", "#4cc38a"),
    "paper": ("#fcfcfd", "#15171a"),
}
"""By name: in the light and in the dark. No light colour stands for two names."""


def colour(name: str) -> str:
    """The light one, for pictures that stand alone; `inline` makes it follow the page."""
    return COLOURS[name][0]


def _variables(which: int) -> str:
    return " ".join(f"--{name}: {pair[which]};" for name, pair in COLOURS.items())


_STYLE = f"""
:root {{ color-scheme: light dark; {_variables(0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(1)} }} }}
@media print {{ :root {{ {_variables(0)} }} figure {{ break-inside: avoid; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.35rem; margin: 0 0 .25rem; }} h2 {{ font-size: 1.05rem; margin: 2rem 0 .5rem; }}
figure {{ margin: .75rem 0; }} figcaption, .dim {{ color: var(--dim); font-size: .9rem; }}
svg {{ display: block; width: 100%; height: auto; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; }}
th, td {{ text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ color: var(--dim); font-weight: 600; }}
td {{ font-variant-numeric: tabular-nums; }}
ul {{ padding-left: 1.2rem; overflow-wrap: anywhere; }}
"""


def page(title: str, body: Iterable[str]) -> str:
    """The whole document; `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def heading(text: str) -> str:
    """Of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Dim, as a remark; each line one of its own."""
    return '<p class="dim">' + "<br>".join(map(escape, text.splitlines())) + "</p>"


def listing(lines: Sequence[str]) -> str:
    """A list; nothing for none."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text; the first is the header."""
    head, *body = rows
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    rest = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{rest}</tbody></table></div>'


def figure(svg: str, caption: str) -> str:
    """A picture with its caption, which is also what a reader who cannot see it gets."""
    return f"<figure>{inline(svg, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def side_by_side(figures: Iterable[str]) -> str:
    """As many in a row as there is room for."""
    return f'<div class="grid">{"".join(figures)}</div>'


def inline(svg: str, label: str) -> str:
    """An SVG file as part of a page: no prologue, no fixed size, the page's colours, nothing named twice."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r'\s(width|height|version|xmlns(:xlink)?)="[^"]*"', "", opening)
    for name in COLOURS:
        rest = re.sub(colour(name), f"var(--{name})", rest, flags=re.IGNORECASE)
    return f'{opening} role="img" aria-label="{escape(label)}">{rest.strip()}'
