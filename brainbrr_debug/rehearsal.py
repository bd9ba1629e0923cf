"""A rehearsal: the model as it would be trained, for a few watched steps and through hostile inputs, in seconds.

Everything a check wants to know of a model shows in the readings of the same Watch that training has, and in the
observations that a trial makes. Nothing is kept: every ordeal begins with a run built anew.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from brainbrr_debug.facts import Derived, Differentiated, Idle, Kernel, Ordeal, RehearsalFacts
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import harm
from brainbrr_debug.records import Outcome, Reading
from brainbrr_debug.rerun import watched_step
from brainbrr_debug.rng import preserved
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.subject import Batch, Gate, Run, Step, step_of
from brainbrr_debug.tensors import leaves
from brainbrr_debug.watch import Watch

STEPS = 3
SATURATION = 10.0
"""In units of the batch's own standard deviation."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is rehearsed: `build` makes a fresh run in a precision ("float32" or that of its autocast).

    `batches`: small ones, at least one, of at least two samples. `kernels`: what was asked for and what runs.
    """

    build: Callable[[str], Run]
    batches: Sequence[Batch]
    precisions: tuple[str, ...] = ("float32",)
    kernels: tuple[Kernel, ...] = ()


def rehearse(setting: Callable[[], Stage]) -> RehearsalFacts:
    """Train for `STEPS` steps, then every ordeal. Global random generators are left as they were."""
    with preserved(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stage = setting()
        readings, idle, derived = _trained(stage)
        ordeals, differentiated = _ordeals(stage)
    said = tuple(dict.fromkeys(str(each.message) for each in caught))
    rms = [float(x.detach().double().square().mean().sqrt()) for x in _floats(stage.batches[0][0])]
    return RehearsalFacts(
        readings=tuple(readings),
        input_rms=max(rms, default=1.0),
        idle=tuple(idle),
        derived=tuple(derived),
        differentiated=differentiated,
        ordeals=ordeals,
        kernels=stage.kernels,
        warnings=said,
    )


def _trained(stage: Stage) -> tuple[list[Reading], list[Idle], list[Derived]]:
    run = stage.build("float32")
    derived = list(_derived(run, stage.batches[0]))
    step = step_of(run)
    idle = {name: True for name, p in run.model.named_parameters() if p.requires_grad}  # none has moved yet
    reached = dict.fromkeys(idle, False)
    with (
        tempfile.TemporaryDirectory() as folder,
        Watch(
            run.model,
            run.optimizer,
            folder,
            policy="record",
            every=1,
            loss_fn=run.loss_fn,
            extra_state=run.extra_state,
        ) as watch,
    ):
        for number in range(STEPS):
            batch = stage.batches[number % len(stage.batches)]
            watch.begin([batch], step=number)
            step([batch], watch)
            watch.end()
            for name, p in run.model.named_parameters():
                if p.grad is not None and name in idle:
                    reached[name] = True
                    idle[name] &= not bool(torch.count_nonzero(p.grad))
        readings = list(RunDir.at(folder).readings().items)
    sizes = {name: p.numel() for name, p in run.model.named_parameters()}
    unused = [Idle(name=name, elements=sizes[name], reached=reached[name]) for name, still in idle.items() if still]
    return readings, unused, derived


def _derived(run: Run, batch: Batch) -> Iterator[Derived]:
    """Weights that are computed from others before each forward pass, and were something else before the first."""
    before = {
        (name, attribute): value.detach().clone()
        for name, module in run.model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor) and f"{attribute}_g" in module._parameters
    }
    if not before:
        return
    modules = dict(run.model.named_modules())
    with torch.no_grad(), preserved():
        run.model(*batch[0])
    for (name, attribute), value in before.items():
        now = getattr(modules[name], attribute).detach()
        if not torch.allclose(now, value, rtol=1e-4, atol=1e-6):
            change = float((now - value).norm() / value.norm().clamp_min(1e-30))
            yield Derived(name=f"{name}.{attribute}" if name else attribute, change=change)


class _NoUpdate:
    """Passes everything on to a gate, and ends the step before its update."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def forward(self, output: object, loss: Tensor) -> None:
        """Pass it on."""
        self._gate.forward(output, loss)

    def gradients(self, norm: Tensor | None = None) -> bool:
        """Pass it on; no update."""
        self._gate.gradients(norm)
        return False


def _ordeals(stage: Stage) -> tuple[tuple[Ordeal, ...], tuple[Differentiated, ...]]:
    ordeals, seen = [], list[Observation]()
    for precision in stage.precisions:
        for name, make in INPUTS.items():
            run = stage.build(precision)
            inputs, target = stage.batches[0]
            batch = (tree_map(lambda x, make=make: make(x) if _is_signal(x) else x, inputs), target)
            step = step_of(run)

            def play(gate: Gate, step: Step = step, batch: Batch = batch) -> None:
                step([batch], _NoUpdate(gate))

            observation = watched_step(run, [batch], play)
            judgement = harm(observation, outputs=True)
            seen.append(observation)
            ordeals.append(
                Ordeal(
                    input=name,
                    precision=precision,
                    failed=judgement.reason if judgement.outcome is Outcome.BAD else None,
                )
            )
    through = {(d.op, d.site, d.location) for o in seen for d in o.decompositions if d.differentiated}
    return tuple(ordeals), tuple(Differentiated(op=o, site=s, location=x) for o, s, x in sorted(through))


def _as_given(x: Tensor) -> Tensor:
    return x


def _constant(x: Tensor) -> Tensor:
    return torch.full_like(x, float(x.double().std()))


def _identical(x: Tensor) -> Tensor:
    """All channels (the second axis) hold the first one."""
    return x[:, :1].expand_as(x).clone() if x.dim() > 2 else x[..., :1].expand_as(x).clone()


def _saturated(x: Tensor) -> Tensor:
    return torch.sign(x) * (SATURATION * float(x.double().std()))


def _impulse(x: Tensor) -> Tensor:
    still = torch.zeros_like(x)
    still.view(len(x), -1)[:, x[0].numel() // 2] = SATURATION * float(x.double().std())
    return still


INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "an ordinary batch": _as_given,
    "zeros": torch.zeros_like,
    "a constant": _constant,
    "identical channels": _identical,
    "saturated samples": _saturated,
    "an impulse": _impulse,
}


def _is_signal(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 1


def _floats(tree: object) -> list[Tensor]:
    return [x for x in leaves(tree) if x.is_floating_point()]


def stage_of(build: Callable[[], Run]) -> Stage:
    """The stage of any subject: its own first two batches, in float32."""
    run = build()
    batches = [batch for batch, _ in zip(run.batches, range(2), strict=False)]
    return Stage(build=lambda precision: build(), batches=batches)
