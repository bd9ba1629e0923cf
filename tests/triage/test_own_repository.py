"""Our own configurations pass their triage with an empty baseline, and incidents are found for what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainbrr_debug.checks.registry import Given
from brainbrr_debug.triage.baseline import Baseline
from brainbrr_debug.triage.checklist import default_checklist
from brainbrr_debug.triage.run import Triage, chosen, triage

ROOT = Path(__file__).parents[2]
CONFIGS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs").rglob("*.yaml"))]
INCIDENTS = ["configs/local/batch7.yaml", "configs/local/hubs.yaml"]


def judged(config: str, *select: str) -> Triage:
    checklist = default_checklist()
    return triage(Given(config=ROOT / config), checklist, chosen(checklist, select, ()), Baseline(entries={}))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_of_ours_has_nothing_to_find(config: str) -> None:
    found = judged(config, "config.*", "env.*", "triage.*")
    assert (found.findings, found.ignored, found.crashed) == ((), (), ())


@pytest.mark.slow
@pytest.mark.parametrize("config", INCIDENTS)
def test_an_incident_is_found_for_what_it_names(config: str) -> None:
    found = judged(config, "model.differentiates_eig", "model.hostile_inputs")
    assert (found.findings, found.crashed) == ((), ())
    assert {finding.check for finding in found.expected} == {"model.differentiates_eig", "model.hostile_inputs"}
