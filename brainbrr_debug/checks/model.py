"""Checks over a model that was built and rehearsed: what it cannot learn with, and what breaks it. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from brainbrr_debug.checks.constant import SAME
from brainbrr_debug.checks.registry import Given, NotApplicable, check
from brainbrr_debug.checks.steps import by_step
from brainbrr_debug.quantities import CLAMPED, INPUTS_DIFFER, RMS, SANITISED, SPREAD
from brainbrr_debug.records import Finding, Reading, Severity

DEAD = "model.dead_parameters"
SCALE = "model.init_scale"
BLIND = "model.blind"
TOOK_EFFECT = "model.init_took_effect"
FALLBACK = "model.silent_fallback"
EIGENVECTORS = "model.differentiates_eig"
HOSTILE = "model.hostile_inputs"
SANITISERS = "model.sanitisers"
ACTIVATIONS = "memory.activations"

GIB = 1 << 30
_FALLS_BACK = re.compile(r"\bfall(?:s|ing)?[ -]?back\b", re.IGNORECASE)
_SHOWN = 5


@check(DEAD, Severity.P1, needs="model", summary="parameters that no step moves")
def dead_parameters(given: Given) -> Iterator[Finding]:
    """Parameters without a gradient, or with one of zeros only, in every step of the rehearsal."""
    for reached in (False, True):
        idle = [each for each in given.rehearsal.idle if each.reached is reached]
        if not idle:
            continue
        names = ", ".join(each.name for each in idle[:_SHOWN]) + (
            f" and {len(idle) - _SHOWN} more" if len(idle) > _SHOWN else ""
        )
        how = "get a gradient of zeros in every step" if reached else "are not reached by any gradient"
        yield Finding(
            check=DEAD,
            severity=Severity.P1,
            message=f"{len(idle)} parameters ({sum(each.elements for each in idle):,} elements) {how}: {names}",
            where=idle[0].name,
            why="they take memory and optimizer state, are reported as capacity, and never change",
            remedy="take the modules out of the model, or connect them to the output",
        )


@check(SCALE, Severity.P1, needs="model", summary="a stage whose output is vanishing or exploding at initialisation")
def init_scale(given: Given) -> Iterator[Finding]:
    """The first of the model's own stages whose output is out of scale in the first step, in itself and to its input.

    An output of exactly zero is left to `model.blind`: last layers are often begun at zero on purpose.
    """
    low, high = given.setting(SCALE, "low"), given.setting(SCALE, "high")
    for reading in _first_forward(given.rehearsal.readings, RMS):
        relative = reading.value / given.rehearsal.input_rms if given.rehearsal.input_rms else reading.value
        if reading.site.count(".") or not reading.value:
            continue
        if max(reading.value, relative) < low or min(reading.value, relative) > high:
            stage = reading.site or "the model"
            yield Finding(
                check=SCALE,
                severity=Severity.P1,
                message=f"the output of {stage} has an RMS of {reading.value:.2g} at initialisation, "
                f"its input {given.rehearsal.input_rms:.2g}",
                where=reading.site,
                why=f"outside of {low:g} to {high:g} signals and gradients are lost against biases and rounding",
                remedy=f"initialise {stage} so that it keeps the scale of its input (He, Glorot), or normalise",
            )
            return


@check(BLIND, Severity.P1, needs="model", summary="an output that does not depend on the input")
def blind(given: Given) -> Iterator[Finding]:
    """The output of different samples in the last step: after an update, so that a last layer of zeros has moved."""
    *_, last = by_step(given.rehearsal.readings)
    spread = [r.value for r in last if r.quantity == SPREAD]
    if not spread or not all(r.value > 0 for r in last if r.quantity == INPUTS_DIFFER):
        raise NotApplicable("the batches hold no two different samples, or no output with one row a sample")
    if max(spread) <= SAME:
        yield Finding(
            check=BLIND,
            severity=Severity.P1,
            message=f"two unrelated samples give the same output (relative difference {max(spread):.1g})",
            where="output",
            why="nothing of the input reaches the output: the model can learn no more than a constant",
            remedy="look at the stages' scales for the first that is vanishing, constant or saturated",
        )


@check(TOOK_EFFECT, Severity.P2, needs="model", summary="an initialisation that the first forward pass undoes")
def init_took_effect(given: Given) -> Iterator[Finding]:
    """Weights under weight normalisation that were written to directly: the next forward pass computes them anew."""
    for derived in given.rehearsal.derived:
        yield Finding(
            check=TOOK_EFFECT,
            severity=Severity.P2,
            message=f"{derived.name} changes by {derived.change:.0%} in the first forward pass",
            where=derived.name,
            why=f"it is computed from {derived.name}_g and {derived.name}_v; what was written into it is lost",
            remedy="initialise before the normalisation is applied, or the two parameters themselves",
        )


@check(FALLBACK, Severity.P0, needs="model", summary="another implementation runs than was asked for")
def silent_fallback(given: Given) -> Iterator[Finding]:
    """Kernels asked for by name against those that run, and warnings that something falls back."""
    for kernel in given.rehearsal.kernels:
        if kernel.asked not in ("auto", kernel.used):
            yield _fallback(f"{kernel.key} asks for {kernel.asked}, and {kernel.used} runs", kernel.key)
    for line in given.rehearsal.warnings:
        if _FALLS_BACK.search(line):
            yield _fallback(f"building or running the model only warns: {' '.join(line.split())[:160]}", "warning")


def _fallback(message: str, where: str) -> Finding:
    return Finding(
        check=FALLBACK,
        severity=Severity.P0,
        message=message,
        where=where,
        why="the model that is trained is not the one that was described; a warning is lost in a log of hours",
        remedy="raise an error, or record the choice in environment.json and in the checkpoint",
    )


@check(EIGENVECTORS, Severity.P1, needs="model", summary="a gradient through eigen- or singular vectors")
def differentiates_eig(given: Given) -> Iterator[Finding]:
    """Every decomposition through whose vectors a gradient came back."""
    for found in given.rehearsal.differentiated:
        path, _, line = found.location.rpartition(":")
        yield Finding(
            check=EIGENVECTORS,
            severity=Severity.P1,
            message=f"a gradient goes through the vectors of {found.op} in {found.site or 'the root module'}",
            where=found.site,
            file=path or None,
            line=int(line) if line.isdigit() else None,
            why="it contains 1/(λi−λj): NaN for repeated values, boundless near them, and the loss does not show it",
            remedy="use values only, detach the vectors, or take a gradient that is defined for repeated values",
            commands=("brainbrr-debug triage --explain model.differentiates_eig",),
        )


@check(HOSTILE, Severity.P0, needs="model", summary="an input that real recordings hold breaks forward or backward")
def hostile_inputs(given: Given) -> Iterator[Finding]:
    """Zeros, constants, identical channels, saturation and an impulse, forward and backward, each precision."""
    for ordeal in given.rehearsal.ordeals:
        if ordeal.failed is not None:
            yield Finding(
                check=HOSTILE,
                severity=Severity.P0,
                message=f"{ordeal.input} in {ordeal.precision}: {ordeal.failed}",
                where=ordeal.input,
                why="a disconnected amplifier, a bridge or a pop is in every corpus, and one such window ends the run",
                remedy="let the subject fail so under watch, and ask for the culprit: brainbrr-debug bisect",
            )


@check(SANITISERS, Severity.P2, needs="model", summary="clamps and nan_to_num that act in the forward pass")
def sanitisers(given: Given) -> Iterator[Finding]:
    """What each clamp or nan_to_num altered while an ordinary batch was trained on."""
    worst: dict[tuple[str, str], float] = {}
    for reading in given.rehearsal.readings:
        if reading.quantity in (CLAMPED, SANITISED):
            place = reading.site, reading.quantity
            worst[place] = max(worst.get(place, 0.0), reading.value)
    least = given.setting(SANITISERS, "share")
    for (site, quantity), value in worst.items():
        if quantity == CLAMPED and value < least:
            continue
        did = f"clamps {value:.2%} of its values" if quantity == CLAMPED else f"replaces {value:.0f} non-finite values"
        yield Finding(
            check=SANITISERS,
            severity=Severity.P2,
            message=f"{site or 'the root module'} {did} in an ordinary batch",
            where=site,
            why="what is altered has no gradient, and a failure behind it shows in no loss",
            remedy="repair what bears the values; watch with every=50 counts what is altered meanwhile",
        )


@check(ACTIVATIONS, Severity.P1, needs="config", summary="a training step that does not fit into memory")
def activations(given: Given) -> Iterator[Finding]:
    """Parameters, gradients, optimizer state and what the forward pass keeps, against the card or the memory here."""
    memory = given.memory
    need = sum(memory.bytes.values())
    if memory.device == "cpu" and not given.machine.memory:
        raise NotApplicable("how much memory this machine has cannot be found out")
    if memory.device == "cpu":
        have, what = given.machine.memory, "this machine's memory"
    elif given.machine.gpus:
        have, what = given.machine.gpus[0].memory, given.machine.gpus[0].name
    else:
        have = round(given.setting(ACTIVATIONS, "card_gib") * GIB)
        what = f"a card of {have / GIB:.0f} GiB (there is none here; set {ACTIVATIONS}.card_gib)"
    if need > have and memory.at_most:
        raise NotApplicable(f"at most {need / GIB:.0f} GiB with the portable scan; the fused kernels keep less")
    if need > have:
        largest = max(memory.bytes, key=lambda name: memory.bytes[name])
        yield Finding(
            check=ACTIVATIONS,
            severity=Severity.P1,
            message=f"a step of {memory.batch_size} samples keeps {need / GIB:.1f} GiB, {largest} "
            f"{memory.bytes[largest] / GIB:.1f} GiB of it; {what} has {have / GIB:.1f} GiB",
            where=memory.key,
            file=str(given.config),
            line=given.config_facts.line(memory.key),
            why="it runs out of memory in the first backward pass, or begins to swap; temporaries come on top",
            remedy="smaller batches with training.gradient_accumulation_steps, or checkpointed activations",
        )


def _first_forward(readings: Iterable[Reading], quantity: str) -> list[Reading]:
    """The first reading of each site in the forward pass of the first step, in their order."""
    first: dict[str, Reading] = {}
    for reading in readings:
        if reading.step == 0 and reading.phase == "forward" and reading.quantity == quantity:
            first.setdefault(reading.site, reading)
    return list(first.values())
