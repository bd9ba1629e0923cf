"""From the answers to the verdict, with everything that they rest on."""

from __future__ import annotations

import dataclasses
from typing import Any

from brainbrr_debug.answers import Answers, cause_of, outcome
from brainbrr_debug.questions.components import Components
from brainbrr_debug.questions.repairs import Repair, candidates
from brainbrr_debug.records import Verdict, to_json
from brainbrr_debug.sentence import disagreements, tell
from brainbrr_debug.trials import Trials, as_row


def verdict_of(trials: Trials, answers: Answers, seconds: float) -> Verdict:
    """What the answers come to; `details` holds everything that they rest on."""
    content, real, beginning = trials.content, answers.real, answers.beginning
    step = content.step if beginning is None else beginning.step
    verdict = Verdict(
        question=f"why did step {step} fail?",
        step=step,
        component=answers.named,
        origin=answers.origin,
        samples=_samples(answers),
        cause=cause_of(answers)[0],
        necessary=answers.necessary,
        sufficient=answers.sufficient,
        stable={"k": answers.stable.k, "n": answers.stable.n} if answers.stable is not None else {"k": 0, "n": 0},
        replay={"reproduced": real.reproduced, "of": real.of} if real is not None else {"reproduced": 0, "of": 0},
        mechanism=answers.origin.mechanism,
        repairs=tuple(repair.row() for repair in _repairs(trials, answers)),
        trials=trials.count,
        seconds=round(seconds, 3),
        sentence="",
        details=_details(trials, answers),
    )
    return dataclasses.replace(verdict, sentence=tell(verdict))


def _repairs(trials: Trials, answers: Answers) -> tuple[Repair, ...]:
    if answers.repairs is not None:
        return answers.repairs
    return candidates(trials.subject, answers.component) if answers.component is not None else ()


def _samples(answers: Answers) -> tuple[dict[str, Any], ...]:
    if answers.samples is None:
        return ()
    rows = answers.samples.described or tuple({"index": sample[1]} for sample in answers.samples.samples)
    return tuple(dict(row) for row in rows)


def _details(trials: Trials, answers: Answers) -> dict[str, Any]:
    content, real, beginning = trials.content, answers.real, answers.beginning
    details: dict[str, Any] = {
        "outcome": outcome(answers),
        "unanswered": answers.unanswered,
        "finding": content.finding,
        "beginning": beginning and {"abnormal": beginning.abnormal, "told": beginning.told},
        "subject": content.subject,
        "environment": content.environment,
        "channels": getattr(trials.subject, "channels", ()),
        "places": getattr(trials.subject, "places", {}),
        "matrix": answers.matrix,
        "rows": [as_row(result) for result in trials.results],
    }
    if real is not None:
        details["replay"] = {
            "failed": real.failed,
            "bit_exact": real.exact,
            "deterministic": real.deterministic,
            "differences": real.differences,
            "mismatches": real.mismatches,
            "oracle": real.oracles.leading or "harm",
            "threshold": real.oracles.threshold if real.oracles.leading else None,
        }
    if answers.cause is not None:
        cells = {name: {"outcome": r.outcome, "reason": r.reason} for name, r in answers.cause.cells.items()}
        only = answers.cause.only_these_weights
        details["cause"] = {"evidence": cause_of(answers)[1], "only_these_weights": only, "cells": cells}
        details["sequence"] = to_json(answers.sequence)
    details["precision"] = to_json(answers.precision)
    if answers.samples is not None:
        found = answers.samples
        details["samples"] = {
            "sets": [[list(sample) for sample in part] for part in found.sets],
            "necessary": found.necessary,
            "sufficient": found.sufficient,
            "inconsistent": found.inconsistent,
            "skipped": found.skipped,
            "replaced": found.replaced,
        }
    if answers.operation is not None:
        details["operation"] = {"cut_down": answers.operation.cut_down}
    if answers.component is not None:
        details["component"] = _component_details(answers.component)
    if answers.alone is not None:
        details["alone"] = {"fails": answers.alone.fails, "reason": answers.alone.reason}
    if answers.stable is not None:
        details["stable"] = {"how": answers.stable.how}
    details["disagreements"] = disagreements(details)
    plain: dict[str, Any] = to_json(details)
    return plain


def _component_details(found: Components) -> dict[str, Any]:
    return {
        "component": found.component,
        "necessary": found.necessary,
        "together": found.together,
        "disagreement": found.disagreement,
        "switches": [
            {
                "name": t.name,
                "value": t.value,
                "component": t.switch.component,
                "weights": t.weights,
                "outcome": t.result.outcome if t.result is not None and not t.skipped else "skip",
                "reason": t.skipped or (t.result.reason if t.result is not None else ""),
                "notes": t.result.observation.notes if t.result is not None and t.result.observation else (),
                "hides": t.switch.hides,
            }
            for t in found.tried
        ],
    }
