"""What a watch writes down: readings of every step, findings with a limit for each kind, captures one for each kind."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainbrr_debug.capture import CaptureContent, write_capture
from brainbrr_debug.fingerprint import fingerprint
from brainbrr_debug.incident import Scene, before_checkpoint, damaged, enriched
from brainbrr_debug.lead import with_options
from brainbrr_debug.records import Finding, Reading
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.sealed import CaptureError
from brainbrr_debug.snapshot import Batches, StepStart
from brainbrr_debug.statistics import finiteness
from brainbrr_debug.tensors import TreeError
from brainbrr_debug.trail import Lead, Trail
from brainbrr_debug.training_state import collect_state

FINDINGS_A_KIND = 50
STEPS_KEPT = 100
"""Readings of so many steps go into a capture."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a capture says of the run it comes from; `config` holds plain values."""

    subject: str
    seed: int
    config: Mapping[str, Any]
    environment: Mapping[str, Any]


class Logbook:
    """Writes into `run_dir`; without one it only counts."""

    def __init__(self, run_dir: RunDir | None, provenance: Provenance) -> None:
        self.run_dir, self.provenance = run_dir, provenance
        self.recent: collections.deque[tuple[Reading, ...]] = collections.deque(maxlen=STEPS_KEPT)
        self.counts: collections.Counter[str] = collections.Counter()
        self._written: collections.Counter[str] = collections.Counter()
        self._last: dict[str, Finding] = {}

    def begin(self) -> None:
        """Write environment and configuration where nobody has."""
        if self.run_dir is None:
            return
        if not (self.run_dir.path / "environment.json").exists():
            self.run_dir.write_environment(self.provenance.environment)
        if self.provenance.config and not (self.run_dir.path / "config.yaml").exists():
            self.run_dir.write_config(self.provenance.config)

    def readings(self, step: int, readings: Sequence[Reading]) -> None:
        """The readings of one step."""
        self.recent.append(tuple(readings))
        if self.run_dir is not None:
            self.run_dir.append_readings(step, readings)

    def finding(self, finding: Finding, *, limit: int | None = FINDINGS_A_KIND) -> None:
        """Write `finding`, or only count it where `limit` of its kind (check and place) are written already."""
        kind = _kind(finding)
        self.counts[kind] += 1
        self._last[kind] = finding
        if limit is None or self._written[kind] < limit:
            self._written[kind] += 1
            if self.run_dir is not None:
                self.run_dir.append_finding(finding)

    def seen(self, finding: Finding) -> bool:
        """True when a finding of the same kind was made before."""
        return bool(self.counts[_kind(finding)])

    def close(self) -> None:
        """Say what was only counted, and bring everything to the disk."""
        if self.run_dir is None:
            return
        for kind, last in self._last.items():
            more = self.counts[kind] - self._written[kind]
            if more:
                message = f"{more} more of the same, the last in step {last.step}: {last.message}"
                evidence = {"only_counted": more, "in_all": self.counts[kind]}
                self.run_dir.append_finding(dataclasses.replace(last, message=message, evidence=evidence, commands=()))
        self.run_dir.sync()

    def capture(
        self, scene: Scene, finding: Finding, norm: float, healthy: Sequence[Batches], trail: Trail
    ) -> tuple[Finding, Path | None]:
        """The finding in full, and the path of its capture; None when there is nowhere to write or that failed.

        Where the state was damaged when the step began, the capture begins at the last snapshot of `trail`.
        """
        path = None if self.run_dir is None else self.run_dir.capture_path(scene.start.step)
        older = bool(damaged(scene))
        finding = enriched(
            finding,
            scene,
            norm=norm,
            way_back=trail.way_back(self.run_dir.checkpoints if self.run_dir else None) if older else {},
            command=f"brainbrr-debug bisect {path}" if path else "",
        )
        if path is None:
            return finding, None
        return _written(path, self._content(scene, finding, norm, healthy, trail.lead() if older else None))

    def capture_before(self, scene: Scene, trail: Trail, *, write: bool) -> tuple[Finding, Path | None]:
        """The finding of a damaged state between steps, and with `write` the capture of the step that ended with it.

        Without a snapshot to run forward from there is no capture, because the step's own start is gone.
        """
        finding = before_checkpoint(scene, trail.way_back(self.run_dir.checkpoints if self.run_dir else None))
        lead = trail.lead() if write else None
        if self.run_dir is None or lead is None:
            return finding, None
        last = lead.steps[-1]
        batches = Batches(micro_batches=list(last.micro_batches), identities=last.identities)
        scene = dataclasses.replace(
            scene, start=StepStart(step=last.step, rng=last.rng, batches=batches, groups=last.groups)
        )
        path = self.run_dir.capture_path(last.step)
        finding = dataclasses.replace(finding, commands=(f"brainbrr-debug bisect {path}",))
        content = self._content(scene, finding, math.nan, (), Lead(state=lead.state, steps=lead.steps[:-1]))
        return _written(path, dataclasses.replace(content, expected={}))

    def _content(
        self, scene: Scene, finding: Finding, norm: float, healthy: Sequence[Batches], lead: Lead | None
    ) -> CaptureContent:
        state = collect_state(scene.model, scene.optimizer, scene.extra_state, scene.buffers.values())
        # those of the captured step, whatever the snapshot's are
        groups = with_options(state.optimizer["param_groups"], scene.start.groups)
        state = state if lead is None else lead.state
        usable = [batches for batches in healthy if not batches.modified]
        provenance = self.provenance
        return CaptureContent(
            step=scene.start.step,
            subject=provenance.subject,
            seed=provenance.seed,
            config=dict(provenance.config),
            environment=dict(provenance.environment),
            finding=finding,
            micro_batches=tuple(scene.start.batches.micro_batches),
            healthy_micro_batches=tuple(b for batches in usable for b in batches.micro_batches) or None,
            identities=scene.start.batches.named(),
            healthy_identities=tuple(names for batches in usable for names in batches.named()),
            model_state=state.model,
            optimizer_state={**state.optimizer, "param_groups": groups},
            extra_state=state.extra,
            rng=scene.start.rng,
            readings=tuple(reading for step in self.recent for reading in step),
            expected=_expected(scene, norm),
            lead_in=() if lead is None else lead.steps,
        )


def _written(path: Path, content: CaptureContent) -> tuple[Finding, Path | None]:
    """The finding and where its capture is; where that cannot be written, the finding says why."""
    finding = content.finding
    try:
        return finding, write_capture(path, content)
    except (CaptureError, TreeError) as error:
        evidence = {**finding.evidence, "capture_failed": str(error)}
        message = f"{finding.message}; no capture: {error}"
        return dataclasses.replace(finding, message=message, evidence=evidence, commands=()), None


def _expected(scene: Scene, norm: float) -> dict[str, Any]:
    """The step's fingerprint; of gradients that are no longer in memory only what was bad is known."""
    if scene.gradient_norms is None:
        return fingerprint(scene.losses, norm, scene.model.named_parameters())
    gradients: dict[str, Any] = {}
    for name, _ in scene.model.named_parameters():
        known = scene.gradient_norms[name]
        bad = None if known is None else finiteness(known)
        gradients[name] = None if bad is None else {"digest": None, "nan": bad.nan, "inf": bad.inf}
    return {**fingerprint(scene.losses, norm, ()), "gradient_digest": None, "gradients": gradients}


def _kind(finding: Finding) -> str:
    return f"{finding.check}:{finding.where}"
