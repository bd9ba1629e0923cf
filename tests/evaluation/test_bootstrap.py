from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr.evaluation.bootstrap import COVERAGE, draws, interval, of_sums, ratio

counts = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=6)


@given(st.integers(2, 40))
def test_every_replicate_draws_as_many_patients_as_there_are(patients: int) -> None:
    weights = draws(patients, replicates=50)
    assert weights.shape == (50, patients)
    assert (weights.sum(axis=1) == patients).all()


def test_the_seed_decides() -> None:
    assert np.array_equal(draws(7), draws(7))
    assert not np.array_equal(draws(7), draws(7, seed=1))


@given(st.integers(2, 8), st.integers(0, 9), st.integers(1, 9))
def test_identical_patients_leave_no_doubt(patients: int, hits: int, targets: int) -> None:
    found = interval(ratio([hits] * patients, [targets] * patients), draws(patients, replicates=60))
    assert found.low == found.high == hits / targets
    assert found.undefined == 0


@settings(max_examples=30)
@given(counts)
def test_against_drawing_patients_one_by_one(patients: list[tuple[int, int]]) -> None:
    """The same replicates, each patient's sums added as often as it was drawn."""
    weights = draws(len(patients), replicates=80)
    values, undefined = [], 0
    for row in weights:
        drawn = [patient for patient, times in zip(patients, row.tolist(), strict=True) for _ in range(int(times))]
        below = sum(targets for _, targets in drawn)
        if below:
            values.append(sum(hits for hits, _ in drawn) / below)
        else:
            undefined += 1
    found = interval(ratio([h for h, _ in patients], [t for _, t in patients]), weights)
    assert found.undefined == undefined
    if not values:
        assert (found.low, found.high, found.text()) == (None, None, "–")
        return
    tail = (1 - COVERAGE) / 2
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [tail, 1 - tail])))


def test_a_metric_of_sums_is_that_of_the_drawn_patients() -> None:
    sums = np.array([[1.0, 2.0], [3.0, 4.0]])
    weights = np.array([[2.0, 0.0], [1.0, 1.0]])
    assert of_sums(sums, lambda row: row[0] / row[1])(weights) == pytest.approx([1 / 2, 4 / 6])
    assert np.isnan(of_sums(sums, lambda row: None)(weights)).all()


def test_about_as_wide_as_theory_says() -> None:
    """Sensitivity of 200 patients with one seizure each, half of them found: 0.5 ± 1.96 · sqrt(0.25/200)."""
    found = interval(ratio([0, 1] * 100, [1] * 200), draws(200, replicates=2000))
    assert found.low == pytest.approx(0.431, abs=0.01)
    assert found.high == pytest.approx(0.569, abs=0.01)
