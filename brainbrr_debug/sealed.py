"""A capture as a file: the seal in front of the HDF5 part and the document within. Imports no torch.

The layout is described in `capture`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py

from brainbrr_debug.errors import EXIT_CANNOT_TELL, UsageError

FORMAT = "brainbrr-debug capture"
SCHEMA = 1
SEAL = 512  # bytes of the user block in front of the HDF5 part
SEALED = "brainbrr-debug capture, crc32 "


class CaptureError(UsageError):
    """A capture that cannot be read or written: the file and the reason, in one line."""


class NewerCaptureError(CaptureError):
    """A capture of a schema that this version does not know."""

    exit_code = EXIT_CANNOT_TELL


def seal(path: Path) -> None:
    """Put the CRC-32 of everything behind the user block into the user block."""
    with path.open("r+b") as file:
        line = f"{SEALED}{_crc_behind_seal(file):08x}\n".encode()
        file.seek(0)
        file.write(line)


def _require_seal(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(len(SEALED) + 8)
        if not head.startswith(SEALED.encode()):
            kind = "an HDF5 file of another kind" if h5py.is_hdf5(path) else "not an HDF5 file"
            raise CaptureError(f"{path}: {kind}; expected a capture that a watched run wrote")
        if head[len(SEALED) :] != f"{_crc_behind_seal(file):08x}".encode():
            raise CaptureError(f"{path}: changed since it was written, truncated or damaged: its checksum does not fit")


def _crc_behind_seal(file: IO[bytes]) -> int:
    crc = 0
    file.seek(SEAL)
    while block := file.read(1 << 22):
        crc = zlib.crc32(block, crc)
    return crc


def digest(text: bytes) -> str:
    """Of the document."""
    return hashlib.blake2b(text, digest_size=16).hexdigest()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The HDF5 file of the capture at `path`, its seal checked, and its document; datasets are the caller's to check.

    Raises CaptureError in one line for a file that is missing, truncated, foreign or changed, also where the caller
    finds that out by an error of his own, and NewerCaptureError for one that a later version wrote.
    """
    if not path.is_file():
        raise CaptureError(f"{path}: no such file; expected a capture such as runs/0001-run/captures/000006.h5")
    _require_seal(path)
    try:
        with h5py.File(path, "r") as file:
            yield file, _document(path, file)
    except (OSError, RuntimeError) as error:  # what h5py raises for structures it cannot follow
        raise CaptureError(f"{path}: truncated or damaged: {' '.join(str(error).split())}") from error
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise CaptureError(
            f"{path}: damaged: its document does not have the form of schema {SCHEMA}: {error!r}"
        ) from error


def _document(path: Path, file: Any) -> dict[str, Any]:
    if file.attrs.get("format") != FORMAT:
        raise CaptureError(f"{path}: an HDF5 file of another kind; expected a capture that a watched run wrote")
    schema = int(file.attrs["schema"])
    if schema > SCHEMA:
        raise NewerCaptureError(
            f"{path}: has schema {schema}, this version of brainbrr_debug reads up to {SCHEMA}; update it"
        )
    text = file["document"][()].tobytes()
    if digest(text) != file.attrs["digest"]:
        raise CaptureError(f"{path}: changed since it was written: the document does not match its digest")
    document: dict[str, Any] = json.loads(text)
    return document
