"""Replay: a captured step repeated, and what came of it in one word."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch

from brainbrr_debug.capture import CaptureContent, read_capture
from brainbrr_debug.errors import CannotRunHere, UsageError
from brainbrr_debug.questions.reality import TOLERANCE, Reality, is_it_real
from brainbrr_debug.records import SCHEMA, to_json
from brainbrr_debug.report.text import row
from brainbrr_debug.target import named
from brainbrr_debug.trial import load_captured_subject
from brainbrr_debug.trials import Trials, as_row
from brainbrr_debug.workers import working

Word = Literal["healthy", "failed again", "did-not-reproduce"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The outcome of a replay: `changed` says which precision or device was asked for instead of the captured one."""

    capture: str
    content: CaptureContent
    reality: Reality
    outcome: Word
    changed: str

    def to_dict(self) -> dict[str, Any]:
        """As one document."""
        real = self.reality
        plain: dict[str, Any] = to_json(
            {
                "schema": SCHEMA,
                "capture": self.capture,
                "step": self.content.step,
                "outcome": self.outcome,
                "replay": {"reproduced": real.reproduced, "of": real.of},
                "failed": real.failed,
                "bit_exact": real.exact,
                "deterministic": real.deterministic,
                "finding": self.content.finding,
                "differences": real.differences,
                "mismatches": real.mismatches,
                "changed": self.changed,
                "trials": [as_row(result) for result in real.results],
            }
        )
        return plain

    def text(self) -> str:
        """In lines, the word first."""
        real, finding = self.reality, self.content.finding
        lines = [row("replay", self._headline()), row("capture", self.capture, f"step {self.content.step}")]
        lines.append(row("finding", f"{finding.severity.name} {finding.check}", finding.message))
        lines.append(row("compared", self._manner()))
        lines += [row("difference", line) for line in real.differences]
        lines += [row("mismatch", line) for line in real.mismatches]
        lines += [row("repeat", str(number), r.outcome.value, r.reason) for number, r in enumerate(real.results)]
        return "\n".join(lines)

    def _headline(self) -> str:
        real = self.reality
        if self.outcome == "failed again":
            return f"failed again {real.failed}/{real.of}, reproduced {real.reproduced}/{real.of}"
        if self.outcome == "healthy":
            return f"healthy {real.of}/{real.of}{f' with {self.changed}' if self.changed else ''}"
        return f"did not reproduce: it failed when it was captured, and {real.failed} of {real.of} repeats failed"

    def _manner(self) -> str:
        if self.reality.exact:
            return "bit for bit: torch, threads, instruction set, device and precision are the captured ones"
        if "dtype" in self.changed:
            return "by outcome only: another precision computes something else"
        return f"losses to a relative {TOLERANCE:g}, because bits cannot be expected to agree here"


def replay_capture(
    path: Path,
    *,
    times: int = 3,
    device: str | None = None,
    dtype: str | None = None,
    subject: str | None = None,
    code_may_differ: bool = False,
) -> Replayed:
    """Repeat the captured step.

    A captured failure of which no repeat fails "did not reproduce", unless something was changed on purpose: the
    device, the precision, or (`code_may_differ`) the code; then the step is healthy now. Code that may differ may also
    crash or hang, and is repeated in processes of its own. Raises CaptureError for a
    file that is no capture, UsageError for no device, CannotRunHere where the step cannot be run: why, and in what the
    environment differs.
    """
    content = named(read_capture(path), subject)
    if device is not None:
        _require_device(device)
    found = None if code_may_differ else load_captured_subject(content)
    with working(content, subject=found) as runner:
        trials = Trials(content, found, runner=runner)
        real = is_it_real(trials, times=times, device=device, dtype=dtype)
    if real.skipped is not None:
        apart = f"; since the capture: {'; '.join(real.differences)}" if real.differences else ""
        raise CannotRunHere(f"{path}: the captured step does not run here: {real.skipped}{apart}")
    changed = ", ".join(part for part in (dtype and f"dtype {dtype}", device and f"device {device}") if part)
    return Replayed(
        capture=str(path),
        content=content,
        reality=real,
        outcome=_word(real, explained=bool(changed) or code_may_differ),
        changed=changed,
    )


def _require_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device is {name!r}; expected cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CannotRunHere(f"--device is {name!r}, and this machine has {torch.cuda.device_count()} such devices")


def _word(real: Reality, *, explained: bool) -> Word:
    if real.failed == real.of:
        return "failed again"
    if real.failed:
        return "did-not-reproduce"
    return "healthy" if explained or not real.captured_bad else "did-not-reproduce"
