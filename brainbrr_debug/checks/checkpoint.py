"""Checks over a checkpoint, of this or of another program. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from brainbrr_debug.checks.registry import Given, NotApplicable, check
from brainbrr_debug.records import Finding, Severity

if TYPE_CHECKING:
    from brainbrr_debug.checkpoint import CheckpointFacts

UNREADABLE = "checkpoint.unreadable"
UNSAFE = "checkpoint.unsafe"
CONFIG = "checkpoint.config"
FINITE = "checkpoint.finite"
COMPLETE = "checkpoint.complete"
BACKEND = "checkpoint.backend"

SHOWN = 5
STAND_IN = "conv1d"


def _content(given: Given) -> CheckpointFacts:
    """The facts of a checkpoint that can be read safely. Raises NotApplicable for another."""
    facts = given.checkpoint_facts
    if facts.error is not None:
        raise NotApplicable("the checkpoint cannot be read: see checkpoint.unreadable")
    if facts.calls:
        raise NotApplicable("reading it would run what is in it: see checkpoint.unsafe")
    return facts


@check(UNREADABLE, Severity.P0, needs="checkpoint", summary="a file that is torn, or no checkpoint")
def unreadable(given: Given) -> Iterator[Finding]:
    """The archive and its pickles are whole, and torch reads them."""
    facts = given.checkpoint_facts
    if facts.error is not None:
        yield Finding(
            check=UNREADABLE,
            severity=Severity.P0,
            message=f"cannot be read: {facts.error}",
            file=str(facts.path),
            why="a run that was killed while it wrote leaves half a file under the name of a whole one",
            remedy="take the checkpoint before it; write to a temporary name and rename it",
        )


@check(UNSAFE, Severity.P0, needs="checkpoint", summary="a checkpoint that runs code when it is loaded")
def unsafe(given: Given) -> Iterator[Finding]:
    """Every name in the pickle's opcodes, read without running any, is one of plain tensors and containers."""
    facts = given.checkpoint_facts
    if facts.calls:
        more = f" and {len(facts.calls) - SHOWN} more" if len(facts.calls) > SHOWN else ""
        yield Finding(
            check=UNSAFE,
            severity=Severity.P0,
            message=f"needs unpickling: loading it imports and calls {', '.join(facts.calls[:SHOWN])}{more}",
            file=str(facts.path),
            evidence={"calls": list(facts.calls)},
            why="a pickle can run any program as whoever loads it; and it breaks when those classes move",
            remedy="where you trust its author: load it once in a container, and save plain tensors and numbers",
        )


@check(CONFIG, Severity.P2, needs="checkpoint", summary="a checkpoint without its configuration")
def config(given: Given) -> Iterator[Finding]:
    """A configuration under one of the usual names that is not None or empty."""
    facts = _content(given)
    if not facts.config:
        found = "weights alone" if facts.weights_only else "no configuration, or None under its name"
        yield Finding(
            check=CONFIG,
            severity=Severity.P2,
            message=f"holds {found}",
            file=str(facts.path),
            why="who evaluates it guesses: another width fails, another preprocessing does not, and scores low",
            remedy="save the resolved configuration with the weights; give it by --config until then",
        )


@check(FINITE, Severity.P0, needs="checkpoint", summary="parameters or optimizer state that are not finite")
def finite(given: Given) -> Iterator[Finding]:
    """Every tensor in it, that of the optimizer included."""
    facts = _content(given)
    if facts.nonfinite:
        worst = [f"{name} ({count})" for name, count in list(facts.nonfinite.items())[:SHOWN]]
        more = f" and {len(facts.nonfinite) - SHOWN} more" if len(facts.nonfinite) > SHOWN else ""
        yield Finding(
            check=FINITE,
            severity=Severity.P0,
            message=f"{len(facts.nonfinite)} tensors are not finite: {', '.join(worst)}{more}",
            file=str(facts.path),
            evidence={"nonfinite": dict(facts.nonfinite)},
            why="every batch gives NaN from here on, or one constant behind a sanitiser; the batches are innocent",
            remedy="take the last checkpoint before it; find the step that wrote it with `brainbrr-debug bisect`",
        )


@check(COMPLETE, Severity.P1, needs="checkpoint", summary="a checkpoint that a run cannot go on from as it was")
def complete(given: Given) -> Iterator[Finding]:
    """Optimizer, scheduler, random state and position; the loss scaler where the precision needs one."""
    from brainbrr_debug.checkpoint import PARTS

    facts = _content(given)
    if facts.weights_only or ("optimizer" not in facts.parts and "position" not in facts.parts):
        raise NotApplicable("it holds weights to use, and no run to go on with")
    wanted = [part for part in PARTS if part != "loss scaler" or _scales(facts.config)]
    missing = [part for part in wanted if part not in facts.parts]
    if missing:
        yield Finding(
            check=COMPLETE,
            severity=Severity.P1,
            message=f"holds no {', no '.join(missing)}",
            file=str(facts.path),
            evidence={"missing": missing, "found": sorted(facts.parts)},
            why="what goes on is another run: another rate, another order of samples, a best that is overwritten",
            remedy="save them with the weights, all at the same step",
        )


def _scales(config: Any) -> bool:
    """Whether some mixed precision in the configuration is one that a loss scaler belongs to."""
    if isinstance(config, Mapping):
        return any(
            (str(key) in ("mixed_precision", "amp", "precision") and str(value) in ("fp16", "True", "16", "16-mixed"))
            or _scales(value)
            for key, value in config.items()
        )
    return False


@check(BACKEND, Severity.P1, needs="checkpoint", summary="trained with another implementation than would run here")
def backend(given: Given) -> Iterator[Finding]:
    """What the checkpoint says it was trained with, against what its configuration comes to on this machine."""
    facts = _content(given)
    if not facts.backends or not given.backends_here:
        raise NotApplicable("it does not say what it was trained with, or cannot run here")
    for name, here in given.backends_here.items():
        trained = facts.backends.get(name, here)
        if trained != here:
            other = STAND_IN in (trained, here)
            yield Finding(
                check=BACKEND,
                severity=Severity.P1 if other else Severity.P3,
                message=f"{name}: trained with {trained}, here {here} would run",
                where=name,
                file=str(facts.path),
                why=(
                    "a convolution is another function than the scan: the weights mean nothing in it"
                    if other
                    else "the same function, rounded differently: no bits can be compared"
                ),
                remedy=f"set the backend to {trained} where it can run" if other else "compare with a tolerance",
            )
