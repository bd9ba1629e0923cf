"""Where windows start, what they cover and how they are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.data.labels import Event
from brainbrr.data.stored import CachedRecording
from brainbrr.data.timeline import Gap
from brainbrr.data.windows import window_kinds, window_starts


def recording(n: int, events: list[tuple[float, float]] | None = None, gaps: list[tuple[float, float]] = ()) -> object:  # type: ignore[assignment]
    return CachedRecording(
        name="a",
        patient="a",
        n_samples=n,
        events=None if events is None else tuple(Event(start_s=s, stop_s=e) for s, e in events),
        path=Path("a.npy"),
        interpolated=(),
        clipped=(0.0,) * 19,
        amplitudes_uv=(),
        nonfinite=(),
        gaps=tuple(Gap(start_s=s, stop_s=e) for s, e in gaps),
        notes=(),
        clip_sigma=10.0,
        source="a.edf",
        source_rate=256.0,
        source_hash="",
        source_state=(),
        preprocessing_hash="",
        crc32=0,
    )


@given(n=st.integers(1, 5000), length=st.integers(1, 700), stride=st.integers(1, 900))
def test_every_sample_is_in_as_many_windows_as_the_stride_says(n: int, length: int, stride: int) -> None:
    starts = window_starts(n, length, stride)
    assert starts[0] == 0
    assert (np.diff(starts) == stride).all()
    assert starts[-1] < n
    covered = np.zeros(n, dtype=int)
    for start in starts:
        covered[start : start + length] += 1
    # Brute force: all multiples of the stride, as long as the window before has not reached the end.
    expected = np.zeros(n, dtype=int)
    start, reached = 0, 0
    while start < n and reached < n:
        expected[start : start + length] += 1
        start, reached = start + stride, start + length
    np.testing.assert_array_equal(covered, expected)
    if stride <= length:
        assert covered.min() >= 1
        assert starts[-1] + length >= n


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (1, 0)])
def test_less_than_a_sample_is_refused(length: int, stride: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1 sample each"):
        window_starts(100, length, stride)


spans = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(1, 1500)).map(lambda s: (s[0] / 256, sum(s) / 256)), max_size=5
)


@given(n=st.integers(1, 4000), events=spans, gaps=spans, length=st.integers(1, 900), stride=st.integers(1, 900))
def test_kinds_against_counting_samples(
    n: int, events: list[tuple[float, float]], gaps: list[tuple[float, float]], length: int, stride: int
) -> None:
    apart = []  # gaps of a recording never overlap
    for start, stop in sorted(gaps):
        if not apart or start >= apart[-1][1]:
            apart.append((start, stop))
    source = recording(n, events, apart)
    inside, there = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    for start, stop in events:
        inside[round(start * 256) : round(stop * 256)] = True
    for start, stop in apart:
        there[round(start * 256) : round(stop * 256)] = False
    starts = window_starts(n, length, stride)
    kinds, recorded = window_kinds(source, starts, length)  # type: ignore[arg-type]
    for start, kind, count in zip(starts, kinds, recorded, strict=True):
        piece = slice(start, start + length)
        seizure, total = (inside[piece] & there[piece]).sum(), there[piece].sum()
        assert count == total
        assert kind == (0 if seizure == 0 else 2 if seizure >= 0.99 * total else 1)
