from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.data.labels import Event
from brainbrr.evaluation.events import (
    EvaluationError,
    events_from_runs,
    mask_of,
    runs_from_events,
    runs_of,
)

masks = st.lists(st.booleans(), max_size=60).map(lambda values: np.array(values, dtype=bool))


@given(masks)
def test_a_mask_survives_the_way_through_runs(mask: np.ndarray) -> None:
    runs = runs_of(mask)
    assert runs.shape == (len(runs), 2) and runs.dtype == np.int64
    assert np.array_equal(mask_of(runs, mask.size), mask)


@given(masks, st.sampled_from([250, 256, 400, 199.5]))
def test_a_mask_survives_the_way_through_events(mask: np.ndarray, rate: float) -> None:
    events = events_from_runs(runs_of(mask), rate)
    assert all(event.start_s < event.stop_s and event.confidence == 1.0 for event in events)
    assert np.array_equal(mask_of(runs_from_events(events, rate, mask.size), mask.size), mask)


@given(masks)
def test_runs_are_maximal(mask: np.ndarray) -> None:
    padded = [False, *mask.tolist(), False]
    for start, stop in runs_of(mask).tolist():
        assert mask[start:stop].all()
        assert not padded[start] and not padded[stop + 1]


def test_runs_at_both_borders() -> None:
    mask = np.array([True, False, True])
    assert runs_of(mask).tolist() == [[0, 1], [2, 3]]
    assert runs_of(np.ones(4, dtype=bool)).tolist() == [[0, 4]]
    assert runs_of(np.zeros(4, dtype=bool)).tolist() == []


def test_runs_that_touch_make_one_stretch() -> None:
    assert mask_of(np.array([[1, 2], [2, 3]]), 4).tolist() == [False, True, True, False]


def event(start: float, stop: float) -> Event:
    return Event(start_s=start, stop_s=stop)


def test_events_are_cut_to_the_recording_and_empty_ones_dropped() -> None:
    events = [event(-5, 1), event(9, 99), event(20, 30), event(3, 3), event(4, 4.0001)]
    assert runs_from_events(events, 256, 2560).tolist() == [[0, 256], [2304, 2560]]


def test_events_that_overlap_become_one_and_events_that_touch_stay_two() -> None:
    events = [event(6, 7), event(1, 5), event(2, 3), event(4, 6)]
    assert runs_from_events(events, 10, 100).tolist() == [[10, 60], [60, 70]]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=8))
def test_events_cover_what_they_covered_one_by_one(spans: list[tuple[int, int]]) -> None:
    mask = np.zeros(60, dtype=bool)
    for start, length in spans:
        mask[start : start + length] = True
    runs = runs_from_events([event(start, start + length) for start, length in spans], 1, 60)
    assert np.array_equal(mask_of(runs, 60), mask)
    assert (runs[1:, 0] >= runs[:-1, 1]).all()


def test_a_time_that_is_no_number_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="non-finite time; expected seconds"):
        runs_from_events([event(0, float("nan"))], 256, 100)


def test_each_event_takes_its_confidence() -> None:
    events = events_from_runs(np.array([[0, 256], [512, 640]]), 256, [0.5, 0.75])
    assert events == (
        Event(start_s=0, stop_s=1, confidence=0.5),
        Event(start_s=2, stop_s=2.5, confidence=0.75),
    )
    assert events[0].label == "seiz"
