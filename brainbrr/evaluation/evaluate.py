"""Evaluation of whole recordings, one at a time: what is kept of each are counts, its events and its row.

Letters: C = 19 electrodes, N samples of a recording, B windows of a batch, L samples of a window.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from brainbrr.config import SAMPLING_RATE, Config
from brainbrr.data.labels import Event, clip_events, unite
from brainbrr.evaluation.auroc import ScoreHistogram, empty_histogram, histogram
from brainbrr.evaluation.calibration import Reliability, no_samples, reliability
from brainbrr.evaluation.compare import pooled
from brainbrr.evaluation.events import EvaluationError, Mask, Runs, mask_of, runs_from_events
from brainbrr.evaluation.patients import PatientResult, RecordingResult, peaks
from brainbrr.evaluation.postprocess import Probabilities, events_from_probabilities, require_finite
from brainbrr.evaluation.report import THESE_RECORDINGS, EvaluationReport, OperatingPoint, results_by_patient
from brainbrr.evaluation.scoring import DEFAULT_THRESHOLDS, Sweep, choose_threshold, grid_of, pool, sweep_recording
from brainbrr.evaluation.stitching import probabilities
from brainbrr.training.losses import Loss, build_loss


class Recording(Protocol):
    """A recording at 256 Hz in σ. `events` are its seizures; None means that nothing is known about them."""

    @property
    def name(self) -> str:
        """Name for messages and tables."""

    @property
    def patient(self) -> str:
        """Whose recording it is."""

    @property
    def n_samples(self) -> int:
        """N."""

    @property
    def events(self) -> tuple[Event, ...] | None:
        """Reference events in seconds."""

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Samples [start, stop) as (C, stop - start) float32."""


Progress = Callable[[int, int, str], None]
"""Called after each recording: how many are done, of how many (0: not known), and its name."""


