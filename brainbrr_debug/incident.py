"""What happens when a step's readings object: confirm exactly, gather the evidence, say it in one sentence.

Everything here reads back from the device as often as it likes: it runs once, on a trigger.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.checks.run import NONFINITE
from brainbrr_debug.probes.decompositions import Call, Degenerate, degenerate
from brainbrr_debug.probes.ranges import Ranges
from brainbrr_debug.probes.state import state_tensors
from brainbrr_debug.quantities import EIGENGAP, GRADIENT_NORM, OUTPUT_SUM, STATE_NORM
from brainbrr_debug.records import Finding, Reading, Severity
from brainbrr_debug.snapshot import BufferCopies, StepStart
from brainbrr_debug.statistics import can_be_nonfinite, exact_norm, finiteness, stored_values, total_norm
from brainbrr_debug.tensors import leaves

_LinAlgError: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]
_NOT_FINITE = re.compile(r"\b(nan|inf|infinity|non-?finite|not finite)\b", re.IGNORECASE)

NAMED = 16
"""So many samples are listed in a finding's evidence."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The live objects of a step at the gate: nothing has been clipped, sanitised or updated."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    parameters: Mapping[str, Tensor]
    extra_state: Mapping[str, Any]
    buffers: BufferCopies  # as of the step's start
    start: StepStart
    outputs: Sequence[tuple[Tensor | None, int]]
    losses: Sequence[Tensor]
    calls: list[Call]
    threshold: float
    gradient_norms: Mapping[str, Tensor | None] | None = None  # where the gradients in memory are no longer the step's
    ranges: Ranges | None = None

    @property
    def samples(self) -> int | None:
        """Samples of a micro-batch."""
        return self.start.batches.samples()


def confirmed(readings: Sequence[Reading], scene: Scene) -> list[Reading]:
    """The readings with every screening alarm checked exactly.

    A sum or norm of finite values that overflowed is replaced by its value in float64, a relative gap that is small
    only by float32's rounding by the float64 one. What remains non-finite or small is so.
    """
    outputs = iter(scene.outputs)
    out = []
    for reading in readings:
        kept = next(outputs, (None, 0)) if reading.quantity == OUTPUT_SUM else (None, 0)
        if _bad(reading, OUTPUT_SUM):
            value = _exact_sum(kept[0]) if kept[0] is not None and kept[0]._version == kept[1] else None
        elif _bad(reading, GRADIENT_NORM):
            value = _exact_gradient_norm(scene)
        elif _bad(reading, STATE_NORM):
            value = _exact_norm([x for _, _, x in states(scene)])
        elif reading.quantity == EIGENGAP and not reading.value > scene.threshold:
            value = _exact_gap(reading, scene)
        else:
            value = None
        out.append(reading if value is None else dataclasses.replace(reading, value=value))
    return out


def _bad(reading: Reading, quantity: str) -> bool:
    return reading.quantity == quantity and not math.isfinite(reading.value)


def _exact_sum(x: Tensor | None) -> float | None:
    """The sum in float64 of a tensor whose elements are all finite; None for any other, or none."""
    if x is None or not finiteness(x).finite:
        return None
    x = stored_values(x)
    total = float((torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).double().sum())
    return total if math.isfinite(total) else math.copysign(sys.float_info.max, total)


def _exact_norm(tensors: Sequence[Tensor]) -> float | None:
    """The norm in float64 of tensors that are finite throughout; None for any others."""
    if not all(finiteness(x).finite for x in tensors):
        return None
    return min(float(exact_norm(tensors)), sys.float_info.max)


def _exact_gradient_norm(scene: Scene) -> float | None:
    if scene.gradient_norms is not None:
        return _exact_norm([norm for norm in scene.gradient_norms.values() if norm is not None])
    return _exact_norm([p.grad for p in scene.parameters.values() if p.grad is not None])


def _exact_gap(reading: Reading, scene: Scene) -> float | None:
    """None where a matrix at the site is degenerate, else its smallest gap by float64."""
    calls = [call for call in scene.calls if call.site == reading.site and call.differentiated]
    if degenerate(calls, scene.threshold, scene.samples):
        return None
    small = [(call, (~(call.gaps.reshape(-1) > scene.threshold)).nonzero().reshape(-1)) for call in calls]
    exact = [call.exact_gaps(flat) for call, flat in small if len(flat)]
    return min((float(gaps.min()) for gaps in exact if gaps is not None), default=None)


