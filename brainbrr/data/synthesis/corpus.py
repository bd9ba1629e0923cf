"""Writing a planned corpus as EDF and CSV_BI files, all or nothing."""

from __future__ import annotations

import datetime
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from brainbrr.config import ELECTRODES, SAMPLING_RATE
from brainbrr.data.formats import write_label_file
from brainbrr.data.labels import Event, LabelFile
from brainbrr.data.synthesis.artefacts import RAIL_UV, Artefact
from brainbrr.data.synthesis.noise import Signal
from brainbrr.data.synthesis.plan import RecordingPlan, SynthesisError, plan_corpus
from brainbrr.data.synthesis.render import render_electrodes, render_heart
from brainbrr.files import atomic_write

TRUTH = "artefacts.json"
_PARTIAL = ".partial-"  # folders of runs under way, or interrupted
_STEP_UV = 0.2
# The order in TUSZ files, which is not ours: readers pick by name.
_FILE_ORDER = (
    "Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2",
    "F7", "F8", "T3", "T4", "T5", "T6", "Fz", "Cz", "Pz",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """What `write_corpus` wrote."""

    path: Path
    recordings: int
    hours: float
    seizures: int
    lookalikes: int
    artefacts: tuple[Artefact, ...]
    shortened: int  # seizures and look-alikes made shorter than drawn, because recordings are short
    railed: int  # samples beyond the converter's range, cut to it

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {**asdict(self), "path": str(self.path), "artefacts": [asdict(item) for item in self.artefacts]}

    def text(self) -> str:
        """A few lines for a person."""
        events = f"{self.seizures} seizures, {self.lookalikes} look-alikes"
        lines = [
            f"{self.recordings} recordings, {self.hours:.2f} h, {events}",
            *(f"{item.kind} in {item.recording}, {item.start_s:g} to {item.stop_s:g} s" for item in self.artefacts),
        ]
        if self.shortened:
            lines.append(f"{self.shortened} seizures and look-alikes were shortened: the recordings are short")
        if self.railed:
            lines.append(f"{self.railed} samples met the converter's rail of ±{RAIL_UV:g} µV")
        return "\n".join([*lines, f"Wrote {self.path}"])


def write_corpus(
    root: Path | str,
    *,
    patients: int,
    minutes: float,
    seizures: int,
    lookalikes: int,
    artefacts: Sequence[str] = (),
    seed: int,
    splits: Sequence[str] = ("train", "dev"),
    force: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> CorpusReport:
    """Write a TUSZ-style corpus of synthetic EEG below `root`: genuine EDF and CSV_BI files, and `artefacts.json`.

    Each of `splits` gets `patients` patients (never shared between splits) with one recording of `minutes` that
    holds `seizures` labelled seizures and `lookalikes` unlabelled stretches that resemble one. Each kind in
    `artefacts` (see `KINDS`) goes into one training recording. The bytes depend on the arguments alone (and on
    numpy's FFT, whose last bit may differ between versions). Nothing appears in `root` before everything is written.

    `force` replaces a corpus that this function wrote into `root`, and leaves every other file there alone.
    `progress` is called with (recordings done, all recordings, name) after each.

    Raises `SynthesisError` for unusable arguments, for events or artefacts that find no room, and for a `root` that
    is not empty.
    """
    root = Path(root)
    plans = plan_corpus(
        patients=patients,
        minutes=minutes,
        seizures=seizures,
        lookalikes=lookalikes,
        artefacts=artefacts,
        seed=seed,
        splits=splits,
    )
    _check_root(root, force)
    root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=root))
    try:
        railed = 0
        for done, plan in enumerate(plans, start=1):
            railed += _write_recording(staging, plan)
            if progress is not None:
                progress(done, len(plans), plan.name)
        truth = tuple(artefact for plan in plans for artefact in plan.artefacts)
        with atomic_write(staging / TRUTH) as file:
            file.write((json.dumps([asdict(artefact) for artefact in truth], indent=2) + "\n").encode())
        _publish(staging, root, force)
    finally:
        shutil.rmtree(staging)
    return CorpusReport(
        path=root,
        recordings=len(plans),
        hours=sum(plan.duration_s for plan in plans) / 3600,
        seizures=sum(len(plan.seizures) for plan in plans),
        lookalikes=sum(len(plan.lookalikes) for plan in plans),
        artefacts=truth,
        shortened=sum(plan.shortened for plan in plans),
        railed=railed,
    )


