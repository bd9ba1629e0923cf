"""A cache as one page: sums, distributions, electrodes and patients of each split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from brainbrr.data.cache_inspection import (
    QUANTILES,
    CacheInspection,
    SplitInspection,
    distribution_rows,
    electrode_rows,
)
from brainbrr.page import colour, heading, listing, page, paragraph, side_by_side, table
from brainbrr.picture import SQUARE, Picture

PATIENTS = 200


def cache_page(inspection: CacheInspection) -> str:
    """The whole page; the same cache gives the same bytes."""
    return page(inspection.cache, _body(inspection))


def _body(inspection: CacheInspection) -> Iterator[str]:
    yield paragraph(inspection.report.text())
    for split in inspection.splits:
        name = split.scan.split
        yield heading(name)
        yield side_by_side(picture.on_page() for picture in _pictures(split))
        yield table(distribution_rows(split))
        yield paragraph(_tails(split))
        yield heading(f"{name}: electrodes")
        yield table(electrode_rows(split))
        yield heading(f"{name}: patients")
        yield table(_patient_rows(split))
        if len(split.patients) > PATIENTS:
            yield paragraph(f"{len(split.patients) - PATIENTS} patients more in the JSON.")
        yield listing([f"failed: {failure.name}: {failure.reason}" for failure in split.scan.failed])


def _tails(split: SplitInspection) -> str:
    beyond = ", ".join(f"{share:.3%} beyond {sigma} σ" for sigma, share in split.beyond.items())
    rates = ", ".join(f"{count} at {rate}" for rate, count in split.source_rates.items())
    return f"Of all samples {beyond}, {split.clipped:.3%} clipped. Recordings: {rates}."


def _patient_rows(split: SplitInspection) -> list[list[str]]:
    ordered = sorted(split.patients.items(), key=lambda item: (-item[1]["hours"], item[0]))[:PATIENTS]
    rows = [
        [name, f"{entry['recordings']:.0f}", f"{entry['hours']:.2f}", f"{entry['seizures']:.0f}"]
        for name, entry in ordered
    ]
    return [["patient", "recordings", "hours", "seizures"], *rows]


def _pictures(split: SplitInspection) -> Iterator[Picture]:
    name = split.scan.split
    yield Picture(
        name=f"{name}-amplitudes",
        caption=f"{name}: usual amplitude of each electrode over the recordings, median and 5 to 95 %",
        size=SQUARE,
        draw=lambda axes: _amplitudes(axes, split),
    )
    hours = np.array([line.hours for line in split.scan.recordings])
    yield Picture(
        name=f"{name}-durations",
        caption=f"{name}: length of {hours.size} recordings",
        size=SQUARE,
        draw=lambda axes: _histogram(axes, 60 * hours, "minutes", "recordings"),
    )


def _amplitudes(axes: Any, split: SplitInspection) -> None:
    known = [each for each in split.electrodes if each.amplitudes_uv]
    low, middle, high = (
        np.array([each.amplitudes_uv[QUANTILES.index(q)] for each in known]) for q in (0.05, 0.5, 0.95)
    )
    places = np.arange(len(known))
    axes.hlines(places, low, high, color=colour("dim"))
    axes.plot(middle, places, linestyle="none", marker="o", color=colour("curve"))
    axes.set_yticks(places, [each.electrode for each in known])
    axes.invert_yaxis()
    axes.set(xlabel="µV")


def _histogram(axes: Any, values: Any, what: str, counted: str) -> None:
    axes.hist(values, bins=min(40, max(5, values.size)), color=colour("curve"))
    axes.set(xlabel=what, ylabel=counted)
