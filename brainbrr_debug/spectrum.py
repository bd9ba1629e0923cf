"""Spectrum: a captured step repeated once, and every matrix in it measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from brainbrr_debug.capture import CaptureContent, read_capture
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.interception import Interception
from brainbrr_debug.matrices import Call, Matrix
from brainbrr_debug.quantities import OPTIMIZER_SITE
from brainbrr_debug.records import SCHEMA, to_json
from brainbrr_debug.rng import RngState
from brainbrr_debug.samples import batch_size
from brainbrr_debug.spectral import THRESHOLD
from brainbrr_debug.subject import Batch, Run, Subject, step_of
from brainbrr_debug.target import named
from brainbrr_debug.training_state import StateError
from brainbrr_debug.trial import (
    Trial,
    captured_threads,
    caused_by_nonfinite,
    load_captured_subject,
    one_line,
    prepare,
)

FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
    OSError,
    StateError,
)
"""What a step that does not run here may raise."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """What a captured step did with matrices.

    `error` is the exception over a number that ended the step, if one did. `unseen` counts calls that could not be
    measured, by reason; `inner` those in the backward formulas of other operations, which are not listed. `identities`
    says of every sample of every micro-batch where it comes from, where the program did.
    """

    capture: str
    step: int
    calls: tuple[Call, ...]
    error: str | None = None
    unseen: Mapping[str, int] = dataclasses.field(default_factory=dict)
    inner: int = 0
    identities: tuple[tuple[Mapping[str, Any], ...], ...] = ()

    @property
    def degenerate(self) -> bool:
        """Whether the step depends on something that is beyond its limit."""
        return any(matrix.degenerate for call in self.calls for matrix in call.matrices)

    def identity(self, call: Call, matrix: Matrix) -> Mapping[str, Any]:
        """Where the sample of a matrix comes from; empty where that is not known."""
        batch = self.identities[call.micro_batch] if call.micro_batch < len(self.identities) else ()
        return batch[matrix.sample] if matrix.sample is not None and matrix.sample < len(batch) else {}

    def to_dict(self) -> dict[str, Any]:
        """As one document: every matrix of every call, and the degenerate ones once more with their samples."""
        degenerate = [
            {
                "decomposition": place,
                "matrix": matrix.index,
                "micro_batch": call.micro_batch,
                "sample": matrix.sample,
                "identity": self.identity(call, matrix),
                "why": matrix.degenerate,
            }
            for place, call in enumerate(self.calls)
            for matrix in call.matrices
            if matrix.degenerate
        ]
        plain: dict[str, Any] = to_json(
            {
                "schema": SCHEMA,
                "capture": self.capture,
                "step": self.step,
                "threshold": THRESHOLD,
                "error": self.error,
                "matrices": sum(len(call.matrices) for call in self.calls),
                "degenerate": degenerate,
                "unseen": self.unseen,
                "in_backward_formulas": self.inner,
                "decompositions": self.calls,
            }
        )
        return plain


def spectrum_of(path: Path, *, subject: str | None = None) -> Spectrum:
    """Repeat the step once and measure its matrices.

    Raises CaptureError for a file that is no capture, CannotRunHere where the step cannot be run.
    """
    content = named(read_capture(path), subject)
    found = load_captured_subject(content)
    generators = RngState.take()
    try:
        with captured_threads(content):
            return measured(str(path), content, found)
    except FAILURES as error:
        raise CannotRunHere(f"{path}: the captured step does not run here: {one_line(error)}") from error
    finally:
        generators.restore()


def measured(name: str, content: CaptureContent, subject: Subject) -> Spectrum:
    """The captured step, done once here and now; generators and threads are the caller's to keep."""
    run, batches, _ = prepare(content, subject, Trial())
    samples = [batch_size(batch) for batch in batches]
    interception = Interception(run.model, samples, frozenset({_play.__code__}))
    error = None
    with interception.attached():
        try:
            _play(run, batches, _Gate(interception))
        except (RuntimeError, ValueError, ArithmeticError) as raised:
            if not caused_by_nonfinite(raised):
                raise
            error = one_line(raised)
    return Spectrum(
        capture=name,
        step=content.step,
        calls=interception.calls(failed=error is not None),
        error=error,
        unseen=dict(interception.unseen),
        inner=interception.inner,
        identities=content.identities,
    )


def _play(run: Run, batches: Sequence[Batch], gate: Any) -> None:
    """Marks on the stack where the step begins."""
    step_of(run)(batches, gate)


class _Gate:
    """Tells an interception how far the step has come, and lets everything pass."""

    def __init__(self, interception: Interception) -> None:
        self._interception = interception

    def forward(self, output: Any, loss: torch.Tensor) -> None:
        """A micro-batch's forward pass is over."""
        self._interception.micro_batch += 1

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """What follows is the update."""
        self._interception.outside = OPTIMIZER_SITE
        return True
