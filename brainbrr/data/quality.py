"""Technical faults of a recording, per electrode and second: flat, saturated, popped, bridged, duplicated, mains.

Judged on the raw µV of the 19 electrodes, before any filter. C = 19, N samples at `rate` Hz.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES

FLAT_UV = 0.5  # peak to peak within a second: below the noise of any amplifier on a head
RAIL_UV = 1000.0  # a constant this far from the electrode's median is a rail and no silence
POP_SIGMA = 150.0  # of the electrode's own steps from sample to sample
POP_UV = 300.0
POP_S = 0.1  # for which the level must stay away
BRIDGED_UV2 = 1.0  # variance of the difference of two electrodes: gel between them leaves less than this
LIVELY_UV2 = 25.0  # variance of an electrode that shows EEG
MAINS_HZ = (50.0, 60.0)
MAINS_RATIO = 20.0  # power within 1 Hz of the line against that of its neighbourhood
AMPLITUDE_EVERY = 4  # seconds: the median of a quarter of them is as good
PIECE_S = 10  # for what needs more than a second to be told

Signal = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: seconds from the first sample, and the electrodes it is about."""

    kind: str
    electrodes: tuple[str, ...]
    start_s: float
    stop_s: float
    detail: str = ""


def find_faults(signal: npt.NDArray[np.floating], rate: float) -> tuple[Fault, ...]:
    """The faults of `signal` (19, N) µV, in order of time; whole seconds are judged, the rest after them is not."""
    width = max(2, round(rate))
    seconds = signal.shape[1] // width
    if not seconds:
        return ()
    blocks = np.nan_to_num(signal[:, : seconds * width].astype(np.float64)).reshape(len(signal), seconds, width)
    constant = np.ptp(blocks, axis=2) < FLAT_UV
    off = np.abs(blocks[:, :, 0] - np.median(blocks.reshape(len(signal), -1), axis=1, keepdims=True)) > RAIL_UV
    still = constant | np.roll(constant, 1, axis=1) | np.roll(constant, -1, axis=1)  # their edges are no pops
    twins = dict(_twins(blocks))
    found = [
        *_stretches("flat", constant & ~off),
        *_stretches("saturated", constant & off),
        *_stretches("pop", _pops(blocks, rate) & ~still),
        *_mains(blocks, rate),
        *_bridged(blocks, constant, set(twins)),
        *(
            Fault(kind="duplicated", electrodes=_names(pair), start_s=0.0, stop_s=float(seconds), detail=how)
            for pair, how in twins.items()
        ),
    ]
    return tuple(sorted(found, key=lambda fault: (fault.start_s, fault.kind, fault.electrodes)))


def amplitudes(signal: npt.NDArray[np.floating], rate: float) -> tuple[float, ...]:
    """The usual amplitude of each electrode of `signal` (19, N) µV: the median of its standard deviations by second.

    Neither drift nor a few bad stretches move it. Every AMPLITUDE_EVERYth second is looked at; a recording of less
    than one is taken as a whole.
    """
    width = min(max(2, round(rate)), signal.shape[1])
    seconds = signal.shape[1] // width
    return tuple(  # row by row: a whole recording is not copied
        float(np.median(np.nan_to_num(row[: seconds * width].reshape(seconds, width)[::AMPLITUDE_EVERY]).std(axis=1)))
        for row in signal
    )


def _pops(blocks: Signal, rate: float) -> Mask:
    """(C, seconds): a step far out of the electrode's own, after which the level stays away: a spike comes back."""
    rows = blocks.reshape(len(blocks), -1)
    steps = np.abs(np.diff(rows, axis=1, prepend=rows[:, :1]))
    usual = 1.4826 * np.median(steps, axis=1, keepdims=True)
    found = np.zeros(blocks.shape[:2], dtype=np.bool_)
    reach = max(2, round(POP_S * rate))
    for row, at in np.argwhere(steps > np.maximum(POP_SIGMA * usual, POP_UV)):
        before, after = rows[row, max(0, at - reach) : at], rows[row, at : at + reach]
        if abs(float(after.mean() - before.mean())) > steps[row, at] / 2:
            found[row, at // blocks.shape[2]] = True
    return found


def _mains(blocks: Signal, rate: float) -> Iterator[Fault]:
    for line in (line for line in MAINS_HZ if line + 6 < rate / 2):
        loud = np.zeros(blocks.shape[:2], dtype=np.bool_)
        for start, piece in _pieces(blocks):
            power = np.abs(np.fft.rfft(piece * np.hanning(piece.shape[1]), axis=1)) ** 2
            distance = np.abs(np.fft.rfftfreq(piece.shape[1], 1 / rate) - line)
            on = power[:, distance <= 1].mean(axis=1)
            around = power[:, (distance > 2) & (distance <= 6)].mean(axis=1)
            loud[:, start : start + PIECE_S] = (on > MAINS_RATIO * around)[:, None] & (around > 0)[:, None]
        yield from _stretches("mains", loud, f"{line:g} Hz")


def _bridged(blocks: Signal, constant: Mask, twins: set[tuple[int, int]]) -> Iterator[Fault]:
    together: dict[tuple[int, int], list[bool]] = {pair: [] for pair in itertools.combinations(range(len(blocks)), 2)}
    for start, piece in _pieces(blocks):
        dead = constant[:, start : start + PIECE_S].any(axis=1)
        shown = set(np.flatnonzero((piece.var(axis=1) > LIVELY_UV2) & ~dead).tolist())
        for (a, b), close in together.items():
            close.append({a, b} <= shown and float(np.var(piece[a] - piece[b])) < BRIDGED_UV2)
    for pair, close in together.items():
        if pair not in twins:
            for first, last in _runs(np.array(close, dtype=np.bool_)):
                start_s, stop_s = float(first * PIECE_S), float(last * PIECE_S)
                yield Fault(kind="bridged", electrodes=_names(pair), start_s=start_s, stop_s=stop_s)


def _twins(blocks: Signal) -> Iterator[tuple[tuple[int, int], str]]:
    """Pairs whose signals are the same, or each other's negative, over the whole recording.

    The same means closer than two amplifiers ever come: a copy differs by its rounding alone.
    """
    rows = blocks.reshape(len(blocks), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    for a, b in itertools.combinations(range(len(rows)), 2):
        size = np.abs(rows[a]).max()
        if size > 10 * FLAT_UV:
            for sign, how in ((1.0, "identical"), (-1.0, "inverted")):
                if np.abs(rows[a] - sign * rows[b]).max() < max(1e-3 * size, FLAT_UV / 2):
                    yield (a, b), how


def _pieces(blocks: Signal) -> Iterator[tuple[int, Signal]]:
    """Whole stretches of PIECE_S seconds, (C, samples), each without its mean, by their first second."""
    for start in range(0, blocks.shape[1] - PIECE_S + 1, PIECE_S):
        piece = blocks[:, start : start + PIECE_S].reshape(len(blocks), -1)
        yield start, piece - piece.mean(axis=1, keepdims=True)


def _stretches(kind: str, where: Mask, detail: str = "") -> Iterator[Fault]:
    """Seconds that follow each other become one fault; electrodes with the same stretch stand together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, seconds in enumerate(where):
        for run in _runs(seconds):
            groups.setdefault(run, []).append(row)
    for (first, last), rows in groups.items():
        yield Fault(kind=kind, electrodes=_names(rows), start_s=float(first), stop_s=float(last), detail=detail)


def _runs(where: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _names(rows: Any) -> tuple[str, ...]:
    return tuple(ELECTRODES[row] for row in rows)
