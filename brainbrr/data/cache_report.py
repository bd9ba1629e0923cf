"""What a build of the cache came to: the outcome for each recording, and their sum."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from brainbrr.data.cache_index import Failure
from brainbrr.data.corpus import Source
from brainbrr.data.stored import CachedRecording

_SHOWN = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The outcome for one source; `reason` says why it failed."""

    source: Source
    status: Literal["built", "reused", "failed"]
    recording: CachedRecording | None
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport:
    """Counts are of the recordings asked for; `failed` names those that are not in the cache.

    `clipped`: share of all samples; `seconds`: time the build took.
    """

    split: str
    recordings: int
    built: int
    reused: int
    failed: tuple[Failure, ...]
    unlabelled: int
    interpolated: int
    patients: int
    hours: float
    seizures: int
    seizure_seconds: float
    clipped: float
    nonfinite: int
    seconds: float

    @property
    def has_seizures(self) -> bool:
        """Whether there is anything to learn from."""
        return self.seizures > 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """One line."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return (
            f"{self.recordings} recordings ({self.built} built, {self.reused} reused{failed}), {self.hours:.2f} h, "
            f"{self.patients} patients, {self.seizures} seizures ({self.seizure_seconds:.0f} s)"
        )

    def text(self) -> str:
        """For a person: the summary, what was altered, and every recording that failed with its reason."""
        lines = [f"{self.split}: {self.summary()}", f"  {self.unlabelled} without labels, {self.interpolated} with"]
        lines[-1] += f" interpolated electrodes, {self.nonfinite} non-finite samples, {self.clipped:.4%} clipped"
        if not self.has_seizures:
            lines.append(f"  no seizure in {self.recordings} recordings ({self.unlabelled} without labels)")
        lines += [f"  failed: {failure.name}: {failure.reason}" for failure in self.failed[:_SHOWN]]
        if len(self.failed) > _SHOWN:
            lines.append(f"  and {len(self.failed) - _SHOWN} more")
        return "\n".join(lines)


def failures(made: Sequence[Made]) -> tuple[Failure, ...]:
    """Those that failed, in the order of their paths."""
    return tuple(
        Failure(name=outcome.source.name, source=outcome.source.relative, reason=outcome.reason)
        for outcome in sorted(made, key=lambda outcome: outcome.source.relative)
        if outcome.status == "failed"
    )


def summarise(split: str, made: Sequence[Made], seconds: float) -> CacheReport:
    """The sum of the outcomes of a build that took `seconds`."""
    recordings = [outcome.recording for outcome in made if outcome.recording is not None]
    events = [event for recording in recordings for event in recording.events or ()]
    samples = sum(recording.n_samples for recording in recordings)
    clipped = sum(sum(recording.clipped) / len(recording.clipped) * recording.n_samples for recording in recordings)
    return CacheReport(
        split=split,
        recordings=len(recordings),
        built=sum(outcome.status == "built" for outcome in made),
        reused=sum(outcome.status == "reused" for outcome in made),
        failed=failures(made),
        unlabelled=sum(recording.events is None for recording in recordings),
        interpolated=sum(bool(recording.interpolated) for recording in recordings),
        patients=len({recording.patient for recording in recordings}),
        hours=sum(recording.duration_s for recording in recordings) / 3600,
        seizures=len(events),
        seizure_seconds=sum(event.stop_s - event.start_s for event in events),
        clipped=clipped / samples if samples else 0.0,
        nonfinite=sum(bad.count for recording in recordings for bad in recording.nonfinite),
        seconds=seconds,
    )
