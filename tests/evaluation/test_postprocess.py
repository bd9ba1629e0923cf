from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.config import Hysteresis, Postprocessing
from brainbrr.evaluation.events import EvaluationError, mask_of, runs_of
from brainbrr.evaluation.postprocess import (
    closing,
    confidences,
    drop_shorter,
    events_from_probabilities,
    hysteresis,
    merge,
    opening,
    runs_from_probabilities,
    split_longer,
    thresholds,
)

masks = st.lists(st.booleans(), max_size=60).map(lambda values: np.array(values, dtype=bool))
# Few levels, among them the thresholds themselves, so that equality is the rule and not a rarity.
levels = st.lists(st.sampled_from([0.1, 0.5, 0.6, 0.7, 0.9]), max_size=60)


def brute_hysteresis(prob: list[float], on: float, off: float, min_onset: int, min_offset: int) -> list[list[int]]:
    """The rule read aloud, sample by sample."""
    runs, start, above, below = [], None, 0, 0
    for i, p in enumerate(prob):
        above = above + 1 if p >= on else 0
        below = below + 1 if p < off else 0
        if start is None and above == min_onset:
            start = i - min_onset + 1
        elif start is not None and below == min_offset:
            runs.append([start, i - min_offset + 1])
            start = None
    return runs if start is None else [*runs, [start, len(prob)]]


@given(levels, st.integers(1, 6), st.integers(1, 6))
def test_hysteresis_is_its_rule(values: list[float], min_onset: int, min_offset: int) -> None:
    prob = np.array(values, dtype=np.float32)
    found = hysteresis(prob, tau_on=0.7, tau_off=0.6, min_onset=min_onset, min_offset=min_offset)
    assert found.tolist() == brute_hysteresis(prob.tolist(), np.float32(0.7), np.float32(0.6), min_onset, min_offset)


def found(prob: list[float], **changes: float) -> list[list[int]]:
    rule = {"tau_on": 0.7, "tau_off": 0.6, "min_onset": 3, "min_offset": 3, **changes}
    return hysteresis(np.array(prob, dtype=np.float32), **rule).tolist()  # type: ignore[arg-type]


def test_exactly_tau_on_enters_and_exactly_tau_off_stays() -> None:
    assert found([0.7] * 5) == [[0, 5]]
    assert found([0.699] * 5) == []
    assert found([0.7] * 3 + [0.6] * 9) == [[0, 12]]
    assert found([0.7] * 3 + [0.599] * 9) == [[0, 3]]


def test_exactly_the_shortest_onset_and_offset_count() -> None:
    assert found([0.0, 0.9, 0.9, 0.0]) == []
    assert found([0.0, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0]) == [[1, 4]]
    assert found([0.9] * 3 + [0.0] * 2 + [0.9] + [0.0] * 3) == [[0, 6]]


def test_an_event_has_no_tail_of_samples_below_the_threshold() -> None:
    assert found([0.9] * 4 + [0.1] * 50, min_offset=20) == [[0, 4]]


def test_an_event_that_never_leaves_ends_with_the_recording() -> None:
    assert found([0.1] * 2 + [0.9] * 4 + [0.1] * 2) == [[2, 8]]


def test_rapid_oscillation_neither_enters_nor_leaves() -> None:
    assert found([0.9, 0.1] * 50) == []
    assert found([0.9] * 3 + [0.1, 0.9] * 20) == [[0, 43]]


def test_two_events_need_an_offset_between_them() -> None:
    assert found([0.9] * 3 + [0.0] * 3 + [0.9] * 3) == [[0, 3], [6, 9]]
    assert found([0.9] * 3 + [0.65] * 30 + [0.9] * 3) == [[0, 36]]


