"""How corpora lay out their recordings in folders: from a path to its patient, and its split where the tree tells.

    tusz      [edf/]{train,dev,eval}/…/PATIENT_sNNN_tNNN.edf, any depth; the split is the corpus's own
    bids      sub-PATIENT/[ses-…/]eeg/sub-PATIENT_…_eeg.edf, as SeizeIT2 and what SzCORE evaluates on
    chbmit    chbNN/chbNN_NN.edf
    siena     PNNN/PNNN-N.edf
    seizeit1  P_IDNN/P_IDNN_rN.edf

Corpora without splits of their own get them by patient, from a hash of the patient's name: the same on every machine,
and no patient changes sides when further ones are downloaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Sequence
from typing import get_args

from brainbrr.config import LayoutName
from brainbrr.data.errors import CacheError

SPLITS = ("train", "dev", "eval")
SHARES = {"train": 0.7, "dev": 0.15, "eval": 0.15}
"""Of the patients of a corpus without splits of its own."""

# PhysioNet's page of CHB-MIT: case chb21 was recorded 1.5 years after chb01, from the same person.
_SAME_PERSON = {"chb21": "chb01"}
_NOT_RAW = ("derivatives", "sourcedata", "code")  # BIDS keeps other people's results and formats in these


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A tree of folders: `pattern` of a recording's path, with the groups patient and, where the tree has it, split."""

    name: str
    pattern: re.Pattern[str]
    example: str

    def place(self, path: str) -> Place | None:
        """Where the recording at `path` (relative, forward slashes) belongs; None where this is another tree."""
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        groups = found.groupdict()
        patient = _SAME_PERSON.get(groups["patient"], groups["patient"])
        return Place(
            patient=patient,
            split=groups.get("split") or assigned_split(patient),
            relative=path[found.end("split") + 1 :] if "split" in groups else path,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A recording's patient and split; `relative` is its path below the folder of the split, else of the corpus."""

    patient: str
    split: str
    relative: str


def _layout(name: str, pattern: str, example: str) -> Layout:
    return Layout(name=name, pattern=re.compile(rf"(?:.*/)?{pattern}\.edf", re.IGNORECASE), example=example)


# In the order in which they are tried: TUSZ's takes any name below a folder of a split, so it comes last.
LAYOUTS = {
    layout.name: layout
    for layout in (
        _layout("bids", r"(?P<patient>sub-[^/_]+)/(?:ses-[^/]+/)?eeg/[^/]+_eeg", "sub-01/eeg/sub-01_task-x_eeg.edf"),
        _layout("chbmit", r"(?P<patient>chb\d+)/chb\d+[a-z]?_[^/]+", "chb01/chb01_03.edf"),
        _layout("siena", r"(?P<patient>PN\d+)/PN\d+[-_][^/]+", "PN00/PN00-1.edf"),
        _layout("seizeit1", r"(?P<patient>P_ID\d+)/P_ID\d+_r\d+", "P_ID10/P_ID10_r1.edf"),
        _layout(
            "tusz",
            r"(?P<split>train|dev|eval)/(?:.*/)?(?P<patient>[^/_]+)[^/]*",
            "edf/train/aaaaaaac/s001_2002/02_tcp_le/aaaaaaac_s001_t000.edf",
        ),
    )
}
assert {"auto", *LAYOUTS} == set(get_args(LayoutName))


def assigned_split(patient: str) -> str:
    """The split of a patient of a corpus that has none: by the first 32 bits of the name's SHA-256."""
    place = int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) / 2**32
    train, dev, _ = SHARES.values()
    return "train" if place < train else "dev" if place < train + dev else "eval"


def recognise(paths: Collection[str], layout: LayoutName, *, where: object) -> Layout:
    """The layout that all `paths` fit: the named one, or with "auto" the first.

    Raises CacheError with the first path that does not fit.
    """
    candidates = list(LAYOUTS.values()) if layout == "auto" else [LAYOUTS[layout]]
    strangers = {each.name: _strangers(paths, each) for each in candidates}
    for each in candidates:
        if not strangers[each.name]:
            return each
    nearest = min(candidates, key=lambda each: len(strangers[each.name]))
    lost = strangers[nearest.name]
    raise CacheError(
        f"{where}: {len(lost)} of {len(paths)} recordings do not lie as the layout {nearest.name!r} has them, "
        f"{lost[0]} first; expected paths such as {nearest.example}, or another layout (--layout, data.layout: "
        f"{', '.join(LAYOUTS)})"
    )


def recordings_of(paths: Sequence[str]) -> tuple[str, ...]:
    """The paths of recordings, without hidden ones and what BIDS keeps beside the raw data."""
    return tuple(
        path
        for path in paths
        if path.lower().endswith(".edf")
        and not any(part.startswith(".") for part in path.split("/"))
        and path.split("/", 1)[0] not in _NOT_RAW
    )


def _strangers(paths: Collection[str], layout: Layout) -> list[str]:
    return [path for path in paths if layout.place(path) is None]
