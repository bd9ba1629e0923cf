"""What all pictures share: inline SVG with a title and a description for those who do not see it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape


def figure(title: str, told: str, parts: Iterable[str], *, width: float, height: float, kind: str = "chart") -> str:
    """One picture; `told` says in words what there is to be seen."""
    label = escape(f"{title}: {told}")
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}" class="{kind}">'
        f"<title>{escape(title)}</title><desc>{escape(told)}</desc>"
        f'<text x="2" y="16" class="title">{escape(title)}</text>{"".join(parts)}</svg>'
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "tick") -> str:
    """Words at a place."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, kind: str) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def cross(x: float, y: float, size: float = 4) -> str:
    """What is abnormal: a cross, whatever the colours."""
    d = f"{2 * size:g}"
    return f'<path class="bad" d="M{x - size:.1f} {y - size:.1f}l{d} {d}m-{d} 0l{d} -{d}"/>'


def shown(value: float) -> str:
    """A number in three digits; what is none by its name."""
    return f"{value:.3g}" if math.isfinite(value) else ("NaN" if math.isnan(value) else "∞" if value > 0 else "−∞")


def ticks(first: int, last: int) -> list[int]:
    """At most eleven round numbers."""
    every = next(f * 10**k for k in range(12) for f in (1, 2, 5) if last - first <= 10 * f * 10**k)
    return list(range(-(-first // every) * every, last + 1, every))
