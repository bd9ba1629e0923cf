"""Whether probabilities mean what they say: samples binned by probability, against the share of them in seizures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15
"""Of equal width over 0 to 1, the last one closed."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """One row of the table; the two means are None in a bin without samples."""

    low: float
    high: float
    samples: int
    mean_probability: float | None
    seizure_share: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Per bin (BINS,): samples, those of them in a seizure, int64; the sum of their probabilities, float64."""

    samples: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]

    def __add__(self, other: Reliability) -> Reliability:
        """The bins of both sets of samples."""
        return Reliability(
            samples=self.samples + other.samples,
            positives=self.positives + other.positives,
            confidence=self.confidence + other.confidence,
        )

    @property
    def ece(self) -> float | None:
        """Expected calibration error: |share in seizures - mean probability| of the bins, weighted by their samples."""
        total = int(self.samples.sum())
        return float(np.abs(self.positives - self.confidence).sum()) / total if total else None

    def table(self) -> tuple[ReliabilityBin, ...]:
        """One row a bin, ascending."""
        rows = zip(self.samples.tolist(), self.positives.tolist(), self.confidence.tolist(), strict=True)
        return tuple(
            ReliabilityBin(
                low=k / BINS,
                high=(k + 1) / BINS,
                samples=samples,
                mean_probability=confidence / samples if samples else None,
                seizure_share=positives / samples if samples else None,
            )
            for k, (samples, positives, confidence) in enumerate(rows)
        )


def no_samples() -> Reliability:
    """The bins of no samples."""
    return reliability(np.empty(0, dtype=np.float32), np.empty(0, dtype=np.bool_))


def reliability(prob: npt.NDArray[np.float32], target: npt.NDArray[np.bool_]) -> Reliability:
    """Bin the probabilities (N,) of one recording by its mask of seizures (N,)."""
    bins = np.minimum((prob.astype(np.float64) * BINS).astype(np.int64), BINS - 1)
    return Reliability(
        samples=np.bincount(bins, minlength=BINS),
        positives=np.bincount(bins[target], minlength=BINS),
        confidence=np.bincount(bins, weights=prob, minlength=BINS).astype(np.float64),  # whole numbers where empty
    )
