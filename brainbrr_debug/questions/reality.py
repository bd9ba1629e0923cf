"""Is it real? The captured step, repeated as it was."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.differences import EXACT, differences
from brainbrr_debug.environment import describe_environment
from brainbrr_debug.fingerprint import mismatches
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import Oracles, choose
from brainbrr_debug.records import Outcome, Severity
from brainbrr_debug.trial import Trial
from brainbrr_debug.trials import Result, Trials

TOLERANCE = 1e-3
"""Relative difference of a loss that another processor, thread count or torch version may cause in float32."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reality:
    """What the repeats showed.

    `failed` of `of` repeats were bad, `reproduced` of them the way the capture says: bit for bit when `exact` (threads,
    instruction set, torch version, device and precision agree), otherwise with the same losses within `TOLERANCE`.
    `differences` are those of the environments, `mismatches` what the repeats computed otherwise than captured.
    `deterministic` says that all repeats had the same bits. `skipped` is why nothing could be repeated.
    """

    failed: int
    reproduced: int
    of: int
    exact: bool
    deterministic: bool
    captured_bad: bool
    differences: tuple[str, ...]
    mismatches: tuple[str, ...]
    results: tuple[Result, ...]
    oracles: Oracles
    skipped: str | None = None

    @property
    def healthy(self) -> bool:
        """No repeat failed."""
        return self.skipped is None and self.failed == 0

    @property
    def baseline(self) -> Observation | None:
        """What the first repeat showed."""
        return self.results[0].observation if self.results else None


def is_it_real(trials: Trials, *, times: int = 3, dtype: str | None = None, device: str | None = None) -> Reality:
    """Repeat the step `times` times and compare with what was captured."""
    content = trials.content
    here = describe_environment(device or _device(content.environment))
    apart = differences(content.environment, here)
    exact = dtype is None and all(key in content.environment for key in EXACT) and not any(d.exact for d in apart)
    repeats = [Trial(dtype=dtype, device=device, repeat=repeat) for repeat in range(times)]
    first = trials.observation(repeats[0])
    oracles = choose(content.finding, first or Observation())
    # What cannot be done once cannot be done again, and a hang takes its time.
    results = trials.ask_all("real", repeats if first is not None else repeats[:1], oracles.indicator)
    skipped = next((r.reason for r in results if r.outcome is Outcome.SKIP), None)
    seen = [r.observation for r in results if r.observation is not None]
    # Another precision is meant to compute something else: there is nothing to hold it against.
    wrong = [[] if dtype else _compare(content.expected, observation, exact=exact) for observation in seen]
    bad = [bool(r.bad) for r in results if r.observation is not None]
    return Reality(
        failed=sum(bad),
        reproduced=sum(failed and not lines for failed, lines in zip(bad, wrong, strict=True)),
        of=times,
        exact=exact,
        deterministic=len({str(observation.fingerprint) for observation in seen}) <= 1,
        captured_bad=_captured_bad(content),
        differences=tuple(str(difference) for difference in apart),
        mismatches=tuple(dict.fromkeys(line for lines in wrong for line in lines)),
        results=tuple(results),
        oracles=oracles,
        skipped=skipped,
    )


def _compare(expected: Mapping[str, Any], seen: Observation, *, exact: bool) -> list[str]:
    """What the repeat computed otherwise; gradients are compared only where the bits are, see `TOLERANCE`."""
    if seen.fingerprint is None:
        reached = expected.get("gradients")
        return ["the captured step came to its gradients, this one did not"] if reached else []
    if not expected.get("gradients"):
        return []  # the captured step ended before its gradients: nothing to compare with
    if exact:
        return mismatches(expected, seen.fingerprint)
    # Which gradients are NaN and which merely huge is a matter of rounding; the loss can be held to a tolerance.
    return mismatches(_loss_only(expected), _loss_only(seen.fingerprint), tolerance=TOLERANCE)


def _loss_only(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {"losses": fingerprint["losses"], "gradient_norm": 0.0, "gradients": {}}


def _captured_bad(content: CaptureContent) -> bool:
    gradients = (content.expected.get("gradients") or {}).values()
    numbers = [*(content.expected.get("losses") or ()), content.expected.get("gradient_norm") or 0.0]
    return (
        content.finding.severity <= Severity.P1
        or any(not math.isfinite(float(value)) for value in numbers)
        or any(found and (found["nan"] or found["inf"]) for found in gradients)
    )


def _device(environment: Mapping[str, Any]) -> str:
    cuda = str(environment.get("device", "cpu")).startswith("cuda") and torch.cuda.is_available()
    return "cuda" if cuda else "cpu"
