from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.config import EarlyStopping, Postprocessing
from brainbrr.evaluation.events import EvaluationError, runs_of
from brainbrr.evaluation.scoring import (
    DEFAULT_THRESHOLDS,
    Sweep,
    choose_threshold,
    fa_key,
    grid_of,
    match,
    pool,
    sweep_recording,
)

runs = st.lists(st.booleans(), max_size=50).map(lambda values: runs_of(np.array(values, dtype=bool)))


def array(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


@given(runs, runs)
def test_matching_is_any_overlap_pair_by_pair(references: np.ndarray, predictions: np.ndarray) -> None:
    samples = [set(range(start, stop)) for start, stop in references.tolist()]
    events = [set(range(start, stop)) for start, stop in predictions.tolist()]
    found = match(references, predictions)
    assert found.detected == sum(any(a & b for b in events) for a in samples)
    assert found.false_alarms == sum(not any(a & b for a in samples) for b in events)
    assert found.false_samples == len(set().union(*events) - set().union(*samples))


def test_perfect_none_and_partial() -> None:
    references = array((10, 20), (50, 60))
    assert match(references, references).detected == 2
    assert match(references, references).false_alarms == 0
    assert match(references, array()).detected == 0
    partial = match(references, array((19, 30), (70, 80)))
    assert (partial.detected, partial.false_alarms, partial.false_samples) == (1, 1, 20)


def test_a_reference_is_counted_once_however_many_meet_it_and_they_are_no_false_alarms() -> None:
    found = match(array((0, 100)), array((0, 10), (20, 30), (40, 200)))
    assert (found.detected, found.false_alarms) == (1, 0)


def test_one_prediction_may_detect_several_references() -> None:
    assert match(array((0, 10), (20, 30)), array((5, 25))).detected == 2


def test_borders_that_touch_share_nothing() -> None:
    found = match(array((10, 20)), array((0, 10), (20, 30)))
    assert (found.detected, found.false_alarms) == (0, 2)


def test_parts_of_a_split_event_are_judged_one_by_one() -> None:
    found = match(array((0, 10)), array((0, 50), (50, 100)))
    assert (found.detected, found.false_alarms) == (1, 1)


@pytest.mark.parametrize(
    ("rate", "key"),
    [
        (10.0, "sensitivity_at_10fa"),
        (5, "sensitivity_at_5fa"),
        (2.5, "sensitivity_at_2.5fa"),
        (1.0, "sensitivity_at_1fa"),
    ],
)
def test_the_keys_are_those_that_early_stopping_asks_for(rate: float, key: str) -> None:
    assert fa_key(rate) == key
    assert EarlyStopping.model_validate({"metric": fa_key(rate)}).metric == key


RATE = 256
HOUR = 3600 * RATE


def sweep(
    thresholds: list[float], detected: list[int], false_alarms: list[int], hours: float = 24, references: int = 10
) -> Sweep:
    return Sweep(
        thresholds=tuple(thresholds),
        rate=RATE,
        samples=round(hours * HOUR),
        references=references,
        detected=tuple(detected),
        false_alarms=tuple(false_alarms),
        false_samples=tuple(60 * RATE * alarms for alarms in false_alarms),
    )


def test_the_score_at_a_threshold() -> None:
    score = sweep([0.2, 0.8], [9, 5], [24, 6], hours=48).score_at(0.8)
    assert (score.detected, score.references, score.false_alarms) == (5, 10, 6)
    assert (score.sensitivity, score.fa_per_24h, score.hours, score.false_share) == (0.5, 3.0, 48.0, 6 / 60 / 48)


def test_without_reference_there_is_no_sensitivity() -> None:
    assert sweep([0.5], [0], [1], references=0).score_at(0.5).sensitivity is None


def test_a_threshold_that_was_not_swept_has_no_score() -> None:
    with pytest.raises(EvaluationError, match=r"threshold 0\.7 is not among the 1 that were swept; pass it"):
        sweep([0.5], [1], [1]).score_at(0.7)


def test_the_chosen_threshold_detects_most_within_the_rate() -> None:
    counts = sweep([0.1, 0.3, 0.5, 0.7, 0.9], [10, 9, 8, 5, 2], [40, 11, 10, 4, 0])
    assert choose_threshold(counts, 10) == 0.5  # exactly 10 in 24 h are no more than 10
    assert choose_threshold(counts, 9.99) == 0.7
    assert choose_threshold(counts, 1) == 0.9


def test_among_equals_the_fewest_false_alarms_and_then_the_middle() -> None:
    counts = sweep([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [8, 8, 8, 8, 8, 8, 6], [9, 3, 1, 1, 1, 1, 0])
    assert choose_threshold(counts, 10) == 0.4
    assert choose_threshold(sweep([0.1, 0.5, 0.9], [1, 1, 1], [0, 0, 0]), 1) == 0.5


def test_an_unreachable_rate_has_no_threshold() -> None:
    assert choose_threshold(sweep([0.5, 0.9999], [10, 9], [99, 11]), 10) is None
    assert choose_threshold(sweep([0.5, 0.9999], [10, 9], [99, 11], hours=48), 10) == 0.9999


def test_false_alarms_that_melt_into_a_seizure_open_no_back_door() -> None:
    """At the lowest threshold everything is one event that overlaps the seizure: no false alarm, all detected."""
    assert choose_threshold(sweep([0.01, 0.5, 0.9], [10, 9, 4], [0, 50, 2]), 10) == 0.9
    assert choose_threshold(sweep([0.01, 0.5, 0.9], [10, 9, 4], [0, 50, 20]), 10) is None


def test_a_floodlight_is_no_detector() -> None:
    counts = sweep([0.1, 0.5, 0.9], [10, 9, 4], [1, 1, 1])
    flood = dataclasses.replace(counts, false_samples=(20 * HOUR, 6 * HOUR, 0))
    assert choose_threshold(flood, 10) == 0.5  # exactly a quarter of 24 h is not more
    assert choose_threshold(dataclasses.replace(flood, false_samples=(20 * HOUR, 6 * HOUR + 1, 0)), 10) == 0.9


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.data())
def test_more_allowed_alarms_never_detect_less(alarms: list[int], data: st.DataObject) -> None:
    detected = data.draw(st.lists(st.integers(0, 10), min_size=len(alarms), max_size=len(alarms)))
    counts = sweep([(k + 1) / 20 for k in range(len(alarms))], detected, alarms)
    found = [choose_threshold(counts, rate) for rate in (0, 1, 2.5, 5, 10, 30)]
    sensitivities = [-1 if tau is None else counts.score_at(tau).detected for tau in found]
    assert sensitivities == sorted(sensitivities)
    for rate, tau in zip((0, 1, 2.5, 5, 10, 30), found, strict=True):
        assert tau is None or counts.score_at(tau).fa_per_24h <= rate


def test_pooled_counts_are_sums_over_all_hours() -> None:
    total = pool([sweep([0.5, 0.9], [2, 1], [4, 1], hours=6), sweep([0.5, 0.9], [3, 3], [0, 0], hours=18)])
    assert (total.detected, total.false_alarms, total.references, total.hours) == ((5, 4), (4, 1), 20, 24)


def test_only_sweeps_over_one_grid_are_pooled() -> None:
    with pytest.raises(EvaluationError, match="expected one grid"):
        pool([sweep([0.5], [1], [1]), sweep([0.6], [1], [1])])
    with pytest.raises(EvaluationError, match="no recording was scored"):
        pool([])


def test_a_grid_is_ascending_without_doubles_and_within_0_and_1() -> None:
    assert grid_of([0.9, 0.2], (0.2, 0.86)) == (0.2, 0.86, 0.9)
    assert grid_of(DEFAULT_THRESHOLDS) == DEFAULT_THRESHOLDS
    for wrong in ([], [0.0], [1.0], [0.5, float("nan")]):
        with pytest.raises(EvaluationError, match="each between 0 and 1"):
            grid_of(wrong)


def test_false_alarms_fall_as_the_threshold_rises_over_separate_bumps() -> None:
    """Bumps of many heights, far apart: each is one event up to its own height."""
    heights = np.linspace(0.05, 0.98, 40)
    piece = np.ones(10 * RATE)
    prob = np.concatenate([np.concatenate([0 * piece, height * piece, 0 * piece]) for height in heights])
    references = array((37 * 30 * RATE + 12 * RATE, 37 * 30 * RATE + 15 * RATE))
    counts = sweep_recording(prob.astype(np.float32), references, RATE, Postprocessing(), DEFAULT_THRESHOLDS)
    assert list(counts.false_alarms) == sorted(counts.false_alarms, reverse=True)
    assert counts.false_alarms[0] == 39 and counts.false_alarms[-1] == 0
    assert set(counts.detected[:90]) == {1} and counts.detected[-1] == 0
    expected = [sum(height >= tau for height in heights.astype(np.float32)) for tau in np.float32(DEFAULT_THRESHOLDS)]
    assert [a + b for a, b in zip(counts.false_alarms, counts.detected, strict=True)] == expected
