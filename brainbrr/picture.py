"""A picture that stands alone as a file and fits into a page; the same drawing gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from brainbrr.page import colour, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SQUARE, WIDE = (5.0, 4.2), (9.0, 1.9)
"""Sizes, inches."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture; `caption` says in words what it shows. Nothing is drawn before `render`."""

    name: str
    caption: str
    size: tuple[float, float]
    draw: Callable[[Axes], None]

    def render(self, form: Literal["svg", "png"]) -> bytes:
        """The picture as a file."""
        import matplotlib
        from matplotlib.figure import Figure

        style: Any = {
            "svg.hashsalt": self.name,
            "svg.fonttype": "none",
            "font.size": 9.0,
            "text.color": colour("ink"),
            "axes.edgecolor": colour("dim"),
            "axes.labelcolor": colour("ink"),
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": colour("line"),
            "xtick.color": colour("dim"),
            "ytick.color": colour("dim"),
        }
        told = {"Date": None, "Creator": None, "Format": None, "Type": None} if form == "svg" else {"Software": None}
        with matplotlib.rc_context(style):
            drawing = Figure(figsize=self.size, layout="constrained", facecolor=colour("paper"))
            self.draw(drawing.add_subplot())
            file = io.BytesIO()
            drawing.savefig(file, format=form, dpi=120, metadata=told)
        return file.getvalue()

    def on_page(self) -> str:
        """The picture within a page."""
        return figure(self.render("svg").decode(), self.caption)
