"""Every mechanism has a page that says what it means, how to confirm it and how to repair it; no page is orphaned."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainbrr_debug.mechanisms import MECHANISMS
from tests.faults import FAULTS

RUNBOOKS = Path(__file__).parents[2] / "triage" / "runbooks"


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_mechanism_has_a_runbook(mechanism: str) -> None:
    text = (RUNBOOKS / f"{mechanism}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {mechanism}\n") and MECHANISMS[mechanism][1:] in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## What it means",
        "## How to confirm",
        "## How to repair",
    ]
    assert 15 <= len(text.splitlines()) <= 40


def test_mechanisms_of_the_corpus_are_known() -> None:
    assert {fault.mechanism for fault in FAULTS} <= set(MECHANISMS)
