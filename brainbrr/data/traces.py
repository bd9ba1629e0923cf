"""Traces of a recording as a picture: electrode under electrode, with labels above and predictions below.

An SVG file in a page's colours, drawn on whole points: where more samples than points lie side by side, each point
shows the least and the greatest of its samples, so that no spike is lost. C electrodes, N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from brainbrr.data.labels import Event
from brainbrr.data.quality import Fault
from brainbrr.page import colour

WIDTH, LEFT, ROW, BAND = 1000, 44, 26, 18
SUB = 4  # steps of a path within a point
_TICKS = 10

Signal = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What is shown beside the traces; None: not known, no band. `probabilities` (N,) at `probability_rate` Hz."""

    labels: Sequence[Event] | None = None
    predictions: Sequence[Event] | None = None
    probabilities: npt.NDArray[np.float32] | None = None
    probability_rate: float = 256.0
    faults: Sequence[Fault] = ()


def usual_amplitude(signal: Signal) -> float:
    """µV that one row stands for: ten times the median electrode's usual deviation; never 0."""
    centred = signal[:, :: max(1, signal.shape[1] // 20_000)]
    spread = np.median(np.abs(centred - np.median(centred, axis=1, keepdims=True)), axis=1)
    return max(1.0, float(10 * np.median(spread)))


def traces(
    signal: Signal, rate: float, names: Sequence[str], marks: Marks, *, start_s: float, stop_s: float, row_uv: float
) -> str:
    """The SVG of the seconds `start_s` to `stop_s` of `signal` (C, N) µV; `row_uv` µV are the height of a row."""
    seconds = _Seconds(start_s, stop_s)
    piece = np.nan_to_num(signal[:, round(start_s * rate) : round(stop_s * rate)])
    height = 2 * BAND + ROW * len(names) + 20
    parts = [*_grid(seconds, height), *_spans(seconds, marks, height), *_faults(seconds, marks.faults, names)]
    for row, (name, values) in enumerate(zip(names, piece, strict=True)):
        middle = BAND + ROW * row + ROW // 2
        parts.append(_text(LEFT - 6, middle + 4, name, anchor="end"))
        levels = (values - np.median(values)) * (-ROW / row_uv) if values.size else values
        parts.append(_path(np.clip(levels, -ROW, ROW), LEFT, middle, "ink"))
    if marks.probabilities is not None:
        parts += _probabilities(seconds, marks, height)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-size="11">'
    return "".join([head, *parts, "</svg>"])


class _Seconds:
    """From seconds to points across."""

    def __init__(self, start: float, stop: float) -> None:
        self.start, self.stop = start, stop

    def x(self, second: float) -> float:
        share = (min(max(second, self.start), self.stop) - self.start) / (self.stop - self.start)
        return LEFT + (WIDTH - LEFT) * share

    def shows(self, start: float, stop: float) -> bool:
        return start < self.stop and stop > self.start


def _path(levels: Signal, left: float, middle: float, name: str) -> str:
    """A line through `levels` (points down from `middle`), evenly over the width."""
    columns = (WIDTH - LEFT) * 2
    if levels.size > 2 * columns:
        edges = np.linspace(0, levels.size, columns + 1).astype(np.int64)[:-1]
        levels = np.stack([np.minimum.reduceat(levels, edges), np.maximum.reduceat(levels, edges)], axis=1).reshape(-1)
    if levels.size < 2:
        return ""
    y = np.rint(SUB * levels).astype(np.int64)
    x = np.rint(np.linspace(0, SUB * (WIDTH - LEFT), y.size)).astype(np.int64)
    steps = "".join(f"l{dx} {dy}" for dx, dy in zip(np.diff(x).tolist(), np.diff(y).tolist(), strict=True))
    return (
        f'<path transform="translate({left:g} {middle:g}) scale({1 / SUB:g})" d="M0 {y[0]}{steps}" '
        f'style="fill: none; stroke: {colour(name)}; stroke-width: {0.7 * SUB:g}"/>'
    )


def _grid(seconds: _Seconds, height: int) -> Iterator[str]:
    span = seconds.stop - seconds.start
    step = next(
        s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10**9) if span / s <= _TICKS * 2
    )
    first = int(np.ceil(seconds.start / step))
    for k in range(first, int(seconds.stop / step) + 1):
        x = seconds.x(k * step)
        yield f'<path d="M{x:.1f} {BAND}V{height - 20}" style="stroke: {colour("line")}"/>'
        yield _text(x, height - 6, f"{k * step:g} s", anchor="middle")


def _spans(seconds: _Seconds, marks: Marks, height: int) -> Iterator[str]:
    bands = (("labels", marks.labels, 0, "good"), ("found", marks.predictions, height - 20 - BAND, "bad"))
    for word, events, top, name in bands:
        if events is None:
            continue
        yield _text(LEFT - 6, top + 13, word, anchor="end")
        for event in events:
            if seconds.shows(event.start_s, event.stop_s):
                left, right = seconds.x(event.start_s), seconds.x(event.stop_s)
                yield _box(left, top + 3, max(1.0, right - left), BAND - 6, name, 1.0)
                yield _box(left, BAND, max(1.0, right - left), height - 20 - 2 * BAND, name, 0.12)


def _faults(seconds: _Seconds, faults: Iterable[Fault], names: Sequence[str]) -> Iterator[str]:
    for fault in faults:
        if fault.kind == "mains" or not seconds.shows(fault.start_s, fault.stop_s):
            continue
        left, right = seconds.x(fault.start_s), seconds.x(fault.stop_s)
        for electrode in set(fault.electrodes) & set(names):
            yield _box(left, BAND + ROW * names.index(electrode), max(1.0, right - left), ROW, "dim", 0.25)


def _probabilities(seconds: _Seconds, marks: Marks, height: int) -> list[str]:
    assert marks.probabilities is not None
    rate = marks.probability_rate
    piece = marks.probabilities[round(seconds.start * rate) : round(seconds.stop * rate)]
    bottom = height - 22
    return [_path(-piece.astype(np.float64) * (BAND - 4), LEFT, bottom, "curve")]


def _box(left: float, top: float, width: float, height: float, name: str, opacity: float) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'style="fill: {colour(name)}; fill-opacity: {opacity:g}"/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill: {colour("dim")}">{escape(text)}</text>'
