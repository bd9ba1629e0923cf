"""Which electrodes? Of each sample to blame, the fewest channels that still fail among healthy ones.

What is odd at sight is tried first: where it fails alone the others need not be searched.
"""

from __future__ import annotations

import dataclasses

from brainbrr_debug.oracle import Oracles
from brainbrr_debug.questions.culprits import Culprits, Electrodes, base_of, odd_channels, signals_of
from brainbrr_debug.samples import Sample, Span
from brainbrr_debug.search import ddmin
from brainbrr_debug.trials import Trials

MAX_TRIALS = 16
"""For one sample: one culprit of 19 takes about ten; that all of them are needed is not worth proving one by one."""
MOST_SAMPLES = 2
"""So many samples are looked into."""


def which_electrodes(trials: Trials, culprits: Culprits, oracles: Oracles) -> Culprits:
    """The same with the electrodes of the samples that fail by themselves."""
    alone = [sample for sample in culprits.samples if (sample,) in culprits.sets][:MOST_SAMPLES]
    if not culprits.replaced:
        return culprits
    found = {sample: answer for sample in alone if (answer := _of(trials, sample, culprits, oracles)) is not None}
    doubts = [f"among electrodes, {answer.inconsistent}" for answer in found.values() if answer.inconsistent]
    return dataclasses.replace(
        culprits, electrodes=found, inconsistent=culprits.inconsistent or next(iter(doubts), None)
    )


def _of(trials: Trials, sample: Sample, culprits: Culprits, oracles: Oracles) -> Electrodes | None:
    signals = signals_of(trials, sample)
    if signals is None or signals[0].dim() != 2 or len(signals[0]) < 2:
        return None
    length = signals[0].shape[-1]
    base, without = base_of(sample, culprits, trials), base_of(sample, culprits, trials, without=True)
    channels = tuple(range(len(signals[0])))

    def fails(kept: tuple[int, ...]) -> bool | None:
        gone = tuple(channel for channel in channels if channel not in kept)
        spans = (Span(sample=sample, start=0, stop=length, channels=gone),) if gone else ()
        trial = dataclasses.replace(base, spans=spans) if kept else without
        return trials.ask("electrodes", trial, oracles.indicator).bad

    odd = [seen for seen in odd_channels(*signals).values() if seen]
    search = ddmin(odd[0] if odd and fails(odd[0]) else channels, fails, max_trials=MAX_TRIALS)
    if not search.minimal:
        return None
    return Electrodes(channels=search.minimal, complete=search.complete, inconsistent=search.inconsistent)
