"""Area under the ROC curve over any number of samples in constant memory: histograms that add up over recordings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 4096
LARGEST_LOGIT = 16.0
_CHUNK = 1 << 20  # samples handled at once


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreHistogram:
    """Samples per bin of the logit, (BINS,) int64 each: those within a seizure, and the others."""

    positives: npt.NDArray[np.int64]
    negatives: npt.NDArray[np.int64]

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        """The histogram of both sets of samples."""
        return ScoreHistogram(positives=self.positives + other.positives, negatives=self.negatives + other.negatives)

    @property
    def auroc(self) -> float | None:
        """Probability that a seizure sample lies in a higher bin than another sample, a shared bin counting one half.

        None where one of the two kinds is missing.
        """
        if not self._pairs:
            return None
        above = np.cumsum(self.positives[::-1])[::-1] - self.positives
        won = float(self.negatives.astype(np.float64) @ (above + 0.5 * self.positives))
        return won / self._pairs

    @property
    def auroc_error(self) -> float | None:
        """How far the area over the unbinned scores can be from `auroc`: half the share of pairs within one bin."""
        if not self._pairs:
            return None
        return float(self.negatives.astype(np.float64) @ self.positives) / (2 * self._pairs)

    @property
    def _pairs(self) -> float:
        return float(self.positives.sum()) * float(self.negatives.sum())


def empty_histogram() -> ScoreHistogram:
    """The histogram of no samples."""
    return ScoreHistogram(positives=np.zeros(BINS, dtype=np.int64), negatives=np.zeros(BINS, dtype=np.int64))


def histogram(prob: npt.NDArray[np.float32], target: npt.NDArray[np.bool_]) -> ScoreHistogram:
    """Bin the probabilities (N,) of one recording by its mask of seizures (N,)."""
    counts = np.zeros(2 * BINS, dtype=np.int64)
    for start in range(0, prob.size, _CHUNK):
        stop = start + _CHUNK
        counts += np.bincount(bin_of(prob[start:stop]) + BINS * target[start:stop], minlength=2 * BINS)
    return ScoreHistogram(positives=counts[BINS:], negatives=counts[:BINS])


def bin_of(prob: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The bin of each probability: equal steps of the logit over ±LARGEST_LOGIT, what lies outside in the end bins.

    Logits, because a sure detector crowds its probabilities at 0 and 1, where equal steps of p would not tell them
    apart. Round logits (0 above all, which a detector without opinion gives) lie in the middle of a bin, so that
    rounding does not scatter them over two.
    """
    inside = np.clip(prob.astype(np.float64), 1e-9, 1 - 1e-9)  # further out than the end bins begin
    logit = np.log(inside) - np.log1p(-inside)
    step = np.rint((logit + LARGEST_LOGIT) * (BINS / (2 * LARGEST_LOGIT)))
    return np.clip(step, 0, BINS - 1).astype(np.int64)
