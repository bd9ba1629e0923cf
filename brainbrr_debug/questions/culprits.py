"""Which samples, and which stretch of them? Healthy material takes the place of what is taken away, until it heals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from brainbrr_debug.oracle import Oracles
from brainbrr_debug.records import Outcome
from brainbrr_debug.samples import Sample, SamplesError, Span, batch_size, replaceable, samples_of, signal_of
from brainbrr_debug.search import all_minimal, shortest_interval
from brainbrr_debug.subject import Batch, Subject
from brainbrr_debug.trial import Trial
from brainbrr_debug.trials import Trials

SPANS = 32
MOST_CULPRITS = 4


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


def described(trials: Trials, culprits: Culprits, oracles: Oracles) -> Culprits:
    """The same with every sample's origin, and the stretch of its signal that suffices where there is one."""
    rows = []
    for sample in culprits.samples:
        row: dict[str, Any] = {"index": sample[1]}
        if len(trials.content.micro_batches) > 1:
            row["micro_batch"] = sample[0]
        row |= identity(trials, sample)
        if (sample,) in culprits.sets and culprits.replaced:
            row |= stretch(trials, sample, culprits, oracles, row)
        rows.append(row)
    return dataclasses.replace(culprits, described=tuple(rows))


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


def stretch(
    trials: Trials, sample: Sample, culprits: Culprits, oracles: Oracles, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """The shortest stretch of the signal that still fails, in samples and, where known, in seconds."""
    content = trials.content
    signal = signal_of(content.micro_batches, sample)
    if signal is None or signal.shape[-1] < 2 * SPANS or not _same_shape(content, sample, signal):
        return {}
    length = signal.shape[-1]
    cuts = [length * part // SPANS for part in range(SPANS + 1)]
    everything = samples_of(content.micro_batches)
    base = keeping(tuple(s for s in everything if s == sample or s not in culprits.samples), everything)

    def fails(first: int, last: int) -> bool | None:
        gone = tuple((start, stop) for start, stop in ((0, cuts[first]), (cuts[last], length)) if stop > start)
        spans = tuple(Span(sample=sample, start=start, stop=stop) for start, stop in gone)
        return trials.ask("seconds", dataclasses.replace(base, spans=spans), oracles.indicator).bad

    found = shortest_interval(SPANS, fails)
    if found is None:
        return {}
    start, stop = cuts[found.start], cuts[found.stop]
    span: dict[str, Any] = {"start": start, "stop": stop, "of": length}
    if {"start_s", "stop_s"} <= origin.keys():
        begin, rate = float(origin["start_s"]), (float(origin["stop_s"]) - float(origin["start_s"])) / length
        span |= {"start_s": round(begin + start * rate, 3), "stop_s": round(begin + stop * rate, 3)}
    odd = odd_channels(signal[..., start:stop])
    if not odd:
        return {"span": span}
    names = getattr(trials.subject, "channels", None)
    electrodes = [str(names[i]) if names is not None else f"channel {i}" for i in odd]
    state = "constant or not finite in that stretch"
    return {"span": span, "electrodes": electrodes, "electrodes_of": len(signal), "electrodes_are": state}


def odd_channels(signal: torch.Tensor) -> list[int]:
    """Channels of (C, L) that are constant or not finite throughout: seen, not searched."""
    if signal.dim() != 2:
        return []
    low, high = signal.amin(-1), signal.amax(-1)
    return [int(i) for i in (~((high - low) > 0) | ~torch.isfinite(high - low)).nonzero().flatten()]


def _same_shape(content: Any, sample: Sample, signal: torch.Tensor) -> bool:
    healthy: tuple[Batch, ...] = content.healthy_micro_batches
    spare = healthy[sample[0] % len(healthy)]
    return bool(batch_size(spare)) and getattr(signal_of((spare,), (0, 0)), "shape", None) == signal.shape
