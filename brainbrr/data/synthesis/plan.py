"""What a synthetic corpus will contain, decided before a sample is made: patients, events, artefacts.

Every decision has a random stream of its own, so that one argument changes only what it speaks of: the recordings of
a corpus with an artefact equal those without it outside the artefact's seconds, and more patients add recordings.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from brainbrr.data.layouts import SPLITS
from brainbrr.data.synthesis import artefacts, background, lookalikes, seizures
from brainbrr.data.synthesis.artefacts import Artefact
from brainbrr.data.synthesis.lookalikes import Lookalike
from brainbrr.data.synthesis.seizures import Seizure

MAX_PATIENTS = 26**3
_SEIZURE_S, _SHORTEST_SEIZURE_S = (20.0, 90.0), 8.0
_LOOKALIKE_S, _SHORTEST_LOOKALIKE_S = (20.0, 60.0), 5.0
_GAP_S = 12.0  # between events, and at both ends
# How far an artefact keeps from seizures, s, and whether it keeps off look-alikes: the first that fits.
_GUARDS = ((60.0, True), (30.0, True), (10.0, True), (10.0, False), (0.0, False))
_SLOT_S, _SLOT_MARGIN_S = 60, 2.0


class SynthesisError(ValueError):
    """A corpus that cannot be made or written as asked: what was found, what was expected, what to do."""


class Stream(IntEnum):
    """What a random stream decides; the first word of its seed."""

    PATIENT = 1
    EVENTS = 2
    BACKGROUND = 3
    SEIZURES = 4
    LOOKALIKES = 5
    ARTEFACTS = 6
    PLACES = 7
    HEART = 8
    LOOKALIKE_KINDS = 9


@dataclass(frozen=True, kw_only=True)
class RecordingPlan:
    """One recording of one patient."""

    split: str
    patient: str
    name: str
    path: str  # of the EDF file, relative to the root, without its suffix
    seed: tuple[int, ...]  # seed of the corpus, code of the split, index of the patient
    duration_s: int
    traits: background.Traits
    seizures: tuple[Seizure, ...]
    lookalikes: tuple[Lookalike, ...]
    artefacts: tuple[Artefact, ...] = ()
    shortened: int = 0  # events made shorter than drawn, to fit

    def stream(self, stream: Stream, *more: int) -> np.random.Generator:
        """The random stream that decides `stream` in this recording."""
        return np.random.default_rng((int(stream), *self.seed, *more))


def plan_corpus(
    *,
    patients: int,
    minutes: float,
    seizures: int,
    lookalikes: int,
    artefacts: Sequence[str] = (),
    seed: int,
    splits: Sequence[str] = ("train", "dev"),
) -> tuple[RecordingPlan, ...]:
    """Plan a corpus of one recording per patient; see `write_corpus` for the arguments.

    Raises `SynthesisError` for arguments outside their ranges, and where events or artefacts find no room.
    """
    _check(patients, minutes, seizures, lookalikes, artefacts, seed, splits)
    duration_s = round(minutes * 60)
    plans = [
        _plan_recording(seed, split, index, duration_s, seizures, lookalikes)
        for split in splits
        for index in range(patients)
    ]
    return tuple(_place_artefacts(plans, artefacts, seed))


def _check(
    patients: int,
    minutes: float,
    seizures: int,
    lookalikes: int,
    kinds: Sequence[str],
    seed: int,
    splits: Sequence[str],
) -> None:
    if not 1 <= patients <= MAX_PATIENTS:
        raise SynthesisError(f"patients is {patients}; expected 1 to {MAX_PATIENTS} in each split")
    if not math.isfinite(minutes) or round(minutes * 60) < 1:
        raise SynthesisError(f"minutes is {minutes:g}; expected at least one second (0.017)")
    for name, value in (("seizures", seizures), ("lookalikes", lookalikes), ("seed", seed)):
        if value < 0:
            raise SynthesisError(f"{name} is {value}; expected 0 or more")
    if not splits or len(set(splits)) != len(splits) or not set(splits) <= set(SPLITS):
        raise SynthesisError(f"splits is {tuple(splits)}; expected some of {', '.join(SPLITS)}, each once")
    for kind in kinds:
        if kind not in artefacts.KINDS:
            near = difflib.get_close_matches(kind, artefacts.KINDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SynthesisError(f"artefact {kind!r} is unknown; expected one of {', '.join(artefacts.KINDS)}{hint}")
    if kinds and "train" not in splits:
        raise SynthesisError(f"splits is {tuple(splits)}; artefacts are put into training recordings: add 'train'")


def patient_name(seed: int, split: str, index: int) -> str:
    """Eight letters as in TUSZ: four for the seed, one for the split, three for the patient. Splits never share one."""
    return _letters(seed, 4) + _letters(SPLITS.index(split), 1) + _letters(index, 3)


def _letters(number: int, width: int) -> str:
    return "".join(chr(ord("a") + number // 26**place % 26) for place in reversed(range(width)))


def _plan_recording(
    seed: int, split: str, index: int, duration_s: int, n_seizures: int, n_lookalikes: int
) -> RecordingPlan:
    patient = patient_name(seed, split, index)
    name = f"{patient}_s001_t000"
    words = (seed, SPLITS.index(split), index)
    traits_rng = np.random.default_rng((int(Stream.PATIENT), *words))
    traits = background.draw_traits(traits_rng)
    seizure_traits = seizures.draw_traits(traits_rng)
    rng = np.random.default_rng((int(Stream.EVENTS), *words))
    times, shortened = _place_events(rng, duration_s, n_seizures, n_lookalikes)
    kinds = _lookalike_kinds(seed, split, index, n_lookalikes)
    return RecordingPlan(
        split=split,
        patient=patient,
        name=name,
        path=f"edf/{split}/{patient}/s001_2020/01_tcp_ar/{name}",
        seed=words,
        duration_s=duration_s,
        traits=traits,
        seizures=tuple(seizures.draw(rng, seizure_traits, *span) for span in times[:n_seizures]),
        lookalikes=tuple(
            Lookalike(kind=kind, start_s=start, stop_s=stop)
            for kind, (start, stop) in zip(kinds, times[n_seizures:], strict=True)
        ),
        shortened=shortened,
    )


def _lookalike_kinds(seed: int, split: str, index: int, count: int) -> list[str]:
    """Deal the kinds out in turns over the patients of a split, from a shuffled pack."""
    rng = np.random.default_rng((int(Stream.LOOKALIKE_KINDS), seed, SPLITS.index(split)))
    pack = [lookalikes.KINDS[i] for i in rng.permutation(len(lookalikes.KINDS))]
    return [pack[(index * count + i) % len(pack)] for i in range(count)]


def _place_events(
    rng: np.random.Generator, duration_s: int, n_seizures: int, n_lookalikes: int
) -> tuple[list[tuple[float, float]], int]:
    """(start, stop) in quarters of a second of the seizures, then of the look-alikes; and how many were shortened."""
    count = n_seizures + n_lookalikes
    if not count:
        return [], 0
    lengths = np.concatenate([rng.uniform(*_SEIZURE_S, n_seizures), rng.uniform(*_LOOKALIKE_S, n_lookalikes)])
    gap = _GAP_S
    needed = lengths.sum() + gap * (count + 1)
    scale = min(1.0, 0.98 * duration_s / needed)
    shortest = min(lengths[:n_seizures], default=math.inf), min(lengths[n_seizures:], default=math.inf)
    least = max(_SHORTEST_SEIZURE_S / shortest[0], _SHORTEST_LOOKALIKE_S / shortest[1])
    if scale < least:
        raise SynthesisError(
            f"a recording of {duration_s} s cannot hold {n_seizures} seizures and {n_lookalikes} look-alikes; "
            f"expected about {math.ceil(least * needed / 0.98) / 60:.1f} min: give more minutes or fewer events"
        )
    lengths, gap = lengths * scale, gap * scale
    order = rng.permutation(count)
    slack = rng.dirichlet(np.ones(count + 1)) * (duration_s - lengths.sum() - gap * (count + 1))
    starts = np.empty(count)
    starts[order] = np.cumsum(gap + slack[:-1]) + np.concatenate([[0.0], np.cumsum(lengths[order])[:-1]])
    spans = [(math.ceil(4 * a) / 4, math.floor(4 * (a + b)) / 4) for a, b in zip(starts, lengths, strict=True)]
    ordered = sorted(spans[:n_seizures]) + sorted(spans[n_seizures:])
    return ordered, count if scale < 1 else 0


def _place_artefacts(plans: list[RecordingPlan], kinds: Sequence[str], seed: int) -> list[RecordingPlan]:
    """Put each kind into one training recording, the ones with fewest artefacts first."""
    plans = list(plans)
    rng = np.random.default_rng((int(Stream.PLACES), seed))
    training = [i for i, plan in enumerate(plans) if plan.split == "train"]
    order = {i: place for place, i in enumerate(rng.permutation(training).tolist())}
    for kind in kinds:
        turn = sorted(training, key=lambda i: (len(plans[i].artefacts), order[i]))
        electrodes, seconds = artefacts.draw_electrodes(rng, kind), artefacts.draw_seconds(rng, kind)
        place = _find_place(rng, [plans[i] for i in turn], kind, seconds)
        if place is None:
            raise SynthesisError(
                f"no training recording has room for artefact {kind!r} of {seconds:g} s between its "
                f"{len(plans[turn[0]].seizures)} seizures; expected free time: give more minutes, more patients or "
                "fewer seizures"
            )
        chosen, start, stop = turn[place[0]], *place[1:]
        added = Artefact(recording=plans[chosen].name, kind=kind, start_s=start, stop_s=stop, electrodes=electrodes)
        plans[chosen] = replace(plans[chosen], artefacts=(*plans[chosen].artefacts, added))
    return plans


def _find_place(
    rng: np.random.Generator, plans: list[RecordingPlan], kind: str, seconds: float
) -> tuple[int, float, float] | None:
    """(index into plans, start, stop): the widest guard that some recording can keep, then the first recording."""
    which, shift = rng.random(2)  # whatever is tried: later artefacts do not depend on how many tries it took
    for guard, keep_off_lookalikes in _GUARDS:
        for index, plan in enumerate(plans):
            length = max(0.25, min(seconds, math.floor(2 * plan.duration_s) / 4))
            starts = _slot_starts(plan, length, shift) if kind == "flat" else _any_starts(plan, length)
            free = [s for s in starts if _is_free(plan, s, s + length, guard, keep_off_lookalikes)]
            if free:
                start = free[int(which * len(free))]
                return index, start, start + length
    return None


def _slot_starts(plan: RecordingPlan, length: float, shift: float) -> list[float]:
    """Starts that keep the stretch within one slot of 60 s, 2 s from its ends; anywhere in a shorter recording."""
    if plan.duration_s < _SLOT_S:
        return _any_starts(plan, length)
    margin = math.floor(4 * shift * (_SLOT_S - 2 * _SLOT_MARGIN_S - length)) / 4 + _SLOT_MARGIN_S
    return [slot * _SLOT_S + margin for slot in range(plan.duration_s // _SLOT_S)]


def _any_starts(plan: RecordingPlan, length: float) -> list[float]:
    return [quarter / 4 for quarter in range(math.floor(4 * (plan.duration_s - length)) + 1)]


def _is_free(plan: RecordingPlan, start: float, stop: float, guard: float, keep_off_lookalikes: bool) -> bool:
    taken = [(a.start_s - 2, a.stop_s + 2) for a in plan.artefacts]
    taken += [(s.start_s - guard, s.stop_s + guard) for s in plan.seizures]
    if keep_off_lookalikes:
        taken += [(x.start_s, x.stop_s) for x in plan.lookalikes]
    return all(stop <= left or start >= right for left, right in taken)