def states(scene: Scene) -> list[tuple[str, str, Tensor]]:
    """(phase, site, tensor) of everything in parameters, buffers and optimizer state that can be non-finite."""
    everything = state_tensors(scene.model, scene.optimizer, scene.parameters, scene.buffers.meant)
    return [entry for entry in everything if can_be_nonfinite(entry[2])]


# The finding --------------------------------------------------------------------------------------------------------


def healthy(scene: Scene) -> bool:
    """Whether parameters, buffers and optimizer state are finite, in one pass that is exact only where it must be."""
    tensors = [x for _, _, x in states(scene)]
    return math.isfinite(total_norm(tensors)) or all(finiteness(x).finite for x in tensors)


def damaged(scene: Scene) -> list[str]:
    """What is not finite in parameters, buffers and optimizer state, by name."""
    return [site for _, site, x in states(scene) if not finiteness(x).finite]


def enriched(finding: Finding, scene: Scene, *, norm: float, way_back: Mapping[str, Any], command: str) -> Finding:
    """`finding` with exact evidence, one sentence for a person, and the next command.

    `way_back` is what there is to say about how to get to a time before the damage; empty where the state is whole.
    """
    gradients = _gradient_partition(scene)
    ties = degenerate(scene.calls, scene.threshold, scene.samples)
    evidence = {
        **finding.evidence,
        "losses": [float(loss) for loss in scene.losses],
        "gradient_norm": norm,
        "logits": _counts([x for x, _ in scene.outputs]),
        **gradients,
        "inputs_nonfinite": _bad_inputs(scene),
        "state_nonfinite": damaged(scene),
        **way_back,
        "batch_modified_in_place": scene.start.batches.modified,
        "degenerate": tie_evidence(ties, scene),
        **({} if scene.ranges is None else {"ranges": scene.ranges.report(scene.start.step)}),
    }
    return dataclasses.replace(
        finding,
        message=_sentence(finding, evidence, ties),
        evidence=evidence,
        remedy="replay the step, and let the bisection take components and samples away until it heals",
        commands=(command,) if command else (),
    )


def before_checkpoint(scene: Scene, way_back: Mapping[str, Any]) -> Finding:
    """The finding for a state that is damaged when a checkpoint is to be written."""
    names = damaged(scene)
    return Finding(
        check=NONFINITE,
        severity=Severity.P0,
        message=(
            f"after step {scene.start.step}, before a checkpoint: {len(names)} tensors of parameters, buffers and "
            f"optimizer state are not finite, first {names[0]}; {way_back['way_back']}"
        ),
        where="checkpoint",
        step=scene.start.step,
        evidence={"nonfinite": ["state"], "state_nonfinite": names, **way_back},
        why="a checkpoint that is not finite cannot be resumed from, and it takes the place of one that can",
        remedy="go back to the last checkpoint with snapshots on, and let the capture name the step that did it",
    )


def exception_finding(error: Exception, found: Sequence[Finding], scene: Scene) -> Finding | None:
    """The finding for an exception that ended a step, where something non-finite caused it; None for any other."""
    lines = str(error).splitlines() or [""]
    by_type = isinstance(error, (_LinAlgError, FloatingPointError))
    if not (by_type or found or _NOT_FINITE.search(str(error))):
        return None
    named = list(found[0].evidence["nonfinite"]) if found else []
    return Finding(
        check=NONFINITE,
        severity=Severity.P0,
        message=f"step {scene.start.step}: {type(error).__name__}: {lines[0]}",
        where="exception",
        step=scene.start.step,
        evidence={"nonfinite": named, "exception": f"{type(error).__name__}: {error}"},
        why="a non-finite value made an operation give up",
    )


def tie_finding(finding: Finding, scene: Scene, ties: Sequence[Degenerate]) -> Finding:
    """A run.eigengap `finding` with the matrices behind it and the samples they belong to."""
    here = [tie for tie in ties if tie.site == finding.where]
    evidence = {
        **finding.evidence,
        "degenerate": tie_evidence(here, scene),
        "location": here[0].location if here else "",
    }
    return dataclasses.replace(finding, evidence=evidence)


