"""Judges the readings of one step: go on with the update, drop it, or stop the run with a capture."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from brainbrr_debug.checks import run as checks
from brainbrr_debug.checks.conditioning import near_singular
from brainbrr_debug.checks.indicators import Indicators
from brainbrr_debug.incident import Scene, confirmed, exception_finding, healthy, tie_finding
from brainbrr_debug.logbook import Logbook
from brainbrr_debug.probes.decompositions import degenerate
from brainbrr_debug.quantities import GRADIENT_NORM
from brainbrr_debug.ranks import Agreed, Ranks
from brainbrr_debug.records import Finding, Reading
from brainbrr_debug.scaling import ScalerPatience
from brainbrr_debug.snapshot import Batches
from brainbrr_debug.trail import Trail

Policy = Literal["stop", "skip", "record", "sanitize"]
"""What to do about a step that is not finite: stop the run; skip the update; record and go on ("sanitize" is "record"
for a program that replaces non-finite values itself)."""


class NonFiniteStep(FloatingPointError):
    """A step that must not update the parameters: the finding and, where it was written, the capture."""

    def __init__(self, finding: Finding, capture_path: Path | None) -> None:
        following = f"; next: {finding.commands[0]}" if finding.commands else ""
        super().__init__(finding.message + following)
        self.finding = finding
        self.capture_path = capture_path


class Judge:
    """Holds what a decision depends on beyond the step itself: the policy, what went before, and the books.

    `gradient_norm` is the total norm of the last step's gradients, 0-d, replaced by the exact one where it overflowed.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        max_skipped: int,
        eigengap: float,
        healthy_batches: int,
        scaling: ScalerPatience,
        log: Logbook,
        trail: Trail,
        ranks: Ranks,
    ) -> None:
        if policy not in ("stop", "skip", "record", "sanitize"):
            raise ValueError(f"policy is {policy!r}; expected stop, skip, record or sanitize")
        self.policy, self.max_skipped, self.eigengap = policy, max_skipped, eigengap
        self.scaling, self.log, self.trail, self.ranks = scaling, log, trail, ranks
        self.counts: collections.Counter[str] = collections.Counter()
        self.healthy: collections.deque[Batches] = collections.deque(maxlen=healthy_batches)
        self.gradient_norm: Tensor = torch.zeros(())
        self._indicators = Indicators(eigengap)

    def decide(self, scene: Scene, readings: list[Reading], *, alarmed: bool) -> bool:
        """True to go on with the update. Raises NonFiniteStep where the policy says so.

        `alarmed` says whether any rank has something to object to: then all of them must decide together.
        """
        self.counts["steps"] += 1
        if self._suspicious(readings):
            readings = self._confirmed(readings, scene)
        found = checks.nonfinite(readings)
        discarded = bool(found) and found[0].evidence["nonfinite"] == ["gradient"] and self.scaling.tolerates()
        if discarded:
            readings, found = checks.discarded(readings), []
        self.log.readings(scene.start.step, readings)
        for finding in near_singular(readings):
            self.log.finding(finding, limit=1)
        degenerate_here = self._note_ties(readings, scene)
        agreed = self.ranks.agree(found[0] if found else None, scene.start.step) if alarmed else None
        if agreed is not None:
            return self._incident(agreed, scene)
        for finding in (*checks.infinite_output(readings), *self._indicators.see(readings)):
            self.log.finding(finding, limit=1)
        if not discarded:
            self.scaling.reset()
            if not degenerate_here:
                self.healthy.appendleft(scene.start.batches)
        return True

    def check_state(self, scene: Scene) -> None:
        """Between steps: look through the whole state. Raises NonFiniteStep under policies "stop" and "skip"."""
        if healthy(scene):
            return
        self.counts["incidents"] += 1
        self.counts["damaged_checkpoints"] += 1
        last = self.policy in ("stop", "skip")  # no update can be skipped that would mend it
        first = self.counts["damaged_checkpoints"] == 1
        finding, path = self.log.capture_before(scene, self.trail, write=last or first)
        self.counts["captures"] += path is not None
        self.log.finding(finding, limit=None if last else 1)
        if last:
            raise NonFiniteStep(finding, path)

    def died(self, error: Exception, scene: Scene, readings: list[Reading]) -> None:
        """An exception ended an open step: where something non-finite caused it, it is an incident like any other."""
        readings = self._confirmed(readings, scene)
        finding = exception_finding(error, checks.nonfinite(readings), scene)
        if finding is None:
            return
        self.log.readings(scene.start.step, readings)
        self.counts["incidents"] += 1
        self.gradient_norm = torch.tensor(math.nan)
        finding, path = self._captured(finding, scene)
        self.log.finding(finding, limit=None)
        raise NonFiniteStep(finding, path) from error

    def let_go(self) -> None:
        """Hold on to no batch and no snapshot any longer."""
        self.healthy.clear()
        self.trail.clear()

    def _suspicious(self, readings: Sequence[Reading]) -> bool:
        return any(not math.isfinite(r.value) for r in readings) or bool(checks.eigengap(readings, self.eigengap))

    def _confirmed(self, readings: Sequence[Reading], scene: Scene) -> list[Reading]:
        exact = confirmed(readings, scene)
        for before, after in zip(readings, exact, strict=True):
            if before.quantity == GRADIENT_NORM and not math.isfinite(before.value) and math.isfinite(after.value):
                self.gradient_norm = torch.tensor(after.value, dtype=torch.float64, device=self.gradient_norm.device)
                self.log.finding(checks.overflow(after), limit=1)
        return exact

    def _note_ties(self, readings: Sequence[Reading], scene: Scene) -> bool:
        found = checks.eigengap(readings, self.eigengap)
        if found:
            ties = degenerate(scene.calls, self.eigengap, scene.samples)
            for finding in found:
                self.log.finding(tie_finding(finding, scene, ties))
        return bool(found)

    def _incident(self, agreed: Agreed, scene: Scene) -> bool:
        finding = agreed.finding
        self.counts["incidents"] += 1
        skipping = self.policy == "skip"
        last = self.policy == "stop" or (skipping and self.counts["skipped"] >= self.max_skipped)
        path: Path | None = None
        if agreed.captures and (last or not self.log.seen(finding)):
            finding, path = self._captured(finding, scene)
        self.log.finding(finding, limit=None if last else 1)
        if last:
            self.ranks.wait()
            raise NonFiniteStep(finding, path)
        self.counts["skipped"] += skipping
        return not skipping

    def _captured(self, finding: Finding, scene: Scene) -> tuple[Finding, Path | None]:
        finding, path = self.log.capture(scene, finding, float(self.gradient_norm), list(self.healthy), self.trail)
        self.counts["captures"] += path is not None
        return finding, path
