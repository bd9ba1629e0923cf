"""Why an operation gave something non-finite, in words a person can act on.

`explain` names one of the `MECHANISMS`; triage/runbooks has a page for each: how to confirm, how to repair.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from brainbrr_debug.mechanisms.backward import explain_backward
from brainbrr_debug.mechanisms.forward import explain_forward
from brainbrr_debug.mechanisms.numbers import Explanation, how_many
from brainbrr_debug.mechanisms.optimizer import explain_optimizer
from brainbrr_debug.subject import Batch
from brainbrr_debug.tracing import harm
from brainbrr_debug.tracing.births import tensors_in
from brainbrr_debug.tracing.events import Event
from brainbrr_debug.tracing.evidence import Evidence
from brainbrr_debug.tracing.finiteness import bad_elements, first_bad_index, kind_name, values
from brainbrr_debug.tracing.memento import storage_key

__all__ = ["MECHANISMS", "Evidence", "Explanation", "explain", "sentence"]

MECHANISMS = {
    "acos-domain": "acos, asin or acosh at or beyond the border of its domain",
    "atan2-at-origin": "the slope of atan2 at the point (0, 0)",
    "bad-input": "the input was not finite on arrival",
    "bad-target": "the target was not finite on arrival",
    "cast-overflow": "a cast to a smaller floating-point type overflows",
    "constant-fill": "an infinity or NaN that was written on purpose is used after all",
    "cosine-at-zero": "the cosine of a zero vector",
    "custom-backward": "the hand-written backward of an autograd Function",
    "division-by-zero": "division by exactly 0",
    "exp-overflow": "an exponential overflows",
    "fully-masked-softmax": "softmax over a row in which everything is masked",
    "impossible-alignment": "a CTC target that cannot be aligned with its input",
    "infinity-minus-infinity": "infinities meet and cancel to NaN",
    "inverse-domain": "atanh, logit, erfinv or a special function at the border of its domain",
    "learning-rate-not-finite": "a hyper-parameter of the optimizer is not a finite number",
    "log-of-negative": "the logarithm of a negative number",
    "log-of-zero": "the logarithm of 0",
    "mean-of-nothing": "a mean over no element: 0/0",
    "norm-at-zero": "a zero vector divided by its norm, or the slope of a norm at 0",
    "not-reproduced": "the failure did not happen again when the step was repeated",
    "optimizer-epsilon-underflow": "the optimizer's ε vanishes in half precision",
    "overflow": "a finite result does not fit its floating-point type",
    "poisoned-parameter": "a parameter or buffer was not finite before the step",
    "poisoned-state": "an optimizer state was not usable before the step",
    "pow-domain": "a power outside of its domain, or its slope at base 0",
    "repeated-eigenvalue": "the gradient of eigenvectors of a matrix with a repeated eigenvalue",
    "repeated-singular-value": "the gradient of singular vectors of a matrix with a repeated singular value",
    "singular-matrix": "linear algebra on a singular matrix",
    "sqrt-at-zero": "the slope of the square root at 0",
    "sqrt-of-negative": "the square root of a negative number",
    "target-index-out-of-use": "no label of the batch counts",
    "undefined-result": "an operation that has no value for these arguments",
    "uninitialised-memory": "memory that nobody has written to was read",
    "variance-of-constant": "division by the spread of equal values",
    "variance-of-one": "the variance of a single value",
    "where-nan-gradient": "a zero gradient meets an infinite slope in the branch that `where` did not take",
    "zero-times-infinity": "0 multiplied by an infinity",
}


def explain(
    event: Event, evidence: Evidence | None, *, model: object, optimizer: object, batches: Sequence[Batch]
) -> Explanation:
    """The mechanism behind `event`, with the numbers seen."""
    if event.arrival is not None:
        return _arrival(event, event.arrival, model, optimizer, batches)
    if event.deliberate:
        return _constant(event)
    if event.phase == "backward" and event.key[0] == "node":
        return explain_backward(event, evidence)
    if evidence is None:
        return Explanation(mechanism="undefined-result", seen=f"{how_many(event)} are not finite")
    if event.phase == "optimizer":
        return explain_optimizer(event, evidence, _state_names(model, optimizer))
    return explain_forward(event, evidence)


def sentence(event: Event, found: Explanation) -> str:
    """One sentence: what happened, where, and the numbers."""
    where = {"<loss>": "the loss", "<optimizer>": "the optimizer's step", "": "the model"}.get(
        event.module or "", f"module {event.module}"
    )
    what = f"{event.op} in {where}" + (f" ({event.location})" if event.location else "")
    if event.arrival is not None:
        return _capital(f"{MECHANISMS[found.mechanism]}: {found.seen}.")
    gave = f"the gradient through {what}" if event.phase == "backward" else what
    return _capital(f"{gave} becomes {kind_name(event.found)}: {MECHANISMS[found.mechanism]}; {found.seen}.")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:] if text.startswith(("the ", "a ", "an ")) else text


def _arrival(
    event: Event, tensor: torch.Tensor, model: object, optimizer: object, batches: Sequence[Batch]
) -> Explanation:
    if event.phase == "data":
        mechanism = "bad-input" if event.module == "<input>" else "bad-target"
        return Explanation(
            mechanism=mechanism, seen=f"{_name_in_batch(tensor, batches) or mechanism[4:]}: {_extent(tensor)}"
        )
    state = _state_names(model, optimizer).get(storage_key(tensor))
    if state is not None:
        return Explanation(mechanism="poisoned-state", seen=f"{state}: {_extent(tensor)}")
    if event.phase == "optimizer" and tensor.numel() == 1:
        return Explanation(
            mechanism="learning-rate-not-finite", seen="a hyper-parameter held in a tensor is not finite"
        )
    names = {id(t): name for name, t in (harm.parameters_of(model, optimizer) | harm.buffers_of(model)).items()}
    name = names.get(id(tensor), "a tensor that the program holds")
    return Explanation(mechanism="poisoned-parameter", seen=f"{name}: {_extent(tensor)}")


def _extent(tensor: torch.Tensor) -> str:
    part = values(tensor)[0]
    bad = int(bad_elements(part).sum())
    return f"{bad} of {part.numel()} elements of shape {tuple(tensor.shape)}, the first at {first_bad_index(part)}"


def _name_in_batch(tensor: torch.Tensor, batches: Sequence[Batch]) -> str:
    for number, (inputs, target) in enumerate(batches):
        for part, name in ((inputs, "input"), (target, "target")):
            for place, candidate in enumerate(tensors_in(part)):
                if candidate is tensor:
                    return f"{name} {place}" + (f" of micro-batch {number}" if len(batches) > 1 else "")
    return ""


def _constant(event: Event) -> Explanation:
    if "empty" in event.op or "resize" in event.op:
        return Explanation(mechanism="uninitialised-memory", seen=f"{how_many(event)} held whatever was there")
    return Explanation(
        mechanism="constant-fill", seen=f"{how_many(event)} were filled with a constant that is not finite"
    )


def _state_names(model: object, optimizer: object) -> dict[int, str]:
    states = harm.states_of(model, optimizer).items()
    return {storage_key(value): f"optimizer state {name}" for name, value in states if isinstance(value, torch.Tensor)}
