"""One recording in the cache: a continuous int16 array on disk, and what is known about it.

`NAME.npy` holds (19, N) int16 over ±clip_sigma σ, continuous, so that a window is a slice; `NAME.json` beside it says
what it was made from. The array is written first and the JSON last: a recording without its JSON does not exist.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES, SAMPLING_RATE
from brainbrr.data.errors import CacheError
from brainbrr.data.labels import Event
from brainbrr.data.preprocess import NonFinite
from brainbrr.data.timeline import Gap
from brainbrr.files import atomic_write

STEPS = 32767  # of the int16 on either side of zero
_TUPLES = ("interpolated", "clipped", "amplitudes_uv", "notes", "source_state")
_OPEN = 256  # arrays mapped at a time: each holds a file descriptor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CachedRecording:
    """A preprocessed recording on disk. `events` is None when it is unlabelled.

    Per electrode: `clipped`, the share of samples; `amplitudes_uv`, how large it was before it was scaled.
    """

    name: str
    patient: str
    n_samples: int
    events: tuple[Event, ...] | None
    path: Path
    interpolated: tuple[str, ...]
    clipped: tuple[float, ...]
    amplitudes_uv: tuple[float, ...]
    nonfinite: tuple[NonFinite, ...]
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]
    clip_sigma: float
    source: str
    source_rate: float
    source_hash: str
    source_state: tuple[int, ...]
    preprocessing_hash: str
    crc32: int

    @property
    def duration_s(self) -> float:
        """Length, s."""
        return self.n_samples / SAMPLING_RATE

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Samples [start, stop) as (19, stop - start) float32 σ. Raises CacheError outside the recording."""
        if not 0 <= start <= stop <= self.n_samples:
            raise CacheError(f"{self.name}: samples {start} to {stop}; expected 0 to {self.n_samples}")
        out = np.empty((len(ELECTRODES), stop - start), dtype=np.float32)
        self.read_into(out, start)
        return out

    def read_into(self, out: npt.NDArray[np.float32], start: int) -> None:
        """Fill `out` (19, n) float32 with σ from sample `start` on; only the slice is read from disk."""
        stop = start + out.shape[1]
        out[:] = self.steps()[:, start:stop]  # converting and scaling in two passes is the faster way
        out *= np.float32(self.clip_sigma / STEPS)

    def steps(self) -> npt.NDArray[np.int16]:
        """The whole recording as stored, (19, N) int16, memory-mapped. Raises CacheError when it is damaged."""
        return _mapped(self.path, self.n_samples, self.crc32)

    def check_size(self) -> None:
        """Raises CacheError when the file is missing or has another length than was written."""
        expected = array_bytes(self.n_samples)
        try:
            found = self.path.stat().st_size
        except FileNotFoundError:
            raise CacheError(f"{self.path} is missing; {_AGAIN}") from None
        if found != expected:
            raise CacheError(f"{self.path} has {found} bytes; expected {expected}: {_AGAIN}")

    def check_content(self) -> None:
        """Raises CacheError when the stored samples are not those that were written; reads all of them."""
        found = zlib.crc32(np.ascontiguousarray(self.steps()).data)
        if found != self.crc32:
            raise CacheError(f"{self.path}: checksum {found:08x}; expected {self.crc32:08x}: {_AGAIN}")


_AGAIN = "remove it and run `brainbrr build-cache` again, which makes what is missing"


def store(folder: Path, signal: npt.NDArray[np.float32], recording: CachedRecording) -> CachedRecording:
    """Write `signal` (19, N) float32 σ and what is known about it; returns the record with its checksum."""
    describing = folder / f"{recording.name}.json"
    # An older description must not outlive the array it describes.
    describing.unlink(missing_ok=True)
    steps = np.empty(signal.shape, dtype=np.int16)
    for row, source in zip(steps, signal, strict=True):  # row by row: temporaries stay in the processor's cache
        row[:] = np.rint(source * np.float32(STEPS / recording.clip_sigma))
    with atomic_write(recording.path) as file:
        np.lib.format.write_array(file, steps, version=(1, 0), allow_pickle=False)
    recording = dataclasses.replace(recording, crc32=zlib.crc32(steps.data))
    _describe(folder, recording)
    return recording


def restate(folder: Path, recording: CachedRecording, source_state: tuple[int, ...]) -> CachedRecording:
    """Note that the source has another time of change but the same content; returns the record."""
    if recording.source_state == source_state:
        return recording
    recording = dataclasses.replace(recording, source_state=source_state)
    _describe(folder, recording)
    return recording


def _describe(folder: Path, recording: CachedRecording) -> None:
    with atomic_write(folder / f"{recording.name}.json") as file:
        file.write(json.dumps(to_json(recording), allow_nan=False).encode())


def load(folder: Path, name: str) -> CachedRecording | None:
    """The record of a recording in the cache; None when it is not there whole. Raises CacheError for broken JSON."""
    path = folder / f"{name}.json"
    try:
        recording = from_json(json.loads(path.read_bytes()), folder)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path} is damaged ({error}); {_AGAIN}") from None
    return recording


def to_json(recording: CachedRecording) -> dict[str, Any]:
    """As JSON values, without the path."""
    values = dataclasses.asdict(recording)
    del values["path"]
    return values


def from_json(values: dict[str, Any], folder: Path) -> CachedRecording:
    """The inverse of `to_json`, for a recording in `folder`."""
    events = values["events"]
    return CachedRecording(
        **values
        | {
            "path": folder / f"{values['name']}.npy",
            "events": None if events is None else tuple(Event(**event) for event in events),
            "nonfinite": tuple(NonFinite(**entry) for entry in values["nonfinite"]),
            "gaps": tuple(Gap(**gap) for gap in values["gaps"]),
            **{
                key: tuple(values[key]) for key in ("interpolated", "clipped", "amplitudes_uv", "notes", "source_state")
            },
        }
    )


@functools.cache
def _header_bytes(n_samples: int) -> int:
    import io

    header = io.BytesIO()
    shape = (len(ELECTRODES), n_samples)
    np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": shape})
    return header.tell()


def array_bytes(n_samples: int) -> int:
    """Size on disk of a recording of `n_samples` samples."""
    return _header_bytes(n_samples) + 2 * len(ELECTRODES) * n_samples


@functools.lru_cache(maxsize=_OPEN)
def _mapped(path: Path, n_samples: int, crc32: int) -> npt.NDArray[np.int16]:
    """`crc32` stands for the content: a recording that was built anew is mapped anew."""
    try:
        steps: npt.NDArray[np.int16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise CacheError(f"{path} is missing; {_AGAIN}") from None
    except (ValueError, EOFError) as error:
        raise CacheError(f"{path} is damaged ({error}); {_AGAIN}") from None
    expected = (len(ELECTRODES), n_samples)
    if steps.shape != expected or steps.dtype != np.int16:
        raise CacheError(f"{path} holds {steps.dtype} {steps.shape}; expected int16 {expected}: {_AGAIN}")
    return steps
