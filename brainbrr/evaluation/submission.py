"""What SzCORE's reviewers run on a submitted detector, and what scores there as all zeros without a word.

Each check writes an EDF file, runs the detector on it as the container would, and reads the table back. The rules are
those of `epilepsy2bids` and `szcore-evaluation`: a header row of seven columns, event types they know, a duration that
equals the reference's, at least one row, and events that live on a grid of 1 Hz.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from brainbrr.config import ELECTRODES, Config
from brainbrr.data.errors import RecordingError
from brainbrr.data.formats import write_label_file
from brainbrr.data.formats.bids import COLUMNS
from brainbrr.data.labels import Event, LabelFile
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.predict import Prediction, read_and_predict
from brainbrr.evaluation.szcore import on_grid

# Ours by name is theirs by name; by position eight of them differ.
SZCORE_ORDER = (
    *("Fp1", "F3", "C3", "P3", "O1", "F7", "T3", "T5", "Fz", "Cz"),
    *("Pz", "Fp2", "F4", "C4", "P4", "O2", "F8", "T4", "T6"),
)
_TEN_TEN = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
RATE = 256


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One check: what was tried, whether it holds, and what was seen."""

    check: str
    holds: bool
    seen: str


def check_submission(detector: nn.Module, config: Config, *, device: torch.device) -> tuple[Outcome, ...]:
    """Run every check with `detector` (on `device`)."""
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(detector, config, device, Path(folder))
        return tuple(_outcome(name, check, bench) for name, check in _CHECKS.items())


def _outcome(name: str, check: Check, bench: _Bench) -> Outcome:
    try:
        holds, seen = check(bench)
    except (EvaluationError, RecordingError) as error:
        holds, seen = False, str(error)
    return Outcome(check=name, holds=holds, seen=seen)


@dataclass(frozen=True)
class _Bench:
    detector: nn.Module
    config: Config
    device: torch.device
    folder: Path

    def run(self, name: str, signal: np.ndarray, labels: Sequence[str], record_s: float = 1.0) -> Prediction:
        """Write `signal` (C, N) µV as an EDF file and predict."""
        import edfio

        path = self.folder / f"{name}.edf"
        signals = [
            edfio.EdfSignal(row, RATE, label=label, physical_dimension="uV", physical_range=(-3276.8, 3276.7))
            for row, label in zip(signal, labels, strict=True)
        ]
        edfio.Edf(signals, data_record_duration=record_s).write(path)
        return read_and_predict(self.detector, self.config, path, device=self.device)

    def table(self, name: str, labels: LabelFile) -> list[list[str]]:
        """The table that the container would leave, cell by cell."""
        path = self.folder / f"{name}.tsv"
        write_label_file(path, labels, layout="bids")
        return [line.split("\t") for line in path.read_text().splitlines()]


Check = Callable[[_Bench], tuple[bool, str]]
"""Whether it holds, and what was seen."""


def _eeg(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 30, (len(ELECTRODES), round(seconds * RATE))).clip(-3000, 3000)


def _names(order: Sequence[str]) -> list[str]:
    return [f"{name}-Avg" for name in order]


def _two_seconds(bench: _Bench) -> tuple[bool, str]:
    head, *rows = bench.table("two", bench.run("two", _eeg(2), _names(SZCORE_ORDER)).labels)
    holds = head == list(COLUMNS) and len(rows) >= 1 and all(len(row) == len(COLUMNS) for row in rows)
    return holds, f"{len(rows)} row(s) under {', '.join(head)}"


def _order_of_electrodes(bench: _Bench) -> tuple[bool, str]:
    signal = _eeg(30)
    theirs = [ELECTRODES.index(name) for name in SZCORE_ORDER]
    first = bench.run("ours", signal, _names(ELECTRODES)).probabilities
    second = bench.run("theirs", signal[theirs], _names(SZCORE_ORDER)).probabilities
    apart = float(np.abs(first - second).max())
    return apart == 0, f"largest difference {apart:g}"


def _other_names(bench: _Bench) -> tuple[bool, str]:
    signal = _eeg(30)
    names = [_TEN_TEN.get(name, name).upper() for name in ELECTRODES]
    first = bench.run("ours", signal, _names(ELECTRODES)).probabilities
    apart = float(np.abs(first - bench.run("ten-ten", signal, names).probabilities).max())
    return apart == 0, f"largest difference {apart:g}"


def _length(bench: _Bench) -> tuple[bool, str]:
    labels = bench.run("length", _eeg(75.5), _names(ELECTRODES), record_s=0.5).labels
    told = bench.table("length", labels)[1][-1]
    return told == "75.50", f"{told} s of 75.50 s"


def _short_events(bench: _Bench) -> tuple[bool, str]:
    shortest = bench.config.postprocessing.duration.min
    lost = not on_grid((Event(start_s=10.01, stop_s=10.01 + shortest),), 60).any()
    return not lost, f"postprocessing.duration.min is {shortest:g} s"


def _nothing_but_numbers(bench: _Bench) -> tuple[bool, str]:
    signal = _eeg(30)
    signal[:, 1000:4000] = 0.0
    prob = bench.run("flat", signal, _names(ELECTRODES)).probabilities
    return bool(np.isfinite(prob).all()), f"up to {prob.max():.3f}"


def _speed(bench: _Bench) -> tuple[bool, str]:
    started = time.perf_counter()
    bench.run("minutes", _eeg(600), _names(ELECTRODES))
    hours = 24 * 6 * (time.perf_counter() - started) / 3600
    return hours < 24, f"about {hours:.2g} h here"


_CHECKS: dict[str, Check] = {
    "a recording of 2 s gives a table": _two_seconds,
    "electrodes are found by name": _order_of_electrodes,
    "T7, T8, P7 and P8 are known": _other_names,
    "recordingDuration is that of the file": _length,
    "no event vanishes on the grid of 1 Hz": _short_events,
    "a disconnected amplifier gives numbers": _nothing_but_numbers,
    "a day of EEG takes less than a day": _speed,
}