def tie_evidence(ties: Sequence[Degenerate], scene: Scene) -> list[dict[str, Any]]:
    """The smallest gap of each sample, with where the sample comes from; at most NAMED samples."""
    names = scene.start.batches.named() if ties else ()
    rows: dict[tuple[int, int | None, str], dict[str, Any]] = {}
    for tie in ties:
        row = rows.setdefault((tie.micro_batch, tie.sample, tie.site), {**dataclasses.asdict(tie), "matrices": 0})
        row["matrices"] += 1
        if tie.sample is not None and tie.micro_batch < len(names) and tie.sample < len(names[tie.micro_batch]):
            row["identity"] = names[tie.micro_batch][tie.sample]
    return list(rows.values())[:NAMED]


def _gradient_partition(scene: Scene) -> dict[str, Any]:
    """Parameters by what their gradient is: the partition points at the culprit, and clipping erases it."""
    bad: list[str] = []
    good: list[str] = []
    none: list[str] = []
    for name, parameter in scene.parameters.items():
        judged = parameter.grad if scene.gradient_norms is None else scene.gradient_norms[name]
        if judged is None:
            none.append(name)
        else:
            (good if finiteness(judged).finite else bad).append(name)
    return {"gradient_nonfinite": bad, "gradient_finite": good, "gradient_none": none}


def _counts(outputs: Sequence[Tensor | None]) -> dict[str, Any]:
    found = [finiteness(x) for x in outputs if x is not None]
    return {
        "elements": sum(f.elements for f in found),
        "nan": sum(f.nan for f in found),
        "inf": sum(f.inf for f in found),
        "first": next((list(f.first) for f in found if f.first is not None), None),
        "not_kept": sum(x is None for x in outputs),
    }


def _bad_inputs(scene: Scene) -> list[dict[str, Any]]:
    """Which tensors of the batch came in non-finite, and their first bad index."""
    rows = []
    for index, (inputs, target) in enumerate(scene.start.batches.micro_batches):
        for kind, tree in (("input", inputs), ("target", target)):
            for number, x in enumerate(leaves(tree)):
                found = finiteness(x) if can_be_nonfinite(x) else None
                if found is not None and found.first is not None:
                    row = {"micro_batch": index, "kind": kind, "tensor": number, "nan": found.nan, "inf": found.inf}
                    rows.append({**row, "first": list(found.first)})
    return rows


def _sentence(finding: Finding, evidence: Mapping[str, Any], ties: Sequence[Degenerate]) -> str:
    parts = [finding.message]
    bad, good = evidence["gradient_nonfinite"], evidence["gradient_finite"]
    if bad:
        parts.append(f"gradients of {len(bad)} of {len(bad) + len(good)} parameters, {_spread(bad)}")
    logits = evidence["logits"]
    if logits["nan"] or logits["inf"]:
        parts.append(f"{logits['nan'] + logits['inf']} of {logits['elements']} logits")
    elif "logits" not in evidence["nonfinite"] and logits["elements"]:
        parts.append("logits finite")
    if "loss" not in evidence["nonfinite"] and evidence["losses"]:
        parts.append(f"loss {evidence['losses'][-1]:.4g}")
    if evidence["inputs_nonfinite"]:
        row = evidence["inputs_nonfinite"][0]
        parts.append(f"the {row['kind']} was not finite on arrival, first at {row['first']}")
    if evidence["state_nonfinite"]:
        names = evidence["state_nonfinite"]
        parts.append(f"{len(names)} of the state's tensors were not finite when the step began, first {names[0]}")
    if "way_back" in evidence:
        parts.append(evidence["way_back"])
    if ties:
        parts.append(f"smallest relative eigengap {ties[0].gap:.3g} in {_tie_place(ties[0])}")
    return "; ".join(parts)


def _tie_place(tie: Degenerate) -> str:
    sample = "" if tie.sample is None else f", sample {tie.sample}"
    return f"{tie.site or 'the root module'} ({tie.op}{sample})"


def _spread(names: Sequence[str]) -> str:
    modules = list(dict.fromkeys(name.split(".")[0] for name in names))
    return "under " + ", ".join(modules[:4]) + (", …" if len(modules) > 4 else "")