def _check_root(root: Path, force: bool) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise SynthesisError(f"{root} is a file; expected a folder to write the corpus into")
    found = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith(_PARTIAL))
    if found and not force:
        raise SynthesisError(
            f"{root} is not empty (holds {found[0]!r} and {len(found) - 1} more); expected an empty or new folder: "
            "choose another, or give --force to replace a synthetic corpus there"
        )
    if "edf" in found and TRUTH not in found:
        raise SynthesisError(
            f"{root / 'edf'} was not written here ({TRUTH} is missing beside it); expected a synthetic corpus to "
            "replace: choose another folder, recordings are never overwritten"
        )


def _publish(staging: Path, root: Path, force: bool) -> None:
    """Move the finished corpus into place; with `force` an older one steps aside and goes with the staging folder."""
    for name in ("edf", TRUTH):
        if not (root / name).exists():
            continue
        if not force:
            raise SynthesisError(
                f"{root} was filled by another process meanwhile ({name} is there now); expected one writer: "
                "use what is there, or choose another folder"
            )
        (root / name).rename(staging / f"old-{name}")
    for name in ("edf", TRUTH):
        (staging / name).rename(root / name)
    _sync_folder(root)


def _write_recording(staging: Path, plan: RecordingPlan) -> int:
    """Write one EDF file and its labels; returns how many samples met the rail without being asked to."""
    signal = render_electrodes(plan)
    digital, beyond = _digitise(signal)
    heart, heart_beyond = _digitise(render_heart(plan))
    edf_path = staging / f"{plan.path}.edf"
    edf_path.parent.mkdir(parents=True)
    _write_edf(edf_path, plan, digital, heart)
    events = [Event(start_s=seizure.start_s, stop_s=seizure.stop_s) for seizure in plan.seizures]
    labels_at = edf_path.with_suffix(".csv_bi")
    write_label_file(labels_at, LabelFile(path=labels_at, events=tuple(events), duration_s=plan.duration_s))
    return beyond + heart_beyond


def _digitise(microvolts: Signal) -> tuple[NDArray[np.int16], int]:
    steps = np.rint(microvolts * np.float32(1 / _STEP_UV))
    rail = round(RAIL_UV / _STEP_UV)
    beyond = int(np.count_nonzero(np.abs(steps) > rail))
    return np.clip(steps, -rail, rail).astype(np.int16), beyond


def _write_edf(path: Path, plan: RecordingPlan, digital: NDArray[np.int16], heart: NDArray[np.int16]) -> None:
    import edfio

    rail = round(RAIL_UV / _STEP_UV)

    def channel(label: str, samples: NDArray[np.int16]) -> edfio.EdfSignal:
        return edfio.EdfSignal.from_digital(
            samples,
            SAMPLING_RATE,
            label=label,
            transducer_type="synthetic",
            physical_dimension="uV",
            physical_range=(-RAIL_UV, RAIL_UV),
            digital_range=(-rail, rail),
            prefiltering="none",
        )

    channels = [channel(f"EEG {name.upper()}-REF", digital[ELECTRODES.index(name)]) for name in _FILE_ORDER]
    edf = edfio.Edf(
        [*channels, channel("EEG EKG1-REF", heart)],
        patient=edfio.Patient(code=plan.patient),
        recording=edfio.Recording(startdate=datetime.date(2020, 1, 1), equipment_code="brainbrr-synthetic"),
        starttime=datetime.time(9, 0),
        data_record_duration=1,
    )
    with atomic_write(path) as file:
        edf.write(cast(io.BufferedWriter, file))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
