"""The folder of recordings: TUSZ's tree, and which patient belongs to which split.

`DATA_DIR/edf/{train,dev,eval}/PATIENT/SESSION/MONTAGE/PATIENT_sNNN_tNNN.edf`; any other depth below the split will do.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from brainbrr.data.errors import CacheError

SPLITS = ("train", "dev", "eval")
_SHOWN = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A recording on disk. `relative` is its path below the split's folder, with forward slashes."""

    path: Path
    relative: str
    name: str
    patient: str
    bytes: int


def patient_of(name: str) -> str:
    """The patient of a recording: its name up to the first underscore."""
    return name.split("_", 1)[0]


def find_recordings(data_dir: str | Path, split: str) -> tuple[Source, ...]:
    """Every EDF file of a split, in the order of their paths. Raises CacheError where there is none."""
    folder = Path(data_dir) / "edf" / split
    if not folder.is_dir():
        raise CacheError(f"no folder {folder}; expected DATA_DIR/edf/{{{','.join(SPLITS)}}} with recordings below it")
    sources = [_source(path, folder) for path in _edf_files(folder)]
    if not sources:
        raise CacheError(f"{folder} holds no .edf file; expected recordings at any depth below it")
    _require_one_of_each_name(sources)
    return tuple(sorted(sources, key=lambda source: source.relative))


def check_disjoint(patients: Mapping[str, Collection[str]]) -> None:
    """Raises CacheError, with up to ten of them, when a patient stands in two of the splits."""
    seen: dict[str, str] = {}
    shared = []
    for split, names in patients.items():
        for patient in sorted(set(names)):
            first = seen.setdefault(patient, split)
            if first != split:
                shared.append(f"{patient} ({first} and {split})")
    if shared:
        more = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
        raise CacheError(
            f"{len(shared)} patient(s) in two splits: {', '.join(shared[:_SHOWN])}{more}; expected each in one, else a "
            "detector is judged on people it has seen: move their recordings into one split"
        )


def check_corpus(data_dir: str | Path) -> None:
    """Raises CacheError when a patient's recordings lie in two splits of the folder."""
    patients = {}
    for split in SPLITS:
        if (Path(data_dir) / "edf" / split).is_dir():
            paths = _edf_files(Path(data_dir) / "edf" / split)
            patients[split] = {patient_of(path.stem) for path in paths}
    check_disjoint(patients)


def _edf_files(folder: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(folder, followlinks=True):
        for file in files:
            path = Path(parent) / file
            if path.suffix.lower() == ".edf" and not file.startswith("."):
                yield path


def _source(path: Path, folder: Path) -> Source:
    return Source(
        path=path,
        relative=path.relative_to(folder).as_posix(),
        name=path.stem,
        patient=patient_of(path.stem),
        bytes=path.stat().st_size,
    )


def _require_one_of_each_name(sources: list[Source]) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        other = seen.setdefault(source.name, source)
        if other is not source:
            raise CacheError(
                f"two recordings named {source.name!r}: {other.path} and {source.path}; expected a name of its own for "
                "each: rename or remove one"
            )
