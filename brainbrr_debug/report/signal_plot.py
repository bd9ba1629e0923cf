"""The channels of a sample one above the other, with the stretch and the channels to blame marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from brainbrr_debug.report.figure import figure, line, shown, text, ticks
from brainbrr_debug.report.signal import CLIP, Column, Signal

WIDTH, LEFT, RIGHT, TOP, ROW, BOTTOM = 1000, 70, 18, 46, 26, 28


def signal_plot(found: Signal) -> str:
    """All channels on one scale, each about its median."""
    bottom = TOP + ROW * len(found.channels)
    height = bottom + BOTTOM
    parts = [*_span(found, bottom), *_axis(found, bottom)]
    for place, (name, columns) in enumerate(zip(found.channels, found.columns, strict=True)):
        y = TOP + ROW * (place + 0.5)
        marked = name in found.marked
        parts.append(
            text(LEFT - 8, y + 4, f"■ {name}" if marked else name, anchor="end", kind="mark" if marked else "tick")
        )
        parts += _trace(columns, y, "trace blamed" if marked else "trace")
    unit = "s" if found.seconds else "samples"
    told = f"{len(found.channels)} channels from {found.start:g} to {found.stop:g} {unit}"
    if found.span is not None:
        told += f", {found.span[0]:g} to {found.span[1]:g} {unit} suffice to fail"
    told += f"; to blame: {', '.join(found.marked)}" if found.marked else ""
    parts.append(
        text(WIDTH - RIGHT, 16, f"a row is ±{shown(found.unit)} high, {found.beyond} values are cut off", anchor="end")
    )
    return figure(found.title, told, parts, width=WIDTH, height=height, kind="wide")


def _x(found: Signal, at: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (at - found.start) / ((found.stop - found.start) or 1.0)


def _axis(found: Signal, bottom: float) -> Iterable[str]:
    for at in ticks(round(found.start), round(found.stop)):
        yield text(_x(found, at), bottom + 18, str(at), anchor="middle")
    yield text(LEFT - 24, bottom + 18, "s" if found.seconds else "sample", anchor="end")


def _span(found: Signal, bottom: float) -> Iterable[str]:
    """The stretch that suffices: a frame with its ends named."""
    if found.span is None:
        return
    left, right = _x(found, found.span[0]), _x(found, found.span[1])
    size = f'width="{right - left:.1f}" height="{bottom - TOP + 8:.1f}"'
    yield f'<rect class="span" x="{left:.1f}" y="{TOP - 4}" {size}/>'
    anchor = "end" if right > WIDTH * 0.7 else "start"
    words = f"{found.span[0]:g}–{found.span[1]:g} {'s' if found.seconds else 'samples'} suffice"
    yield text(right if anchor == "end" else left, TOP - 10, words, anchor=anchor, kind="mark")


def _trace(columns: Sequence[Column | None], y: float, kind: str) -> Iterable[str]:
    """Up and down between the extremes of each column; broken where nothing is finite, dotted where some is not."""
    runs: list[list[str]] = [[]]
    lost = []
    for place, column in enumerate(columns):
        x = LEFT + (WIDTH - LEFT - RIGHT) * (place + 0.5) / len(columns)
        if column is None or column.lost:
            lost.append(x)
        if column is None:
            runs.append([])
            continue
        ends = (column.low, column.high) if place % 2 else (column.high, column.low)
        heights = dict.fromkeys(f"{y - ROW / 2 * max(-CLIP, min(CLIP, value)):.1f}" for value in ends)
        runs[-1] += [f"{x:.1f},{height}" for height in heights]
    yield from (f'<polyline class="{escape(kind)}" points="{" ".join(run)}"/>' for run in runs if run)
    yield from (line(x, y - 4, x, y + 4, kind="lost") for x in lost)
