"""What a corpus will hold: events apart and inside the recording, artefacts away from seizures, errors in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from brainbrr.config import ELECTRODES
from brainbrr.data.synthesis import lookalikes
from brainbrr.data.synthetic import KINDS, RecordingPlan, SynthesisError, plan_corpus

USUAL: dict[str, Any] = {"patients": 4, "minutes": 10.0, "seizures": 2, "lookalikes": 2, "seed": 1}


def spans(plan: RecordingPlan) -> list[tuple[float, float]]:
    return sorted((event.start_s, event.stop_s) for event in (*plan.seizures, *plan.lookalikes))


@given(
    patients=st.integers(1, 4),
    minutes=st.floats(0.02, 30),
    seizures=st.integers(0, 5),
    lookalikes=st.integers(0, 5),
    seed=st.integers(0, 2**63),
)
def test_events_lie_inside_the_recording_and_apart(
    patients: int, minutes: float, seizures: int, lookalikes: int, seed: int
) -> None:
    # At worst the shortest seizure was drawn at its longest, and everything shrinks alike; below that, see the errors.
    assume(minutes * 60 >= (seizures * 90 + lookalikes * 60 + 12 * (seizures + lookalikes + 1)) / 2)
    plans = plan_corpus(patients=patients, minutes=minutes, seizures=seizures, lookalikes=lookalikes, seed=seed)
    assert len(plans) == 2 * patients
    for plan in plans:
        assert (len(plan.seizures), len(plan.lookalikes)) == (seizures, lookalikes)
        times = spans(plan)
        edges = [0.0, *(edge for span in times for edge in span), float(plan.duration_s)]
        assert edges == sorted(edges)
        assert all(edge * 4 == round(edge * 4) for edge in edges)
        assert all(7 <= event.stop_s - event.start_s <= 90 for event in plan.seizures)
        assert all(4 <= event.stop_s - event.start_s <= 60 for event in plan.lookalikes)
        if not plan.shortened:
            assert all(event.stop_s - event.start_s >= 19.5 for event in (*plan.seizures, *plan.lookalikes))


@given(kind=st.sampled_from(KINDS), minutes=st.floats(0.05, 20), seed=st.integers(0, 2**40))
def test_artefacts_find_a_place_inside_a_training_recording(kind: str, minutes: float, seed: int) -> None:
    plans = plan_corpus(patients=2, minutes=minutes, seizures=0, lookalikes=0, artefacts=(kind,), seed=seed)
    ((plan, artefact),) = ((plan, artefact) for plan in plans for artefact in plan.artefacts)
    assert plan.split == "train" and artefact.recording == plan.name and artefact.kind == kind
    assert 0 <= artefact.start_s < artefact.stop_s <= plan.duration_s
    assert artefact.stop_s - artefact.start_s >= 0.25


@given(seed=st.integers(0, 2**40), seizures=st.integers(0, 2), minutes=st.sampled_from((5.0, 6.0, 10.0)))
def test_flat_lies_within_one_slot_of_a_minute_and_away_from_seizures(seed: int, seizures: int, minutes: float) -> None:
    plans = plan_corpus(patients=4, minutes=minutes, seizures=seizures, lookalikes=1, artefacts=("flat",), seed=seed)
    ((plan, flat),) = ((plan, artefact) for plan in plans for artefact in plan.artefacts)
    assert flat.start_s // 60 == (flat.stop_s - 1 / 256) // 60
    assert flat.start_s % 60 >= 2 and flat.stop_s % 60 <= 58
    assert 40 <= flat.stop_s - flat.start_s <= 55
    assert flat.electrodes == ELECTRODES
    assert all(flat.stop_s <= s.start_s or flat.start_s >= s.stop_s for s in plan.seizures)


def test_flat_keeps_a_minute_from_seizures_where_there_is_room() -> None:
    for seed in range(20):
        plans = plan_corpus(**{**USUAL, "seed": seed}, artefacts=("flat",))
        ((plan, flat),) = ((plan, artefact) for plan in plans for artefact in plan.artefacts)
        assert all(flat.stop_s + 60 <= s.start_s or flat.start_s - 60 >= s.stop_s for s in plan.seizures)


def test_the_flat_stretch_is_not_always_in_the_same_place() -> None:
    places = set()
    for seed in range(12):
        plans = plan_corpus(**{**USUAL, "seed": seed}, artefacts=("flat",))
        places |= {(i, a.start_s // 60) for i, plan in enumerate(plans) for a in plan.artefacts}
    assert len(places) >= 8


def test_each_kind_goes_into_a_recording_of_its_own_while_there_are_enough() -> None:
    plans = plan_corpus(**{**USUAL, "patients": len(KINDS)}, artefacts=KINDS)
    assert [len(plan.artefacts) for plan in plans if plan.split == "train"] == [1] * len(KINDS)
    assert not any(plan.artefacts for plan in plans if plan.split == "dev")


def test_artefacts_do_not_move_events() -> None:
    plain, flawed = plan_corpus(**USUAL), plan_corpus(**USUAL, artefacts=KINDS)
    assert [spans(plan) for plan in plain] == [spans(plan) for plan in flawed]


def test_all_kinds_of_lookalike_are_dealt_out() -> None:
    plans = plan_corpus(**USUAL, splits=("train",))
    assert {item.kind for plan in plans for item in plan.lookalikes} == set(lookalikes.KINDS)


def test_seizures_of_a_patient_resemble_each_other_and_always_evolve() -> None:
    plans = plan_corpus(**{**USUAL, "patients": 30})
    for plan in plans:
        assert len({seizure.onset for seizure in plan.seizures}) == 1
        for seizure in plan.seizures:
            hertz = [frequency for _, frequency in seizure.frequencies]
            assert max(hertz) / hertz[-1] > 1.5 and min(hertz) >= 2 and max(hertz) <= 8
    assert 0.1 < sum(plan.seizures[0].generalized for plan in plans) / len(plans) < 0.6


def test_events_that_do_not_fit_as_drawn_are_shortened_and_counted() -> None:
    plans = plan_corpus(patients=3, minutes=1.0, seizures=1, lookalikes=1, seed=2)
    assert sum(plan.shortened for plan in plans) == 2 * sum(bool(plan.shortened) for plan in plans) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patients": 0}, "patients is 0; expected 1 to 17576 in each split"),
        ({"minutes": 0.001}, "minutes is 0.001; expected at least one second"),
        ({"minutes": float("nan")}, "minutes is nan; expected"),
        ({"minutes": float("inf")}, "minutes is inf; expected"),
        ({"seizures": -1}, "seizures is -1; expected 0 or more"),
        ({"lookalikes": -2}, "lookalikes is -2; expected 0 or more"),
        ({"seed": -3}, "seed is -3; expected 0 or more"),
        ({"splits": ("train", "test")}, r"splits is \('train', 'test'\); expected some of train, dev, eval, each once"),
        ({"splits": ()}, r"splits is \(\); expected"),
        ({"splits": ("dev", "dev")}, "each once"),
        (
            {"artefacts": ("flatt",)},
            "artefact 'flatt' is unknown; expected one of flat, bridged, .*did you mean 'flat'",
        ),
        ({"artefacts": ("flat",), "splits": ("dev",)}, "artefacts are put into training recordings: add 'train'"),
        ({"minutes": 0.5}, r"a recording of 30 s cannot hold 2 seizures and 2 look-alikes; expected about \d.*min"),
        (
            {"minutes": 5.0, "seizures": 6, "lookalikes": 0, "artefacts": ("flat",)},
            "no training recording has room for artefact 'flat' of .* s between its 6 seizures; expected free time",
        ),
    ],
)
def test_arguments_that_cannot_be_met_are_refused_in_words(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SynthesisError, match=message):
        plan_corpus(**{**USUAL, **changes})


def test_the_length_that_the_error_asks_for_is_enough() -> None:
    with pytest.raises(SynthesisError) as caught:
        plan_corpus(patients=1, minutes=0.4, seizures=3, lookalikes=0, seed=4, splits=("train",))
    asked = float(str(caught.value).split("about ")[1].split(" min")[0])
    assert plan_corpus(patients=1, minutes=asked + 0.1, seizures=3, lookalikes=0, seed=4, splits=("train",))
