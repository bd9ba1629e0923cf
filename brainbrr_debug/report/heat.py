"""When and where readings left their usual range: steps across, places of the program down. Imports no torch."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape

from brainbrr_debug.quantities import (
    ABSMAX,
    CONDITION,
    EIGENGAP,
    GRADIENT_NORM,
    LOSS,
    MODULE_SUM,
    OUTPUT_SUM,
    STATE_NORM,
)
from brainbrr_debug.records import Reading
from brainbrr_debug.report.curves import abnormal
from brainbrr_debug.report.figure import cross, figure, line, shown, text, ticks

QUANTITIES = (EIGENGAP, CONDITION, ABSMAX, MODULE_SUM, LOSS, GRADIENT_NORM, OUTPUT_SUM, STATE_NORM)
"""Of a place and phase the first of these that it has readings of is shown."""
COLUMNS, ROWS = 120, 36
SHADES = 4
"""Powers of ten off the row's median at which a cell is as dark as it gets."""

WIDTH, LABELS, TOP, ROW = 1000, 300, 44, 18


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The most unusual reading of a place in some steps, `off` powers of ten from the median of its row."""

    reading: Reading
    off: float
    abnormal: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of a module and `modules` - 1 modules inside of it; None where a column has no reading of it."""

    phase: str
    site: str
    quantity: str
    cells: tuple[Cell | None, ...]
    modules: int = 1

    @property
    def worst(self) -> tuple[bool, float]:
        """Sorts the most unusual row last."""
        return max((cell.abnormal, cell.off) for cell in self.cells if cell is not None)

    @property
    def name(self) -> str:
        """Module and quantity, and which way it was read where that can be either."""
        quantity = self.quantity
        if quantity in (ABSMAX, MODULE_SUM):
            quantity = "gradient" if self.phase == "backward" else "output"
        return f"{self.site or 'the model'}{f' ({self.modules})' if self.modules > 1 else ''} · {quantity}"

    def holds(self, reading: Reading) -> bool:
        """Whether it is the row of this reading's place."""
        return self.phase == reading.phase and _within(reading.site, self.site)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """Rows in the order in which the program comes by them; each column is the steps from its start to the next one.

    `left_out` counts rows that are not more unusual than any that is here.
    """

    starts: tuple[int, ...]
    stop: int
    rows: tuple[Row, ...]
    left_out: int = 0

    def column(self, step: int) -> int:
        """The column that a step belongs to."""
        return bisect.bisect_right(self.starts, step) - 1