def brute_morphology(mask: np.ndarray, length: int, first: str) -> np.ndarray:
    """Erosion and dilation by every position of the window, on a line of background wider than any window."""
    wide = np.pad(mask, 2 * length)

    def erode(x: np.ndarray) -> np.ndarray:
        return np.array([x[i : i + length].all() for i in range(x.size - length + 1)])

    def dilate(x: np.ndarray) -> np.ndarray:
        full = np.pad(x, length - 1)
        return np.array([full[i : i + length].any() for i in range(full.size - length + 1)])

    # Erosion drops length - 1 positions and dilation adds them, so that both together are aligned.
    result = dilate(erode(wide)) if first == "erode" else erode(dilate(wide))
    return result[2 * length : 2 * length + mask.size]


@given(masks, st.integers(1, 12))
def test_opening_is_erosion_then_dilation(mask: np.ndarray, length: int) -> None:
    opened = mask_of(opening(runs_of(mask), length), mask.size)
    assert np.array_equal(opened, brute_morphology(mask, length, "erode"))
    assert not (opened & ~mask).any()


@given(masks, st.integers(1, 12))
def test_closing_is_dilation_then_erosion(mask: np.ndarray, length: int) -> None:
    closed = mask_of(closing(runs_of(mask), length), mask.size)
    assert np.array_equal(closed, brute_morphology(mask, length, "dilate"))
    assert not (mask & ~closed).any()


def test_morphology_at_the_borders() -> None:
    mask = np.array([1, 1, 0, 0, 0, 0, 1, 0], dtype=bool)
    assert opening(runs_of(mask), 2).tolist() == [[0, 2]]
    assert closing(runs_of(mask), 4).tolist() == [[0, 2], [6, 7]]
    assert closing(runs_of(mask), 5).tolist() == [[0, 7]]  # the gap of 4 is filled, the one to the border is not


def test_windows_of_one_sample_do_nothing() -> None:
    runs = runs_of(np.array([1, 0, 1, 0, 0], dtype=bool))
    assert np.array_equal(opening(runs, 1), runs) and np.array_equal(closing(runs, 1), runs)


@given(masks, st.integers(0, 8))
def test_merge_is_one_gap_after_the_other(mask: np.ndarray, gap: int) -> None:
    merged: list[list[int]] = []
    for start, stop in runs_of(mask).tolist():
        if merged and start - merged[-1][1] <= gap:
            merged[-1][1] = stop
        else:
            merged.append([start, stop])
    assert merge(runs_of(mask), gap).tolist() == merged


def test_a_gap_of_exactly_tau_merge_is_merged() -> None:
    runs = np.array([[0, 10], [20, 30], [41, 50]])
    assert merge(runs, 10).tolist() == [[0, 30], [41, 50]]
    assert merge(runs, 9.99).tolist() == runs.tolist()


def test_a_run_of_exactly_the_shortest_duration_stays() -> None:
    runs = np.array([[0, 768], [1000, 1767]])
    assert drop_shorter(runs, 3.0 * 256).tolist() == [[0, 768]]


