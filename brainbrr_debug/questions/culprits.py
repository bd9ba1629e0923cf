"""Which samples? Healthy ones take the place of those that are taken away, until it heals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from brainbrr_debug.oracle import Oracles
from brainbrr_debug.records import Outcome
from brainbrr_debug.samples import Sample, SamplesError, batch_size, replaceable, samples_of, signal_of
from brainbrr_debug.search import all_minimal
from brainbrr_debug.subject import Batch, Subject
from brainbrr_debug.trial import Trial
from brainbrr_debug.trials import Trials

MOST_CULPRITS = 4
MOSTLY = 0.5
"""Of a stretch that was found by halving, so much at least is the artefact itself."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Electrodes:
    """The fewest channels of one sample that still fail, healthy ones in the place of all others.

    `complete` is False where the search ran out of trials; `inconsistent` says how its answers contradict each other.
    """

    channels: tuple[int, ...]
    complete: bool = True
    inconsistent: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Culprits:
    """The samples to blame. Each of `sets` is one culprit, of several samples where only those together fail.

    `necessary`: with all of them replaced the step is healthy. `sufficient`: they alone, among healthy samples and
    with fresh weights, fail. None where the question could not be asked, `skipped` says why. `replaced` says that
    healthy samples took the place of the others; else these were left out.
    """

    sets: tuple[tuple[Sample, ...], ...] = ()
    necessary: bool | None = None
    sufficient: bool | None = None
    trials: int = 0
    inconsistent: str | None = None
    skipped: str | None = None
    replaced: bool = True
    electrodes: Mapping[Sample, Electrodes] = dataclasses.field(default_factory=dict)
    described: tuple[Mapping[str, Any], ...] = ()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All culprits."""
        return tuple(sorted(sample for found in self.sets for sample in found))


def which_samples(trials: Trials, oracles: Oracles, *, healthy_passes: bool = True) -> Culprits:
    """The smallest sets of samples that fail among healthy ones, each set aside before the next is looked for.

    Where there is nothing healthy to put in their place (no batch, or none that passes with the captured weights),
    samples are left out instead of replaced.
    """
    content = trials.content
    healthy = content.healthy_micro_batches if healthy_passes else None
    try:
        everything = samples_of(content.micro_batches)
    except SamplesError as error:
        return Culprits(skipped=str(error))
    hindrance = replaceable(content.micro_batches, healthy) if healthy else None
    if hindrance is not None:
        return Culprits(skipped=hindrance)

    def keep(kept: tuple[Sample, ...]) -> Trial:
        return keeping(kept, everything, alone=not healthy)

    def fails(kept: tuple[Sample, ...]) -> bool | None:
        if not kept and not healthy:
            return False
        return trials.ask("samples", keep(kept), oracles.indicator).bad

    searches = all_minimal(everything, fails, most=MOST_CULPRITS)
    found = tuple(search.minimal for search in searches if search.minimal)
    culprits = tuple(sample for part in found for sample in part)
    rest = tuple(sample for sample in everything if sample not in culprits)
    answer = Culprits(
        sets=found,
        trials=sum(search.trials for search in searches) + 2,
        inconsistent=next((search.inconsistent for search in searches if search.inconsistent), None),
        replaced=bool(healthy),
    )
    if not culprits:
        nothing = any(search.minimal == () for search in searches)
        reason = "the step fails without any sample of the batch" if nothing else "no sample fails by itself"
        return dataclasses.replace(answer, skipped=reason)
    # With every sample to blame and none to put in their place there is nothing left to run.
    without = trials.ask("samples", keep(rest), oracles.indicator) if rest or healthy else None
    if (without is None or without.bad) and not healthy and oracles.leading is None:
        return dataclasses.replace(answer, sets=(), skipped="every sample fails by itself")
    return dataclasses.replace(
        answer,
        necessary=None if without is None else without.outcome is Outcome.GOOD,
        sufficient=trials.ask("samples", dataclasses.replace(keep(culprits), weights="fresh"), oracles.indicator).bad,
    )


def keeping(kept: tuple[Sample, ...], everything: tuple[Sample, ...], *, alone: bool = False) -> Trial:
    """The trial that keeps these samples, `alone` or among healthy ones; all of them is the captured step itself."""
    return Trial() if set(kept) == set(everything) else Trial(keep=tuple(sorted(kept)), alone=alone)


def base_of(sample: Sample, culprits: Culprits, trials: Trials, *, without: bool = False) -> Trial:
    """The captured step with one culprit left (or none, `without` it), healthy samples in the place of the others."""
    everything = samples_of(trials.content.micro_batches)
    gone = set(culprits.samples) - ({sample} if not without else set())
    return keeping(tuple(s for s in everything if s not in gone), everything)


def signals_of(trials: Trials, sample: Sample) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The sample's signal and the healthy one that takes its place; None where there is none of the same shape."""
    content = trials.content
    signal = signal_of(content.micro_batches, sample)
    healthy: tuple[Batch, ...] = content.healthy_micro_batches or ()
    if signal is None or not healthy:
        return None
    place = sample[0] % len(healthy)
    spare = signal_of(healthy, (place, sample[1] % (batch_size(healthy[place]) or 1)))
    return (signal, spare) if spare is not None and spare.shape == signal.shape else None


def odd_channels(signal: torch.Tensor, healthy: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Channels of (C, L) that are odd at sight, by kind; what is so in healthy material is not odd."""
    unlike = {
        "not finite": ~torch.isfinite(signal).all(-1) & torch.isfinite(healthy).all(-1),
        "mostly constant": _still(signal) & ~_still(healthy),
    }
    return {kind: tuple(int(i) for i in found.nonzero().flatten()) for kind, found in unlike.items()}


def _still(signal: torch.Tensor) -> torch.Tensor:
    return (signal[:, 1:] == signal[:, :-1]).double().mean(-1) >= MOSTLY


def identity(trials: Trials, sample: Sample) -> dict[str, Any]:
    """Where the sample comes from: as captured, else as the subject says; empty when neither knows."""
    content = trials.content
    place, index = sample
    if place < len(content.identities) and index < len(content.identities[place]):
        return dict(content.identities[place][index])
    return ask_subject(trials.subject, content.step * len(content.micro_batches) + place, index)


def ask_subject(subject: Subject, batch: int, index: int) -> dict[str, Any]:
    """`Subject.identify`, or nothing from a subject that does not know."""
    try:
        return dict(subject.identify(batch, index))
    except (AttributeError, LookupError, TypeError, ValueError, NotImplementedError, OSError):
        return {}
