"""What one recording is like: its header, what was odd in reading it, its faults and its labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from brainbrr.data.edf import read_recording
from brainbrr.data.formats import find_labels, read_label_file
from brainbrr.data.labels import Event
from brainbrr.data.montage import Montaged, to_electrodes
from brainbrr.data.quality import Fault, amplitudes, find_faults


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One recording. `seizures` is None where it is unlabelled; `labels` names the file that they come from."""

    recording: str
    duration_s: float
    rate: float
    interpolated: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[Fault, ...]
    amplitudes_uv: tuple[float, ...]
    labels: str | None
    seizures: tuple[Event, ...] | None

    @property
    def sound(self) -> bool:
        """No fault, mains excepted: the notch takes those away."""
        return all(fault.kind == "mains" for fault in self.faults)

    def to_dict(self) -> dict[str, Any]:
        """As one document."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """For a person: a line for the recording, then one for each fault, note and seizure."""
        lines = [f"{self.recording}  {self.duration_s:g} s at {self.rate:g} Hz"]
        lines += [f"note     {note}" for note in self.notes]
        for fault in self.faults:
            where = ", ".join(fault.electrodes) if len(fault.electrodes) < 19 else "all electrodes"
            detail = f"  ({fault.detail})" if fault.detail else ""
            lines.append(f"{fault.kind:<11}{fault.start_s:8.0f} to {fault.stop_s:8.0f} s  {where}{detail}")
        if not self.faults:
            lines.append("no fault")
        if self.seizures is None:
            return "\n".join([*lines, "unlabelled"])
        lines.append(f"{len(self.seizures)} seizures in {self.labels}")
        lines += [f"{event.label:<11}{event.start_s:8.1f} to {event.stop_s:8.1f} s" for event in self.seizures]
        return "\n".join(lines)


def inspect_recording(path: Path, labels: Path | None = None) -> tuple[Inspection, Montaged]:
    """Read the EDF file at `path` and look at every electrode; `labels`: a file that does not lie beside it.

    Raises RecordingError and LabelError as reading does.
    """
    recording = read_recording(path)
    montaged = to_electrodes(recording)
    labels_at = labels or find_labels(path)
    inspection = Inspection(
        recording=path.name,
        duration_s=recording.duration_s,
        rate=recording.rate,
        interpolated=montaged.interpolated,
        notes=(*recording.notes, *montaged.notes),
        faults=find_faults(montaged.signal, recording.rate),
        amplitudes_uv=amplitudes(montaged.signal, recording.rate),
        labels=None if labels_at is None else labels_at.name,
        seizures=None if labels_at is None else read_label_file(labels_at, path.stem).events,
    )
    return inspection, montaged
