"""The matrices of a step as one self-contained page: no network, no script. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from brainbrr_debug.report.elements import document, folded, section, table
from brainbrr_debug.report.spectrum_plot import STYLE, Bar, levels, scatter
from brainbrr_debug.report.spectrum_text import (
    HEADS,
    Row,
    cells,
    closeness,
    counted,
    label,
    place,
    reason,
    rows_of,
    summary,
)
from brainbrr_debug.sentence import sample_name

if TYPE_CHECKING:
    from brainbrr_debug.matrices import Call
    from brainbrr_debug.spectrum import Spectrum

DRAWN = 12
"""So many places in the program are drawn, the worst first."""
ROWS = 400


def spectrum_page(spectrum: Spectrum) -> str:
    """The whole page: what is degenerate, plots for each place in the program, then every row."""
    rows = rows_of(spectrum)
    title = f"Spectrum of step {spectrum.step}"
    fine = "" if spectrum.degenerate or spectrum.error else " fine"
    body = [f"<h1>{title}</h1>", f'<p class="dim">{escape(spectrum.capture)}</p>']
    body.append(f'<p class="verdict{fine}">{escape(_headline(spectrum))}</p>')
    body += _degenerate(spectrum, rows) + _drawings(rows) + _table(rows)
    return document(title, body, style=STYLE)


def _headline(spectrum: Spectrum) -> str:
    told = summary(spectrum)
    told = told[:1].upper() + told[1:] + "."
    if spectrum.error is not None:
        told += f" The step ended with an error: {spectrum.error}."
    for reason_, count in spectrum.unseen.items():
        told += f" {counted(count, 'call')} on a tensor that holds no plain numbers could not be measured: {reason_}."
    return told


def _degenerate(spectrum: Spectrum, rows: Sequence[Row]) -> list[str]:
    bad = [each for each in rows if each.beyond]
    if not bad:
        return []
    lines = []
    for each in bad[:ROWS]:
        matrix = each.worst
        known = spectrum.identity(each.call, matrix)
        sample = "" if matrix.sample is None else sample_name({"index": matrix.sample, **known})
        lines.append([each.call.name, place(each.call), sample, reason(each.call, matrix)])
    return [section("Degenerate", _rows(("operation", "where", "sample", "why"), lines))]


def _drawings(rows: Sequence[Row]) -> list[str]:
    """Plots of each place in the program that calls an operation, the worst place first."""
    places: dict[tuple[str, str, str], list[Row]] = {}
    for each in rows:
        places.setdefault((each.call.name, each.call.site, each.call.location), []).append(each)
    parts = []
    for here in itertools.islice(places.values(), DRAWN):
        first = here[0].call
        parts.append(section(f"{first.name} in {place(first)}", *_plots(here)))
    if len(places) > DRAWN:
        parts.append(f'<p class="dim">{counted(len(places) - DRAWN, "place")} no worse than these: not drawn.</p>')
    return parts


def _plots(here: Sequence[Row]) -> list[str]:
    ordered = sorted(here, key=lambda each: (each.call.micro_batch, each.worst.sample or 0, each.worst.index))
    limits = here[0].call.limits
    plots = []
    if here[0].worst.gap is not None:
        bars = [_bar(each, [m.gap for m in each.matrices], low=True) for each in ordered]
        plots.append(scatter("Smallest relative gap of each sample", bars, limit=limits.gap, low=True))
    if not here[0].call.divided_by_gaps:
        bars = [_bar(each, [m.scaled or m.condition for m in each.matrices], low=False) for each in ordered]
        plots.append(scatter("Condition number of each sample", bars, limit=limits.condition, low=False))
    plots += _spectra(here[0].call, max(here, key=lambda each: closeness(each.worst)).call)
    return plots


def _spectra(worst: Call, best: Call) -> list[str]:
    if "worst" not in worst.spectra:
        return ['<p class="dim">The worst matrix is not finite and has no spectrum.</p>']
    other = best.spectra.get("best", ()) if best.best.index != worst.worst.index or best is not worst else ()
    what = "Eigenvalues" if worst.name in ("eigh", "eig", "cholesky") else "Singular values"
    return [levels(f"{what} of the worst matrix and of the healthiest", worst.spectra["worst"], other)]


def _bar(each: Row, values: Sequence[float | None], *, low: bool) -> Bar:
    numbers = [value for value in values if value is not None and value == value]
    worst, best = (min, max) if low else (max, min)
    return Bar(
        label=label(each), worst=worst(numbers, default=None), best=best(numbers, default=None), bad=bool(each.beyond)
    )


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    shown = [cells(each) for each in rows[:ROWS]]
    note = f'<p class="dim">{len(rows) - ROWS} rows more in --format json.</p>' if len(rows) > ROWS else ""
    heads = (*HEADS, "gradient", "verdict")
    body = _rows(heads, [[*line[: len(HEADS)], *line[-2:]] for line in shown])
    return [section("All matrices", folded(f"{len(rows)} rows", body, note))]


def _rows(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return table(heads, ([escape(cell) for cell in line] for line in lines))
