"""EDF files written byte by byte, so that the reader is not tested with the library it reads through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from brainbrr.config import ELECTRODES

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
Digital = npt.NDArray[np.int16]


def field(value: object, width: int) -> bytes:
    return str(value).encode("latin-1").ljust(width)[:width]


def annotation_signal(onsets: Sequence[float | None], notes: Mapping[int, str], width: int) -> list[bytes]:
    """One chunk of `width` bytes a record; `notes` are entries in EDF+ notation by record."""
    chunks = []
    for record, onset in enumerate(onsets):
        chunk = b"" if onset is None else f"+{onset:.6f}".rstrip("0").rstrip(".").encode() + b"\x14\x14\x00"
        chunk += notes.get(record, "").encode()
        chunks.append(chunk.ljust(width, b"\0"))
    return chunks


def edf_bytes(
    signals: Mapping[str, Digital],
    *,
    samples: int | Mapping[str, int] = 256,
    record_s: float = 1.0,
    unit: str | Mapping[str, str] = "uV",
    physical: tuple[object, object] = (-3276.8, 3276.7),
    digital: tuple[object, object] = (-32768, 32767),
    reserved: str = "",
    n_records: int | None = None,
    date: str = "01.02.20",
    time: str = "03.04.05",
    onsets: Sequence[float | None] | None = None,
    notes: Mapping[int, str] | None = None,
) -> bytes:
    """An EDF file of `samples` samples of each signal a record; `onsets` adds an annotation signal (EDF+)."""
    labels = list(signals)
    counts = [samples if isinstance(samples, int) else samples[label] for label in labels]
    records = len(signals[labels[0]]) // counts[0]
    width = 120
    table = [
        (label, "", unit if isinstance(unit, str) else unit[label], *physical, *digital, "", count, "")
        for label, count in zip(labels, counts, strict=True)
    ]
    if onsets is not None:
        table.append(("EDF Annotations", "", "", -1, 1, -32768, 32767, "", width // 2, ""))
    ns = len(table)
    head = field("0", 8) + field("X X X X", 80) + field("Startdate X X X X", 80) + field(date, 8) + field(time, 8)
    head += field(256 * (ns + 1), 8) + field(reserved, 44)
    head += field(records if n_records is None else n_records, 8) + field(f"{record_s:g}", 8) + field(ns, 4)
    for column, size in enumerate((16, 80, 8, 8, 8, 8, 8, 80, 8, 32)):
        head += b"".join(field(row[column], size) for row in table)
    chunks = annotation_signal(onsets, notes or {}, width) if onsets is not None else [b""] * records
    body = b"".join(
        b"".join(
            signals[label][record * count : (record + 1) * count].astype("<i2").tobytes()
            for label, count in zip(labels, counts, strict=True)
        )
        + chunks[record]
        for record in range(records)
    )
    return head + body


WriteEdf = Callable[..., Path]


@pytest.fixture
def write_edf(tmp_path: Path) -> WriteEdf:
    """write_edf(signals, name="a.edf", **options of edf_bytes) -> path below tmp_path."""

    def write(signals: Mapping[str, Digital], name: str = "a.edf", **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(edf_bytes(signals, **options))
        return path

    return write


MakeEeg = Callable[..., dict[str, Digital]]


@pytest.fixture
def eeg() -> MakeEeg:
    """eeg(seconds, rate=256, pattern="EEG {}-REF", seed=0) -> labels to 16-bit samples, 0.1 µV a step, σ 20 µV."""

    def make(
        seconds: float,
        rate: int = 256,
        pattern: str = "EEG {}-REF",
        seed: int = 0,
        names: Sequence[str] = tuple(name.upper() for name in ELECTRODES),
    ) -> dict[str, Digital]:
        generator = np.random.default_rng(seed)
        n = round(seconds * rate)
        return {
            pattern.format(name): np.clip(generator.standard_normal(n) * 200, -3e4, 3e4).astype(np.int16)
            for name in names
        }

    return make


@pytest.fixture
def corpus(tmp_path: Path, eeg: MakeEeg) -> Callable[..., Path]:
    """corpus({"train": {"p1_s001_t000": (seconds, [(start, stop), …] or None)}}) -> data folder in TUSZ's layout."""

    def write(splits: Mapping[str, Mapping[str, tuple[float, list[tuple[float, float]] | None]]]) -> Path:
        root = tmp_path / "data"
        seed = 0
        for split, recordings in splits.items():
            for name, (seconds, seizures) in recordings.items():
                seed += 1
                folder = root / "edf" / split / name.split("_")[0] / "s001_2020" / "01_tcp_ar"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}.edf").write_bytes(edf_bytes(eeg(seconds, seed=seed)))
                if seizures is not None:
                    (folder / f"{name}.csv_bi").write_text(csv_bi(seizures, seconds))
        return root

    return write


def csv_bi(seizures: Sequence[tuple[float, float]], seconds: float) -> str:
    rows = [f"TERM,{start:.4f},{stop:.4f},seiz,1.0000" for start, stop in seizures]
    rows = rows or [f"TERM,0.0000,{seconds:.4f},bckg,1.0000"]
    head = ["# version = csv_v1.0.0", "# bname = x", f"# duration = {seconds:.4f} secs", "#"]
    return "\n".join([*head, "channel,start_time,stop_time,label,confidence", *rows]) + "\n"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"real recordings are not there: {SHARED}")
    return SHARED
