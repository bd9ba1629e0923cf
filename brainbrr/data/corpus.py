"""The recordings of a corpus: found, laid to their patients and splits, and no patient in two of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from brainbrr.config import LayoutName
from brainbrr.data.errors import CacheError
from brainbrr.data.layouts import SPLITS, Layout, Place, recognise, recordings_of

_SHOWN = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A recording on disk. `relative` is its path below its split's folder (else the corpus's), forward slashes."""

    path: Path
    relative: str
    name: str
    patient: str
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """All recordings below `data_dir`, as `layout` places them; `places` by path below it."""

    data_dir: Path
    layout: Layout
    places: Mapping[str, Place]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold a recording."""
        present = {place.split for place in self.places.values()}
        return tuple(split for split in SPLITS if split in present)

    def recordings(self, split: str) -> tuple[Source, ...]:
        """Those of a split in the order of their paths. Raises CacheError where there is none."""
        sources = [self._source(path, place) for path, place in self.places.items() if place.split == split]
        if not sources:
            raise CacheError(
                f"{self.data_dir}: no recording of the split {split!r} in this corpus of layout {self.layout.name!r}; "
                f"it holds {', '.join(self.splits)}: expected paths such as {self.layout.example}"
            )
        _require_one_of_each_name(sources)
        return tuple(sorted(sources, key=lambda source: source.relative))

    def _source(self, path: str, place: Place) -> Source:
        full = self.data_dir / path
        return Source(
            path=full, relative=place.relative, name=full.stem, patient=place.patient, bytes=full.stat().st_size
        )


def open_corpus(data_dir: str | Path, layout: LayoutName = "auto") -> Corpus:
    """The corpus below `data_dir`, its layout recognised unless it is named.

    Raises CacheError for a folder that is not there or holds no recording, for one that fits no layout, and when a
    patient's recordings lie in two splits.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise CacheError(f"{data_dir}: no such folder; expected one of recordings, such as DATA_DIR/edf/train")
    paths = recordings_of(_files(data_dir))
    if not paths:
        raise CacheError(f"{data_dir} holds no .edf file; expected recordings below it, such as edf/train/PATIENT/…")
    found = recognise(paths, layout, where=data_dir)
    places = {path: place for path in paths if (place := found.place(path)) is not None}
    check_disjoint({split: {p.patient for p in places.values() if p.split == split} for split in SPLITS})
    return Corpus(data_dir=data_dir, layout=found, places=places)


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


def _files(folder: Path) -> list[str]:
    return [
        (Path(parent) / file).relative_to(folder).as_posix()
        for parent, _, files in os.walk(folder, followlinks=True)
        for file in files
    ]


def _require_one_of_each_name(sources: list[Source]) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        other = seen.setdefault(source.name, source)
        if other is not source:
            raise CacheError(
                f"two recordings named {source.name!r}: {other.path} and {source.path}; expected a name of its own for "
                "each: rename or remove one"
            )
