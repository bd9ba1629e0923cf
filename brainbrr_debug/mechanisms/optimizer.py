"""Mechanisms of the optimizer's own step: loss and gradients were finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from brainbrr_debug.mechanisms.forward import explain_forward
from brainbrr_debug.mechanisms.numbers import Explanation, how_many, real
from brainbrr_debug.tracing.births import scalar_kinds_in, tensors_in
from brainbrr_debug.tracing.events import Event
from brainbrr_debug.tracing.evidence import Evidence
from brainbrr_debug.tracing.finiteness import INF

_HALVES = (torch.float16, torch.bfloat16)


def explain_optimizer(event: Event, evidence: Evidence, states: Mapping[int, str]) -> Explanation:
    """The mechanism of an operation in the step; `states` maps memory to the name of the state it holds."""
    if scalar_kinds_in((evidence.args, dict(evidence.kwargs))):
        return Explanation(
            mechanism="learning-rate-not-finite", seen="a hyper-parameter (learning rate, decay) is not a finite number"
        )
    if evidence.short in ("addcdiv", "div", "reciprocal") and (found := _vanished_divisor(evidence)) is not None:
        return found
    if evidence.short == "sqrt":
        for tensor in evidence.tensors:
            name = states.get(evidence.memory.get(id(tensor), 0))
            if name is not None and bool((real(tensor) < 0).any()):
                low = float(real(tensor).min())
                return Explanation(mechanism="poisoned-state", seen=f"{name} is negative, down to {low:.4g}")
    if "fused" in evidence.op:
        return _fused(event, evidence, states)
    return explain_forward(event, evidence)


def _vanished_divisor(evidence: Evidence) -> Explanation | None:
    """x/0 in half precision is nearly always √v + ε with an ε that the dtype cannot hold."""
    place = {"reciprocal": 0, "div": 1}.get(evidence.short, min(2, len(evidence.args) - 1))
    below = evidence.args[place]
    divisors = [tensor for tensor in tensors_in(below) if bool((real(tensor) == 0).any())]
    if not divisors:
        return None
    zeros = sum(int((real(tensor) == 0).sum()) for tensor in divisors)
    dtype = divisors[0].dtype
    if dtype in _HALVES:
        smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        return Explanation(
            mechanism="optimizer-epsilon-underflow",
            seen=f"{zeros} divisors √v + ε are exactly 0: {str(dtype).removeprefix('torch.')} holds nothing below "
            f"{smallest:.2g}, so ε vanished where the gradient was 0",
        )
    if evidence.short != "addcdiv":
        return None  # its own code: what the divisor was made of says more
    return Explanation(mechanism="division-by-zero", seen=f"{zeros} divisors are exactly 0 and no ε is added")


def _fused(event: Event, evidence: Evidence, states: Mapping[int, str]) -> Explanation:
    if event.found & INF:
        return Explanation(mechanism="overflow", seen="a moment inside the fused update does not fit its dtype")
    if any(tensor.dtype in _HALVES for tensor in evidence.tensors):
        return Explanation(
            mechanism="optimizer-epsilon-underflow", seen="ε vanished inside the fused half-precision update"
        )
    for tensor in evidence.tensors:
        if (
            (name := states.get(evidence.memory.get(id(tensor), 0))) is not None
            and bool((real(tensor) < 0).any())
            and "sq" in name
        ):
            return Explanation(mechanism="poisoned-state", seen=f"{name} is negative")
    if evidence.kwargs.get("eps") == 0:
        return Explanation(mechanism="division-by-zero", seen="a second moment is 0 and ε is 0 as well")
    return Explanation(mechanism="undefined-result", seen=f"{how_many(event)} of the fused update are undefined")