def heat(readings: Sequence[Reading]) -> Heat | None:
    """The strip of a run; None where nothing was read."""
    places: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    for reading in readings:
        places[reading.phase, reading.site].append(reading)
    steps = sorted({reading.step for reading in readings})
    columns = min(COLUMNS, len(steps))
    starts = tuple(steps[n * len(steps) // columns] for n in range(columns))
    strip = Heat(starts=starts, stop=max(steps, default=0), rows=())
    rows = [row for found in places.values() if (row := _row(found, strip)) is not None]
    if not rows:
        return None
    rows = _condensed(rows)
    kept = sorted(range(len(rows)), key=lambda n: (*rows[n].worst, -n))[-ROWS:]
    return dataclasses.replace(strip, rows=tuple(rows[n] for n in sorted(kept)), left_out=len(rows) - len(kept))


def _row(readings: Sequence[Reading], strip: Heat) -> Row | None:
    """The row of one place; of quantities that are not in `QUANTITIES` only what is abnormal is shown."""
    names = {reading.quantity for reading in readings}
    bad = (reading.quantity for reading in readings if abnormal(reading.quantity, reading.value))
    quantity = next((name for name in QUANTITIES if name in names), next(bad, None))
    if quantity is None:
        return None
    values = [abs(r.value) for r in readings if r.quantity == quantity and r.value and math.isfinite(r.value)]
    middle = math.log10(statistics.median(values)) if values else 0.0
    cells: list[Cell | None] = [None] * len(strip.starts)
    for reading in readings:
        out = abnormal(reading.quantity, reading.value)
        if out or reading.quantity == quantity:
            regular = not out and reading.value and math.isfinite(reading.value)
            off = abs(math.log10(abs(reading.value)) - middle) if regular else 0.0
            column = strip.column(reading.step)
            cells[column] = _worse(cells[column], Cell(reading=reading, off=off, abnormal=out))
    return Row(phase=readings[0].phase, site=readings[0].site, quantity=quantity, cells=tuple(cells))


def _condensed(rows: Sequence[Row]) -> list[Row]:
    """Modules together with those inside of them, as deep as it takes to have no more than `ROWS`, but one at least."""
    for depth in range(max(row.site.count(".") for row in rows) + 1, 0, -1):
        groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        for row in rows:
            groups[row.phase, ".".join(row.site.split(".")[:depth]), row.quantity].append(row)
        if len(groups) <= ROWS:
            break
    return [_together(site, found) for (_, site, _), found in groups.items()]


def _together(site: str, rows: Sequence[Row]) -> Row:
    cells = [functools.reduce(_worse, column) for column in zip(*(row.cells for row in rows), strict=True)]
    return dataclasses.replace(
        rows[0], site=site if len(rows) > 1 else rows[0].site, cells=tuple(cells), modules=len(rows)
    )


def _worse(one: Cell | None, other: Cell | None) -> Cell | None:
    """The more unusual of two; the first where they are alike."""
    if one is None or other is None:
        return other if one is None else one
    return other if (other.abnormal, other.off) > (one.abnormal, one.off) else one


def _within(site: str, outer: str) -> bool:
    return site == outer or (outer != "" and site.startswith(f"{outer}."))


# The picture --------------------------------------------------------------------------------------------------------


def strip(found: Heat, first: Reading | None) -> str:
    """The strip, with the first abnormal reading of the run marked and named."""
    wide = (WIDTH - LABELS - 8) / len(found.starts)
    height = TOP + ROW * len(found.rows) + 26
    parts = [*_legend(), *_axis(found, wide, height)]
    ring, marked = "", _place_of(first, found)
    for place, row in enumerate(found.rows):
        y = TOP + ROW * place
        name = row.name if len(row.name) <= 44 else f"…{row.name[-43:]}"
        parts.append(text(LABELS - 6, y + 13, name, anchor="end"))
        for column, cell in enumerate(row.cells):
            if cell is None:
                continue
            x = LABELS + wide * column
            parts.append(_drawn(cell, x, y, wide))
            if first is not None and (place, column) == marked:
                ring = _ring(first, x, y, wide)
    told = f"{len(found.rows)} places over {len(found.starts)} columns of steps up to step {found.stop}; "
    told += _said(first) if first is not None else "nothing abnormal"
    return figure("Readings, step by step", told, [*parts, ring], width=WIDTH, height=height, kind="wide")


def _place_of(first: Reading | None, found: Heat) -> tuple[int, int] | None:
    """Row and column of the first abnormal reading: where its own quantity is shown, if it is."""
    if first is None:
        return None
    column = found.column(first.step)
    rows = [n for n, row in enumerate(found.rows) if row.holds(first) and (cell := row.cells[column]) and cell.abnormal]
    row = min(rows, default=None, key=lambda n: found.rows[n].quantity != first.quantity)
    return None if row is None else (row, column)


def _legend() -> Iterable[str]:
    for shade in range(SHADES + 1):
        x = WIDTH - 40 * (SHADES + 1 - shade)
        yield f'<rect class="heat{shade}" x="{x}" y="5" width="13" height="13"/>'
        yield text(x + 17, 16, f"{shade}{'+' if shade == SHADES else ''}")


def _axis(found: Heat, wide: float, height: int) -> Iterable[str]:
    for step in ticks(found.starts[0], found.stop):
        yield text(LABELS + wide * (found.column(step) + 0.5), height - 8, str(step), anchor="middle")
    yield text(LABELS - 6, height - 8, "step", anchor="end")


def _drawn(cell: Cell, x: float, y: float, wide: float) -> str:
    size = f'x="{x:.1f}" y="{y + 1:.1f}" width="{max(0.8, wide - 1):.1f}" height="{ROW - 2}"'
    if not cell.abnormal:
        return f'<rect class="heat{min(SHADES, round(cell.off))}" {size}/>'
    told = f"<title>{escape(_said(cell.reading, 'abnormal'))}</title>"
    return (
        f'<g>{told}<rect class="broken" {size}/>'
        + f"{cross(x + wide / 2 - 0.5, y + ROW / 2, min(4.0, max(1.5, wide / 3)))}</g>"
    )


def _ring(reading: Reading, x: float, y: float, wide: float) -> str:
    middle = x + wide / 2
    right = middle > (LABELS + WIDTH) / 2
    words = text(middle + (-4 if right else 4), 34, _said(reading), anchor="end" if right else "start", kind="mark")
    size = f'x="{x - 1.5:.1f}" y="{y - 0.5:.1f}" width="{max(4.0, wide + 2):.1f}" height="{ROW + 1}"'
    return line(middle, 38, middle, y, kind="mark") + f'<rect class="ring" {size}/>' + words


def _said(reading: Reading, what: str = "first abnormal") -> str:
    place = reading.site or "the model"
    return f"{what}: {reading.quantity} {shown(reading.value)} at {place}, step {reading.step}"
