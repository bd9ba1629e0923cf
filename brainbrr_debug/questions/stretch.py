"""Which seconds? The shortest stretch of a culprit's signal that still fails, and what there is to see in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from brainbrr_debug.oracle import Oracles
from brainbrr_debug.questions.culprits import Culprits, Electrodes, base_of, identity, odd_channels, signals_of
from brainbrr_debug.samples import Sample, Span
from brainbrr_debug.search import shortest_interval
from brainbrr_debug.trials import Trials

SPANS = 32


def described(trials: Trials, culprits: Culprits, oracles: Oracles) -> Culprits:
    """The same with every sample's origin, its electrodes, and the stretch that suffices where there is one."""
    rows = []
    for sample in culprits.samples:
        row: dict[str, Any] = {"index": sample[1]}
        if len(trials.content.micro_batches) > 1:
            row["micro_batch"] = sample[0]
        row |= identity(trials, sample)
        if (sample,) in culprits.sets and culprits.replaced:
            span = stretch(trials, sample, culprits, oracles)
            row |= _named(trials, sample, span, culprits.electrodes.get(sample))
            if span is not None:
                row["span"] = _seconds(span, row)
        rows.append(row)
    return dataclasses.replace(culprits, described=tuple(rows))


def stretch(trials: Trials, sample: Sample, culprits: Culprits, oracles: Oracles) -> dict[str, Any] | None:
    """The shortest stretch that still fails, `start` to `stop` `of` so many values; in the electrodes to blame alone
    where they are known.
    """
    signals = signals_of(trials, sample)
    if signals is None or signals[0].shape[-1] < 2 * SPANS:
        return None
    signal = signals[0]
    length = signal.shape[-1]
    cuts = [length * part // SPANS for part in range(SPANS + 1)]
    base = base_of(sample, culprits, trials)
    found = culprits.electrodes.get(sample)
    others = () if found is None else tuple(c for c in range(len(signal)) if c not in found.channels)

    def fails(first: int, last: int) -> bool | None:
        gone = tuple((start, stop) for start, stop in ((0, cuts[first]), (cuts[last], length)) if stop > start)
        spans = tuple(Span(sample=sample, start=start, stop=stop) for start, stop in gone)
        if others:
            spans += (Span(sample=sample, start=cuts[first], stop=cuts[last], channels=others),)
        return trials.ask("seconds", dataclasses.replace(base, spans=spans), oracles.indicator).bad

    interval = shortest_interval(SPANS, fails)
    if interval is None:
        return None
    return {"start": cuts[interval.start], "stop": cuts[interval.stop], "of": length}


def _seconds(span: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    if not {"start_s", "stop_s"} <= row.keys():
        return span
    begin, rate = float(row["start_s"]), (float(row["stop_s"]) - float(row["start_s"])) / span["of"]
    ends = (("start_s", span["start"]), ("stop_s", span["stop"]))
    return span | {name: round(begin + place * rate, 3) for name, place in ends}


def _named(trials: Trials, sample: Sample, span: Mapping[str, Any] | None, found: Electrodes | None) -> dict[str, Any]:
    """The electrodes that are odd there in one way, where those that suffice are among them; else those."""
    signals = signals_of(trials, sample)
    if signals is None or signals[0].dim() != 2:
        return {}
    least = () if found is None else found.channels
    blamed, state = tuple(least), "these suffice"
    if span is not None:
        here, healthy = (x[:, span["start"] : span["stop"]] for x in signals)
        for kind, odd in odd_channels(here, healthy).items():
            if odd and set(least) <= set(odd):
                blamed, state = odd, f"{kind} in that stretch"
                break
    if not blamed:
        return {}
    row = {"electrodes": _names(trials, blamed), "electrodes_of": len(signals[0]), "electrodes_are": state}
    if found is not None and len(least) < len(blamed):
        row["electrodes_suffice"] = _names(trials, least)
    if found is not None and (found.inconsistent or not found.complete):
        row["electrodes_note"] = found.inconsistent or "the search ran out of trials: fewer may do"
    return row


def _names(trials: Trials, channels: Iterable[int]) -> list[str]:
    names = getattr(trials.subject, "channels", None)
    return [str(names[i]) if names is not None else f"channel {i}" for i in channels]
