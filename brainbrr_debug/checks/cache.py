"""Checks over a cache of recordings; `brainbrr scan-cache` shows the same. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from brainbrr_debug.checks.registry import Given, NotApplicable, check
from brainbrr_debug.records import Finding, Severity

if TYPE_CHECKING:
    from brainbrr_debug.facts import CachedItem

LABELS = "cache.labels"
STALE = "cache.stale"
RANGE = "cache.range"
EMPTY = "cache.empty"
DANGLING = "cache.dangling"
CORRUPT = "cache.corrupt"
FLAT = "cache.flat"
LEAKAGE = "cache.leakage"


def _damaged(given: Given, check_id: str, why: str, remedy: str) -> Iterator[Finding]:
    """A finding for each damage of the kind that the check is about."""
    facts = given.cache_facts
    for damage in facts.damage:
        if damage.kind == check_id.partition(".")[2]:
            yield Finding(
                check=check_id,
                severity=Severity.P0,
                message=damage.message,
                file=str(damage.path),
                why=why,
                remedy=remedy,
                commands=() if facts.foreign else (facts.rebuild,),
            )


@check(LABELS, Severity.P0, needs="cache", summary="no seizure to learn from, or fewer than the label files hold")
def labels(given: Given) -> Iterator[Finding]:
    """At least one seizure in the training split, and as many seconds of seizure as in the files they came from."""
    facts, share = given.cache_facts, given.setting(LABELS, "share")
    yield from _damaged(
        given,
        LABELS,
        "balanced sampling needs a seizure window; without one the loss falls, and the detector learns silence",
        "put the label files beside the recordings, and build the cache anew",
    )
    for split, (count, seconds) in facts.sources.items():
        held = [item for item in facts.items if item.split == split]
        cached = sum(item.positive_seconds for item in held)
        if held and abs(seconds - cached) > share * max(seconds, cached):
            yield Finding(
                check=LABELS,
                severity=Severity.P0,
                message=f"{split}: {cached:.0f} s of seizure in the cache, {seconds:.0f} s ({count}) in label files",
                where=split,
                file=str(facts.path),
                why="labels were lost or changed on the way: what is learnt and scored is not what was annotated",
                remedy="build the cache anew; where it stays so, look at the label files that it leaves out",
                commands=(facts.rebuild,),
            )


@check(STALE, Severity.P0, needs="cache", summary="a cache that was made with other preprocessing")
def stale(given: Given) -> Iterator[Finding]:
    """The hash of the preprocessing against that of the configuration, and of all recordings against each other."""
    yield from _damaged(
        given,
        STALE,
        "the model trains on other numbers than the configuration says, and than it will see later",
        "build the cache anew, or name another folder in data.cache_dir",
    )


@check(EMPTY, Severity.P0, needs="cache", summary="a folder that holds no cache, or one that was not finished")
def empty(given: Given) -> Iterator[Finding]:
    """An index for each split, with at least one recording."""
    yield from _damaged(given, EMPTY, "training begins with hours of building, or stops", "build the cache")


@check(DANGLING, Severity.P0, needs="cache", summary="recordings in the index that are not on disk")
def dangling(given: Given) -> Iterator[Finding]:
    """Every recording of the index lies where it should."""
    yield from _damaged(given, DANGLING, "training stops at the first window of it", "build the cache again")


@check(CORRUPT, Severity.P0, needs="cache", summary="files of the cache that are damaged")
def corrupt(given: Given) -> Iterator[Finding]:
    """Lengths of all recordings, and checksums of some."""
    yield from _damaged(
        given, CORRUPT, "damaged samples train like others, and a torn file ends the run", "build the cache again"
    )


@check(LEAKAGE, Severity.P0, needs="cache", summary="a patient in two splits")
def leakage(given: Given) -> Iterator[Finding]:
    """Patients of each split against those of the others."""
    yield from _damaged(
        given,
        LEAKAGE,
        "the score is of people whom the model has seen",
        "move all of a patient's recordings to one split",
    )
    seen: dict[str, CachedItem] = {}
    for item in given.cache_facts.items if given.cache_facts.foreign else ():
        first = seen.setdefault(item.group, item)
        if first.split != item.split:
            yield Finding(
                check=LEAKAGE,
                severity=Severity.P0,
                message=f"patient {item.group} is in {first.split} and in {item.split}",
                where=item.group,
                file=str(item.path),
                why="the score is of people whom the model has seen",
                remedy="move all of a patient's recordings to one split",
            )


@check(RANGE, Severity.P0, needs="cache", summary="samples beyond the range that training expects")
def value_range(given: Given) -> Iterator[Finding]:
    """Magnitudes of a foreign cache; in ours, which is clipped, the share that was."""
    facts = given.cache_facts
    sigma, most = given.setting(RANGE, "sigma"), given.setting(RANGE, "clipped")
    for item in facts.items:
        if item.largest is not None and not item.largest <= sigma:  # NaN, too
            yield Finding(
                check=RANGE,
                severity=Severity.P0,
                message=f"{item.name} holds {item.largest:.3g}; expected magnitudes up to {sigma:g} σ",
                file=str(item.path),
                why="a window of a hundred σ moves every weight of the first layer, and overflows half precision",
                remedy=f"scale by electrode, clip at {sigma:g} σ, and write the cache anew",
            )
        cut = {name: share for name, share in item.clipped.items() if share > most}
        if cut:
            worst = ", ".join(f"{name} {share:.2%}" for name, share in sorted(cut.items(), key=lambda e: -e[1])[:5])
            yield Finding(
                check=RANGE,
                severity=Severity.P2,
                message=f"{item.name}: more than {most:.2%} of an electrode is clipped: {worst}",
                where=", ".join(cut),
                file=str(item.path),
                why="an electrode that is cut off this often is an artefact, or its scale is",
                remedy="look at the recording; a loose electrode is best left out",
            )


@check(FLAT, Severity.P2, needs="cache", summary="electrodes without a signal of their own")
def flat(given: Given) -> Iterator[Finding]:
    """Stretches that are flat or at the end of the range, and electrodes that show one signal; by recording."""
    if given.cache_facts.foreign:
        raise NotApplicable("which rows of a foreign cache are electrodes is not known")
    for fault in given.channel_faults:
        channels = ", ".join(fault.channels) if len(fault.channels) < 19 else "all electrodes"
        yield Finding(
            check=FLAT,
            severity=Severity.P2,
            message=f"{fault.recording}: {channels} {fault.kind} from {fault.start_s:g} s to {fault.stop_s:g} s",
            where=", ".join(fault.channels),
            file=str(fault.path),
            why="equal rows give equal weights and repeated eigenvalues, whose eigenvectors have no gradient",
            remedy="leave the window or the recording out, or have the model stand it (pe_gradient: safe)",
        )
