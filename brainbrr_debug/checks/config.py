"""Checks over a configuration: what is refused, unread, out of range, or a trap. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from brainbrr_debug.checks.registry import Given, NotApplicable, check
from brainbrr_debug.records import Finding, Severity

REFUSED = "config.refused"
UNREAD = "config.unread"
PRECISION = "config.precision_device"
SSM_DIMS = "config.ssm_dims"
INDEX = "config.index_overflow"
BOUNDS = "config.bounds_agree"
DRIFT = "config.drift"


def at(given: Given, key: str) -> dict[str, Any]:
    """Where a key of the configuration stands, as arguments of a Finding."""
    return {"where": key, "file": str(given.config), "line": given.config_facts.line(key)}


@check(REFUSED, Severity.P0, needs="config", summary="a configuration that training refuses")
def refused(given: Given) -> Iterator[Finding]:
    """One finding for each objection, and one for all unknown keys together."""
    facts = given.config_facts
    unknown = [item.key for item in facts.unread if item.unread]
    told = [(item.key, item.message) for item in facts.objections]
    if unknown:
        told.append((unknown[0], f"{len(unknown)} unknown keys: {', '.join(unknown[:5])}; see config.unread"))
    for key, message in told:
        yield Finding(
            check=REFUSED,
            severity=Severity.P0,
            message=f"{key}: {message}" if key else message,
            **at(given, key),
            why="training reads the same file with the same rules, and stops before its first step",
            remedy="change what is named to what is expected",
        )


@check(UNREAD, Severity.P2, needs="config", summary="a key that no code reads")
def unread(given: Given) -> Iterator[Finding]:
    """Keys that do not exist, and keys that nothing reads as long as another has its value."""
    for item in given.config_facts.unread:
        because = item.message if item.unread else f"no code reads it as long as {item.message}"
        yield Finding(
            check=UNREAD,
            severity=Severity.P2,
            message=f"{item.key} is set, and nothing comes of it: {because}",
            **at(given, item.key),
            why="who reads the file believes that the key acts, and compares runs that do not differ",
            remedy="remove the key, or set what makes it act",
        )


@check(PRECISION, Severity.P1, needs=("config", "environment"), summary="a precision that the device does not have")
def precision_device(given: Given) -> Iterator[Finding]:
    """Half precision on a processor, and bfloat16 on a card that only emulates it."""
    facts = given.for_here
    gpus = given.machine.gpus if facts.device != "cpu" else ()
    if facts.precision == "float32":
        return
    old = [gpu.name for gpu in gpus if gpu.capability < (8, 0)]
    if not gpus:
        found = f"{facts.precision} on a processor"
        why = "a processor has no fast half precision: slower than float32, and with fewer digits"
    elif facts.precision == "bf16" and old:
        found = f"bf16 on {old[0]}"
        why = "cards before compute capability 8.0 emulate bfloat16: slower than float32, and with fewer digits"
    else:
        return
    yield Finding(
        check=PRECISION,
        severity=Severity.P1,
        message=f"the configuration asks for {found}",
        **at(given, "training.mixed_precision"),
        why=why,
        remedy="train in float32 here, or fp16 on a card without bfloat16",
    )


@check(SSM_DIMS, Severity.P0, needs="config", summary="widths of a Mamba-2 layer that do not fit together")
def ssm_dims(given: Given) -> Iterator[Finding]:
    """Heads must divide the inner width; the fused convolution wants a multiple of 8."""
    multiple = int(given.setting(SSM_DIMS, "fused_multiple"))
    for space in given.accepted.spaces:
        inner = space.d_model * space.expand
        worked = f"d_model·expand/headdim = {space.d_model}·{space.expand}/{space.headdim} = {inner / space.headdim:g}"
        if inner % space.headdim:
            yield Finding(
                check=SSM_DIMS,
                severity=Severity.P0,
                message=f"{worked} heads; expected a whole number",
                **at(given, space.key),
                why="the model cannot be built",
                remedy=f"set headdim to a divisor of {inner}",
            )
        elif space.fused_convolution and (inner // space.headdim) % multiple:
            yield Finding(
                check=SSM_DIMS,
                severity=Severity.P3,
                message=f"{worked} heads; the fused convolution wants a multiple of {multiple}",
                **at(given, space.key),
                why="its kernel reads in steps of that many channels: it refuses other strides, or a slower path runs",
                remedy=f"choose headdim so that {inner}/headdim is a multiple of {multiple}",
            )


@check(INDEX, Severity.P1, needs="config", summary="kernels that index beyond their integers at this batch size")
def index_overflow(given: Given) -> Iterator[Finding]:
    """Elements of the largest tensor of each kernel against what its indices can count."""
    for kernel in given.accepted.kernels:
        elements, limit = math.prod(kernel.factors.values()), 2 ** (kernel.bits - 1)
        if elements < limit:
            continue
        worked = "·".join(str(factor) for factor in kernel.factors.values())
        yield Finding(
            check=INDEX,
            severity=Severity.P1,
            message=(
                f"{kernel.name}: {worked} = {elements:.3g} elements ({', '.join(kernel.factors)}), "
                f"from 2^{kernel.bits - 1} = {limit:.3g} on an index of {kernel.bits} bits overflows"
            ),
            **at(given, "training.batch_size"),
            evidence={"elements": elements, "limit": limit, "factors": dict(kernel.factors)},
            why="the kernel reads and writes at wrong addresses: an illegal access, or numbers of another sample",
            remedy="lower training.batch_size (accumulate gradients instead) or the length of a chunk",
        )


@check(BOUNDS, Severity.P1, needs="config", summary="bounds of the logits that loss and thresholds do not agree with")
def bounds_agree(given: Given) -> Iterator[Finding]:
    """What the loss tells apart, and what an event needs, must lie between the bounds."""
    bounds = given.accepted.bounds
    if bounds is None or bounds.logits is None:
        return
    low, high = bounds.logits
    most, least = 1 / (1 + math.exp(-high)), 1 / (1 + math.exp(-low))
    told = []
    if most <= bounds.enter:
        told.append(f"no probability is above {most:.3g}, and an event begins at {bounds.enter:g}")
    if least >= bounds.leave:
        told.append(f"no probability is below {least:.3g}, and an event ends at {bounds.leave:g}")
    if bounds.loss is not None and (low < bounds.loss[0] or high > bounds.loss[1]):
        told.append(f"the loss tells logits apart only from {bounds.loss[0]:g} to {bounds.loss[1]:g}")
    for what in told:
        yield Finding(
            check=BOUNDS,
            severity=Severity.P1,
            message=f"logits are held between {low:g} and {high:g}: {what}",
            **at(given, bounds.key),
            why="training pushes outputs to where they cannot go, and no gradient comes back from a bound",
            remedy="take the bound away, or make it wider than what loss and thresholds need",
        )


@check(DRIFT, Severity.P3, needs="config", summary="a smoke run that stands for another training than is planned")
def drift(given: Given) -> Iterator[Finding]:
    """What differs between a smoke configuration and the training beside it, beyond lengths, places and watching.

    What differs from the same training on another machine (local and cloud) is said in a note: it may be meant.
    """
    facts = given.accepted
    for sibling in facts.siblings:
        apart = ", ".join(f"{item.key} ({item.message})" for item in sibling.differences)
        if apart:
            given.note(f"{DRIFT}: {sibling.path.parent.name}/{sibling.path.name} trains otherwise: {apart}")
    if facts.purpose != "smoke":
        raise NotApplicable("the configuration does not say experiment.purpose: smoke")
    if facts.twin is None:
        yield Finding(
            check=DRIFT,
            severity=Severity.P3,
            message="says that it is a smoke run, and no train.yaml that can be read lies beside it",
            **at(given, "experiment.purpose"),
            why="a green smoke run means something only for the training that it stands for",
            remedy="put it beside the configuration of that training",
        )
        return
    for item in facts.twin.differences:
        yield Finding(
            check=DRIFT,
            severity=Severity.P3,
            message=f"{item.key} differs from {facts.twin.path.name} ({item.message}): a green run says nothing of it",
            **at(given, item.key),
            why="what the smoke run does not do is done for the first time when the training is paid for",
            remedy=f"take the value of {facts.twin.path}, or call this configuration something else than smoke",
        )