@given(masks, st.floats(1, 20))
def test_split_keeps_every_sample_in_few_even_parts(mask: np.ndarray, longest: float) -> None:
    runs = runs_of(mask)
    parts = split_longer(runs, longest)
    lengths = parts[:, 1] - parts[:, 0]
    assert (lengths <= longest).all() and (lengths > 0).all()
    assert np.array_equal(mask_of(parts, mask.size), mask)
    assert (parts[1:, 0] >= parts[:-1, 1]).all()
    for start, stop in runs.tolist():
        inside = lengths[(parts[:, 0] >= start) & (parts[:, 1] <= stop)]
        assert len(inside) == -(-(stop - start) // int(longest)) and inside.max() - inside.min() <= 1


def settings(**sections: dict[str, object]) -> Postprocessing:
    plain: dict[str, dict[str, object]] = {
        "hysteresis": {"tau_on": 0.8, "tau_off": 0.4, "min_onset_samples": 1, "min_offset_samples": 1},
        "morphology": {"opening": 1, "closing": 1},
        "duration": {"min": 0, "max": 1e6},
        "events": {"tau_merge": 0},
    }
    return Postprocessing.model_validate({name: {**plain[name], **sections.get(name, {})} for name in plain})


def trace(*pieces: tuple[float, float]) -> np.ndarray:
    """Probabilities from pieces (value, seconds) at 10 Hz."""
    return np.concatenate([np.full(round(seconds * 10), value, dtype=np.float32) for value, seconds in pieces])


def spans(prob: np.ndarray, postprocessing: Postprocessing) -> list[tuple[float, float]]:
    return [(event.start_s, event.stop_s) for event in events_from_probabilities(prob, 10, postprocessing)]


def test_a_long_event_is_delivered_in_parts_although_parts_touch() -> None:
    prob = trace((0.1, 5), (0.9, 1500), (0.1, 5))
    assert spans(prob, settings(duration={"max": 600}, events={"tau_merge": 2})) == [
        (5, 505),
        (505, 1005),
        (1005, 1505),
    ]


def test_short_events_are_dropped_before_neighbours_merge() -> None:
    prob = trace((0.1, 5), (0.9, 2), (0.1, 1), (0.9, 2), (0.1, 5), (0.9, 4), (0.1, 1), (0.9, 3), (0.1, 5))
    assert spans(prob, settings(duration={"min": 3}, events={"tau_merge": 2})) == [(15, 23)]


def test_opening_comes_before_closing() -> None:
    prob = trace((0.1, 2), (0.9, 2), (0.1, 0.5), (0.9, 0.2), (0.1, 0.5), (0.9, 2), (0.1, 2))
    assert len(spans(prob, settings(morphology={"opening": 3, "closing": 7}))) == 2
    assert len(spans(prob, settings(morphology={"opening": 1, "closing": 7}))) == 1


def test_confidence_is_the_mean_or_the_peak_of_the_event() -> None:
    prob = trace((0.1, 1), (0.8, 1), (0.9, 3), (0.1, 1))
    assert events_from_probabilities(prob, 10, settings())[0].confidence == pytest.approx(0.875)
    peak = events_from_probabilities(prob, 10, settings(events={"tau_merge": 0, "confidence": "peak"}))
    assert peak[0].confidence == pytest.approx(0.9)


@given(levels)
def test_confidence_stays_within_0_and_1(values: list[float]) -> None:
    prob = np.array(values, dtype=np.float32)
    for how in ("mean", "peak"):
        assert all(0 <= c <= 1 for c in confidences(prob, runs_of(prob >= 0.5), how))  # type: ignore[arg-type]


def test_nothing_comes_from_nothing() -> None:
    assert events_from_probabilities(np.zeros(5000, dtype=np.float32), 256, Postprocessing()) == ()
    assert events_from_probabilities(np.zeros(0, dtype=np.float32), 256, Postprocessing()) == ()


def test_a_probability_that_is_no_number_is_an_error_that_names_the_second() -> None:
    prob = np.full(2560, 0.2, dtype=np.float32)
    prob[1280:1290] = np.nan
    with pytest.raises(EvaluationError, match=r"10 of 2560 probabilities are not finite, the first at 5\.000 s"):
        events_from_probabilities(prob, 256, Postprocessing())


def test_thresholds_move_together_and_the_configured_pair_is_kept_as_it_is() -> None:
    rule = Hysteresis(tau_on=0.86, tau_off=0.78)
    assert thresholds(rule) == thresholds(rule, 0.86) == (0.86, 0.78)
    assert thresholds(rule, 0.43) == (0.43, pytest.approx(0.39))


@given(st.lists(st.sampled_from([0.1, 0.78, 0.8, 0.86, 0.9]), min_size=1, max_size=10))
def test_the_configured_threshold_of_a_sweep_gives_the_configured_events(values: list[float]) -> None:
    prob = np.repeat(np.array(values, dtype=np.float32), 400)
    events = events_from_probabilities(prob, 256, Postprocessing())
    runs = runs_from_probabilities(prob, 256, Postprocessing(), tau_on=0.86)
    assert [[e.start_s * 256, e.stop_s * 256] for e in events] == runs.tolist()
