"""What a capture holds, without running anything of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from brainbrr_debug.capture import CaptureContent, is_stripped, read_capture
from brainbrr_debug.differences import EXACT, differences
from brainbrr_debug.environment import describe_environment
from brainbrr_debug.records import SCHEMA, to_json
from brainbrr_debug.report.text import columns, row
from brainbrr_debug.tensors import leaves

PARTS = ("micro_batches", "healthy_micro_batches", "lead_in", "model_state", "optimizer_state", "extra_state")
SHOWN = 8
"""So many samples are named in the text; in the document all are."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a capture: its tensors, and their bytes where they are there."""

    name: str
    tensors: int
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One tensor of a batch, `kind` captured or healthy, and its `place` in the batch: [0] inputs, [1] target."""

    kind: str
    micro_batch: int
    place: str
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A capture that was read, so every checksum in it holds."""

    capture: str
    bytes: int
    content: CaptureContent

    @property
    def parts(self) -> tuple[Part, ...]:
        """What there is, by size on its way into the file."""
        return tuple(_part(name, list(leaves(getattr(self.content, name)))) for name in PARTS)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every tensor of the captured and the healthy micro-batches."""
        return tuple(_shapes(self.content))

    def to_dict(self) -> dict[str, Any]:
        """As one document."""
        content = self.content
        plain: dict[str, Any] = to_json(
            {
                "schema": SCHEMA,
                "capture": self.capture,
                "verified": True,
                "stripped": is_stripped(content),
                "bytes": self.bytes,
                "step": content.step,
                "subject": content.subject,
                "seed": content.seed,
                "finding": content.finding,
                "parts": self.parts,
                "batch": self.shapes,
                "identities": content.identities,
                "healthy_identities": content.healthy_identities,
                "lead_in": [step.step for step in content.lead_in],
                "readings": len(content.readings),
                "config": content.config,
                "environment": content.environment,
                "differences": self._differences(),
            }
        )
        return plain

    def text(self) -> str:
        """In lines."""
        content, finding = self.content, self.content.finding
        state = "copy without signal" if is_stripped(content) else "whole"
        lines = [row("capture", self.capture, f"{_size(self.bytes)}, every checksum holds, {state}")]
        lines.append(row("step", str(content.step), f"seed {content.seed}", content.subject or "no subject is named"))
        lines.append(row("finding", f"{finding.severity.name} {finding.check}", finding.message))
        lines += [row("holds", f"{p.name:<21}  {p.tensors:>5} tensors  {_size(p.bytes):>9}") for p in self.parts]
        cells = [[s.kind, str(s.micro_batch), s.place, s.dtype, str(list(s.shape))] for s in self.shapes]
        lines += [row("batch", line) for line in columns(cells)]
        samples = [sample for micro_batch in content.identities for sample in micro_batch]
        for index, sample in enumerate(samples[:SHOWN]):
            lines.append(row("sample", str(index), ", ".join(f"{key} {value}" for key, value in sample.items())))
        if len(samples) > SHOWN:
            lines.append(row("sample", f"… {len(samples) - SHOWN} more"))
        told = [f"{key} {content.environment[key]}" for key in EXACT[:-1] if key in content.environment]
        lines.append(row("made with", ", ".join(told)))
        lines += [row("difference", line) for line in self._differences()]
        return "\n".join(lines)

    def _differences(self) -> list[str]:
        return [str(each) for each in differences(self.content.environment, describe_environment())]


def contents_of(path: Path) -> Contents:
    """Read and check the capture at `path`. Raises CaptureError where it is none, or damaged."""
    content = read_capture(path)
    return Contents(capture=str(path), bytes=path.stat().st_size, content=content)


def _part(name: str, tensors: list[Tensor]) -> Part:
    return Part(name=name, tensors=len(tensors), bytes=sum(x.numel() * x.itemsize for x in tensors if not x.is_meta))


def _shapes(content: CaptureContent) -> Iterator[Shape]:
    for kind, batches in (("captured", content.micro_batches), ("healthy", content.healthy_micro_batches or ())):
        for number, batch in enumerate(batches):
            for path, x in tree_flatten_with_path(batch)[0]:
                if isinstance(x, Tensor):
                    dtype = str(x.dtype).removeprefix("torch.")
                    yield Shape(kind=kind, micro_batch=number, place=keystr(path), dtype=dtype, shape=tuple(x.shape))


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
