"""NEDC's scorers EPOCH, OVLP and TAES for one pair of annotations, as `nedc_eeg_eval` v6.0.0 computes them.

Rules: Shah et al., "Objective evaluation metrics for automatic classification of EEG events" (2020), with what the
official program adds in practice; figures agree with it to the digit on the pairs in the tests. In its default
parameters an epoch is 0.25 s long and both annotations cover the recording: what is not seizure is background, and
background is scored by the same rule, which is where true negatives come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainbrr.data.labels import Event
from brainbrr.evaluation.scoring import SECONDS_PER_DAY

EPOCH_S = 0.25

Span = tuple[float, float]  # start and stop in s


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Seizures (or epochs of seizure) of one pair; fractions of them for TAES. Rates follow from the counts."""

    targets: float
    tp: float
    tn: float
    fp: float
    fn: float
    fa24: float
    """False alarms per 24 h; epochs count with their length."""

    def to_dict(self) -> dict[str, float]:
        """Counts, and what follows from them: sensitivity and precision in per cent (0 where undefined), F1."""
        sensitivity = self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0
        precision = self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0
        both = sensitivity + precision
        return {
            "targets": self.targets,
            "tp": self.tp,
            "tn": self.tn,
            "fp": self.fp,
            "fn": self.fn,
            "sens_pct": 100 * sensitivity,
            "prec_pct": 100 * precision,
            "f1": 2 * sensitivity * precision / both if both else 0.0,
            "fa24": self.fa24,
        }


def epoch(reference: Sequence[Event], hypothesis: Sequence[Event], duration_s: float) -> Confusion:
    """Labels at the middle of every 0.25 s. At a border the earlier of two neighbours counts."""
    middles = EPOCH_S / 2 + EPOCH_S * np.arange(int(duration_s / EPOCH_S) + 1)
    middles = middles[middles <= duration_s]
    truth, said = _at(middles, reference), _at(middles, hypothesis)
    false = int((said & ~truth).sum())
    return Confusion(
        targets=int(truth.sum()),
        tp=int((truth & said).sum()),
        tn=int((~truth & ~said).sum()),
        fp=false,
        fn=int((truth & ~said).sum()),
        fa24=false * EPOCH_S / duration_s * SECONDS_PER_DAY,
    )


def _at(times: np.ndarray, events: Sequence[Event]) -> np.ndarray:
    """Bool: which of `times` lie in a seizure; its first instant still belongs to what was before."""
    inside = np.zeros(times.shape, dtype=bool)
    for event in events:
        inside |= (times > event.start_s) & (times <= event.stop_s)
    return inside


def ovlp(reference: Sequence[Event], hypothesis: Sequence[Event], duration_s: float) -> Confusion:
    """Any overlap: a seizure that shares time with any hypothesis is found, a hypothesis that shares none is false."""
    truth, said = _spans(reference), _spans(hypothesis)
    quiet, said_quiet = _between(truth, duration_s), _between(said, duration_s)
    found = sum(any(_share(span, other) for other in said) for span in truth)
    false = sum(not any(_share(span, other) for other in truth) for span in said)
    return Confusion(
        targets=len(truth),
        tp=found,
        tn=sum(any(_share(span, other) for other in said_quiet) for span in quiet),
        fp=false,
        fn=len(truth) - found,
        fa24=false / duration_s * SECONDS_PER_DAY,
    )


def taes(reference: Sequence[Event], hypothesis: Sequence[Event], duration_s: float) -> Confusion:
    """Time-aligned event scoring: hits and false alarms as fractions of the reference's length."""
    truth, said = _spans(reference), _spans(hypothesis)
    hits, misses, false = _align(truth, said)
    quiet_hits, _, _ = _align(_between(truth, duration_s), _between(said, duration_s))
    return Confusion(
        targets=len(truth),
        tp=hits,
        tn=quiet_hits,
        fp=false,
        fn=misses,
        fa24=false / duration_s * SECONDS_PER_DAY,
    )


def _align(references: Sequence[Span], hypotheses: Sequence[Span]) -> tuple[float, float, float]:
    """Hits, misses and false alarms of one kind of event.

    A reference is taken up once a hypothesis shares time with it. From then on neighbours count as overlapping when
    they share a whole second of the clock (`_near`): a quirk of the official program that moves its figures.
    """
    hits = misses = false = 0.0
    missed, unused = [True] * len(references), [True] * len(hypotheses)
    for i, reference in enumerate(references):
        if not missed[i] or not any(_share(reference, hypothesis) for hypothesis in hypotheses):
            continue
        for j, hypothesis in enumerate(hypotheses):
            if not unused[j] or not _near(reference, hypothesis):
                continue
            hit, alarm = _fractions(reference, hypothesis)
            hits, misses, false = hits + hit, misses + 1 - hit, false + alarm
            missed[i] = unused[j] = False
            if hypothesis[1] >= reference[1]:  # every further reference that it spans is missed as a whole
                for k in range(i + 1, len(references)):
                    if _near(references[k], hypothesis):
                        misses, missed[k] = misses + 1, False
            else:  # further hypotheses within the same reference add to it
                for k in range(j + 1, len(hypotheses)):
                    if _near(reference, hypotheses[k]):
                        hit, alarm = _fractions(reference, hypotheses[k])
                        hits, misses, false, unused[k] = hits + hit, misses - hit, false + alarm, False
    return hits, misses + sum(missed), false + sum(unused)


def _fractions(reference: Span, hypothesis: Span) -> tuple[float, float]:
    """Shares of the reference's length that the hypothesis covers and that it sticks out, the latter at most 1.

    What is covered is negative for a neighbour that is near and does not overlap.
    """
    length = reference[1] - reference[0]
    covered = min(reference[1], hypothesis[1]) - max(reference[0], hypothesis[0])
    outside = max(0.0, reference[0] - hypothesis[0]) + max(0.0, hypothesis[1] - reference[1])
    return covered / length, min(1.0, outside / length)


def _spans(events: Sequence[Event]) -> list[Span]:
    return sorted((event.start_s, event.stop_s) for event in events)


def _between(spans: Sequence[Span], duration_s: float) -> list[Span]:
    """The background: what the seizures leave of the recording."""
    edges = [0.0, *itertools.chain.from_iterable(spans), duration_s]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]


def _share(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _near(a: Span, b: Span) -> bool:
    return int(a[0]) <= int(b[1]) and int(b[0]) <= int(a[1])
