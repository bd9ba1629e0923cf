from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.evaluation.calibration import BINS, no_samples, reliability

probabilities = st.floats(0, 1, width=32)
recordings = st.lists(st.tuples(probabilities, st.booleans()), max_size=60)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in pairs], dtype=np.float32), np.array([t for _, t in pairs], dtype=np.bool_)


def brute_force_ece(pairs: list[tuple[float, bool]]) -> float:
    """Sample by sample, bin by bin, in plain Python."""
    error = 0.0
    for k in range(BINS):
        inside = [(p, t) for p, t in pairs if k == min(int(p * BINS), BINS - 1)]
        if inside:
            share = sum(t for _, t in inside) / len(inside)
            mean = sum(p for p, _ in inside) / len(inside)
            error += len(inside) / len(pairs) * abs(share - mean)
    return error


@given(recordings)
def test_against_brute_force(pairs: list[tuple[float, bool]]) -> None:
    found = reliability(*arrays(pairs))
    if not pairs:
        assert found.ece is None
        return
    assert found.ece == pytest.approx(brute_force_ece(pairs), abs=1e-9)
    assert 0 <= found.ece <= 1


@given(recordings, recordings)
def test_bins_add_up_over_recordings(one: list[tuple[float, bool]], other: list[tuple[float, bool]]) -> None:
    apart = reliability(*arrays(one)) + reliability(*arrays(other))
    whole = reliability(*arrays(one + other))
    assert apart.samples.tolist() == whole.samples.tolist() and apart.positives.tolist() == whole.positives.tolist()
    assert apart.confidence == pytest.approx(whole.confidence)


def test_a_detector_that_says_what_is_so_has_no_error_and_a_boaster_has() -> None:
    rng = np.random.default_rng(0)
    prob = rng.random(200_000).astype(np.float32)
    target = rng.random(prob.size) < prob
    honest = reliability(prob, target).ece
    assert honest is not None and honest < 0.01
    sure = np.where(prob > 0.5, 0.999, 0.001).astype(np.float32)
    assert reliability(sure, target).ece == pytest.approx(0.25, abs=0.01)


def test_the_table_covers_0_to_1_and_empty_bins_have_no_mean() -> None:
    table = reliability(np.array([1.0, 0.0], dtype=np.float32), np.array([True, False])).table()
    assert (table[0].low, table[-1].high, len(table)) == (0.0, 1.0, BINS)
    assert (table[0].samples, table[0].mean_probability, table[0].seizure_share) == (1, 0.0, 0.0)
    assert (table[-1].samples, table[-1].mean_probability, table[-1].seizure_share) == (1, 1.0, 1.0)
    assert (table[3].samples, table[3].mean_probability, table[3].seizure_share) == (0, None, None)
    assert no_samples().ece is None
