"""Which windows an epoch shows, and in which order: a function of seed and epoch alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainbrr.data.windows import BACKGROUND, FULL, PARTIAL


def epoch_order(
    kinds: npt.NDArray[np.integer],
    *,
    seed: int,
    epoch: int,
    balanced: bool,
    full_ratio: float,
    background_ratio: float,
) -> npt.NDArray[np.int64]:
    """Shuffled window indices of epoch `epoch` (0-based), for windows of `kinds` (W,).

    Balanced: every partial-seizure window P, `full_ratio` × |P| full and `background_ratio` × |P| background windows,
    none twice, as many as there are; full and background are drawn anew each epoch. Otherwise all windows.
    Raises ValueError when there is no window, or none to balance on.
    """
    kinds = np.asarray(kinds)
    if not kinds.size:
        raise ValueError("no windows; expected at least one: is the split empty or wholly without labels?")
    generator = np.random.default_rng(np.random.SeedSequence([seed % 2**64, epoch]))
    if not balanced:
        return generator.permutation(kinds.size).astype(np.int64)
    partial = np.flatnonzero(kinds == PARTIAL)
    if not partial.size:
        raise ValueError(
            f"balanced sampling needs windows that are partly seizure; found 0 among {kinds.size} "
            f"({int(np.count_nonzero(kinds == FULL))} full, {int(np.count_nonzero(kinds == BACKGROUND))} background): "
            "add recordings with seizures or set data.use_balanced_sampling=false"
        )
    drawn = [partial]
    for kind, ratio in ((FULL, full_ratio), (BACKGROUND, background_ratio)):
        candidates = np.flatnonzero(kinds == kind)
        count = min(round(ratio * partial.size), candidates.size)
        drawn.append(generator.choice(candidates, size=count, replace=False, shuffle=False))
    return generator.permutation(np.concatenate(drawn)).astype(np.int64)