def evaluate(
    detector: nn.Module,
    recordings: Iterable[Recording],
    config: Config,
    *,
    device: torch.device | str,
    thresholds: Iterable[float] | None = None,
    chosen: Mapping[float, float | None] | None = None,
    loss: Loss | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Score `detector` (on `device`) on labelled recordings, per recording and pooled.

    `thresholds` is the grid of tau_on to sweep (None: DEFAULT_THRESHOLDS); the configured tau_on and those in `chosen`
    join it. `chosen` maps rates of false alarms to thresholds that other patients gave (`choose_threshold`); without
    it they are chosen on these recordings. `loss(logits (B, L), target (B, L))` is averaged over the windows (None: the
    configured one). Raises EvaluationError when there is nothing to score and when a logit is not finite.
    """
    window = round(config.data.window_size * SAMPLING_RATE)
    stride = round(config.evaluation.stride * SAMPLING_RATE)
    mean = _MeanLoss(loss or build_loss(config.training), window)

    def score(recording: Recording, mask: Mask) -> Probabilities:
        return probabilities(
            detector,
            recording,
            n_samples=recording.n_samples,
            window=window,
            stride=stride,
            batch_size=config.evaluation.batch_size,
            device=device,
            on_logits=lambda logits, starts: mean.add(logits, starts, mask),
        )

    tally = _Tally(score, config, thresholds, chosen)
    tally.run(recordings, progress)
    return tally.report(mean.value)


def evaluate_scores(
    score: Callable[[Recording], Probabilities],
    recordings: Iterable[Recording],
    config: Config,
    *,
    thresholds: Iterable[float] | None = None,
    chosen: Mapping[float, float | None] | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """As `evaluate`, for anything that gives a recording's scores (N,) float32 within 0 and 1; there is no loss."""
    tally = _Tally(lambda recording, mask: score(recording), config, thresholds, chosen)
    tally.run(recordings, progress)
    return tally.report(None)


class _Tally:
    """What is kept while recordings pass by: a result each, and the binned samples of each patient."""

    def __init__(
        self,
        score: Callable[[Recording, Mask], Probabilities],
        config: Config,
        thresholds: Iterable[float] | None,
        chosen: Mapping[float, float | None] | None,
    ) -> None:
        self.score, self.config, self.chosen = score, config, chosen
        self.given = () if chosen is None else tuple(tau for tau in chosen.values() if tau is not None)
        tau_on = config.postprocessing.hysteresis.tau_on
        self.grid = grid_of(thresholds or DEFAULT_THRESHOLDS, [tau_on], self.given)
        self.results: list[RecordingResult] = []
        self.unlabelled: list[str] = []
        self.histograms: dict[str, ScoreHistogram] = {}
        self.reliabilities: dict[str, Reliability] = {}

    def run(self, recordings: Iterable[Recording], progress: Progress | None) -> None:
        """Take one recording after the other; `map` lets each go before it asks for the next."""
        total = operator.length_hint(recordings)
        for done, name in enumerate(map(self.add, recordings), start=1):
            if progress is not None:
                progress(done, total, name)

    def add(self, recording: Recording) -> str:
        """Score one recording; returns its name."""
        name, n = recording.name, recording.n_samples
        events = recording.events
        if events is None:
            self.unlabelled.append(name)
            return name
        with _named(name):
            references = runs_from_events(events, SAMPLING_RATE, n)
        mask = mask_of(references, n)
        prob = self.score(recording, mask)
        with _named(name):
            _require_scores(prob, n)
        self._keep(recording, events, references, mask, prob)
        return name

    def _keep(
        self, recording: Recording, events: tuple[Event, ...], references: Runs, mask: Mask, prob: Probabilities
    ) -> None:
        patient, postprocessing = recording.patient, self.config.postprocessing
        counts, calibration = histogram(prob, mask), reliability(prob, mask)
        self.histograms[patient] = self.histograms.get(patient, empty_histogram()) + counts
        self.reliabilities[patient] = self.reliabilities.get(patient, no_samples()) + calibration
        within, _ = clip_events(events, prob.size / SAMPLING_RATE)
        self.results.append(
            RecordingResult(
                name=recording.name,
                patient=patient,
                auroc=counts.auroc,
                ece=calibration.ece,
                altered_references=_altered(events, references),
                references=unite((event for event in within if event.start_s < event.stop_s), touching=False),
                events=events_from_probabilities(prob, SAMPLING_RATE, postprocessing),
                events_at={
                    tau: events_from_probabilities(prob, SAMPLING_RATE, postprocessing, tau_on=tau)
                    for tau in self.given
                },
                peaks=peaks(prob),
                sweep=sweep_recording(prob, references, SAMPLING_RATE, postprocessing, self.grid),
            )
        )

    def report(self, loss: float | None) -> EvaluationReport:
        """The report on all recordings seen."""
        if not self.results:
            raise EvaluationError(
                f"no labelled recording to score ({len(self.unlabelled)} without labels); expected at least one: are "
                "the .csv_bi files beside the .edf files?"
            )
        sweep = pool([result.sweep for result in self.results])
        return EvaluationReport(
            recordings=tuple(self.results),
            patients=tuple(
                PatientResult(
                    name=name,
                    recordings=several,
                    histogram=self.histograms[name],
                    reliability=self.reliabilities[name],
                )
                for name, several in results_by_patient(self.results).items()
            ),
            unlabelled=tuple(self.unlabelled),
            sweep=sweep,
            histogram=sum(self.histograms.values(), empty_histogram()),
            reliability=sum(self.reliabilities.values(), no_samples()),
            loss=loss,
            points=tuple(self._points(sweep)),
            threshold_source=THESE_RECORDINGS if self.chosen is None else "given",
            configured=sweep.score_at(self.config.postprocessing.hysteresis.tau_on),
        )

    def _points(self, sweep: Sweep) -> Iterator[OperatingPoint]:
        if self.chosen is None:
            for rate in self.config.evaluation.fa_rates:
                tau = choose_threshold(sweep, rate)
                yield OperatingPoint(fa_rate=rate, threshold=tau, score=None if tau is None else sweep.score_at(tau))
            return
        for rate, tau in self.chosen.items():
            if tau is None:
                yield OperatingPoint(fa_rate=rate, threshold=None, score=None)
                continue
            rules = pooled([result.rules_at(tau) for result in self.results])
            yield OperatingPoint(fa_rate=rate, threshold=tau, score=sweep.score_at(tau), rules=rules)


class _MeanLoss:
    """The loss over windows, weighted by the samples that count."""

    def __init__(self, loss: Loss, window: int) -> None:
        self.loss, self.window = loss, window
        self.total, self.samples = 0.0, 0

    def add(self, logits: torch.Tensor, starts: tuple[int, ...], mask: Mask) -> None:
        """One batch of logits (B, L); -1 marks the padding behind a short recording, which the loss leaves out."""
        target = np.full((len(starts), self.window), -1, dtype=np.float32)
        for row, start in enumerate(starts):
            piece = mask[start : start + self.window]
            target[row, : piece.size] = piece
        counted = int((target >= 0).sum())
        self.total += counted * float(self.loss(logits, torch.from_numpy(target).to(logits.device)))
        self.samples += counted

    @property
    def value(self) -> float | None:
        """The mean so far."""
        return self.total / self.samples if self.samples else None


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except EvaluationError as error:
        raise EvaluationError(f"{name}: {error}") from error


def _require_scores(prob: Probabilities, n: int) -> None:
    if prob.shape != (n,):
        raise EvaluationError(f"scores have the shape {prob.shape}; expected one for each sample, {(n,)}")
    require_finite(prob, SAMPLING_RATE)


def _altered(events: tuple[Event, ...], references: Runs) -> int:
    """Events that lost something on the way to runs: they reach out of the recording, are empty, or were united."""
    bounds = {(round(event.start_s * SAMPLING_RATE), round(event.stop_s * SAMPLING_RATE)) for event in events}
    return len(events) - len(bounds & {(start, stop) for start, stop in references.tolist()})
