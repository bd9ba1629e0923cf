"""The repairs of a verdict, proved in turn until one holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.errors import DebugError
from brainbrr_debug.prove import OutOfTime, prove
from brainbrr_debug.recipe import BREAKDOWNS, of_capture
from brainbrr_debug.records import Verdict
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.sentence import changes_of, tell
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import captured_threads
from brainbrr_debug.witness import Plan

PROOFS = 3
"""So many trainings at most."""


def candidates(verdict: Verdict) -> list[int]:
    """The places of the repairs that a training could prove."""
    return [
        place for place, repair in enumerate(verdict.repairs) if repair["heals"] and not repair.get("evident", False)
    ]


def prove_repairs(
    verdict: Verdict,
    content: CaptureContent,
    subject: Subject,
    *,
    steps: int,
    runs: Path | None = None,
    deadline: float | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """The verdict with its first repair that a training of `steps` proves, and why those before it are none.

    Each training gets a run directory of its own below `runs` (None: nothing is written). One that cannot be done here
    is no refusal: its repair stays not proved, with the reason, and so do all after it.
    """
    rows = [dict(row) for row in verdict.repairs]
    open_ = candidates(verdict)
    for count, place in enumerate(open_):
        row = rows[place]
        progress(f"repair      {changes_of(row)}: {steps} steps under watch")
        run_dir = None if runs is None else RunDir.create(runs, f"proof-{content.subject.rpartition(':')[2] or 'run'}")
        recipe = of_capture(content, subject, row["changes"])
        try:
            with captured_threads(content):
                plan = Plan(recipe=recipe, steps=steps, run_dir=run_dir)
                certificate = prove(plan, content=content, deadline=deadline, progress=progress)
        except (DebugError, OutOfTime, *BREAKDOWNS) as reason:  # the verdict stands, whatever becomes of its proof
            _leave(rows, open_[count:], f"not proved: {reason}")
            break
        row |= {"certificate": certificate.to_dict(), "proved": certificate.granted}
        row["refused"] = None if certificate.granted else certificate.reason
        progress(
            f"repair      {changes_of(row)}: {'proved' if certificate.granted else 'refused'}, {certificate.reason}"
        )
        if certificate.granted:
            _leave(rows, open_[count + 1 :], "not tried: one that changes less is proved")
            break
        if count + 1 == PROOFS:
            _leave(rows, open_[count + 1 :], f"not tried: {PROOFS} that change less were refused before it")
            break
    rows.sort(key=lambda row: not row["proved"])  # the order is kept otherwise
    found = dataclasses.replace(verdict, repairs=tuple(rows))
    return dataclasses.replace(found, sentence=tell(found))


def _leave(rows: Sequence[dict[str, Any]], places: Sequence[int], reason: str) -> None:
    for place in places:
        rows[place]["refused"] = reason
