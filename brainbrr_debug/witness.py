"""One training under watch, step by step, with everything a certificate asks about."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from brainbrr_debug.baseline import Baseline
from brainbrr_debug.probes.alterations import Alteration, Alterations
from brainbrr_debug.probes.gradients import Expected, schedule
from brainbrr_debug.questions.culprits import ask_subject
from brainbrr_debug.recipe import Recipe
from brainbrr_debug.rng import preserved
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.samples import batch_size
from brainbrr_debug.scaling import find_scaler
from brainbrr_debug.snapshot import Identities
from brainbrr_debug.subject import Batch, Run, grouped, set_rates, step_of
from brainbrr_debug.tensors import copied
from brainbrr_debug.watch import Watch

SAMPLED = 50
"""Every so many steps the watch takes statistics of every module."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`recipe` for `steps`, written into `run_dir` (None: nowhere)."""

    recipe: Recipe
    steps: int
    run_dir: RunDir | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step showed: the rates of its update and what they should have been (both empty without an update, the
    latter also where no schedule is known), whether the gate was asked, whether the optimizer updated, whether the loss
    scaler discarded the update, and what sanitisers altered."""

    number: int
    loss: float
    rates: tuple[float, ...]
    expected: tuple[float, ...]
    asked: bool
    updated: bool
    discarded: bool
    altered: tuple[Alteration, ...]


class Witness:
    """A training as planned; `steps` runs it. Raises NonFiniteStep as the watch does, under policy "stop".

    `losses` are those of its steps, `late` keeps what the last `compared` of them were scored on. `passes` counts those
    over the batches, `inputs` are those of the first step and of the last.
    """

    def __init__(self, plan: Plan, *, compared: int) -> None:
        self.plan = plan
        self.run: Run = plan.recipe.build()
        self.late = Baseline(self.run.loss_fn, compared * self.run.accumulate)
        self.losses: list[float] = []
        self.passes = 0
        self.inputs: list[tuple[Any, ...]] = []
        self.growth_interval: int | None = None
        scaler = find_scaler(self.run.extra_state)
        if scaler is not None:
            self.growth_interval = scaler.get_growth_interval()
        self.compared = compared
        self._alterations = Alterations(self.run.model)
        self._expected = _expected(self.run, plan.steps)
        self._number = self._updates = 0
        self._rates: tuple[float, ...] = ()
        self._wanted: tuple[float, ...] = ()

    def steps(self) -> Iterator[Step]:
        """Each step once it is done, up to the last of the plan."""
        plan, run, recipe = self.plan, self.run, self.plan.recipe
        watch = Watch(
            run.model,
            run.optimizer,
            plan.run_dir,
            subject=recipe.repeated_as,
            config=recipe.config,
            seed=recipe.seed,
            extra_state=run.extra_state,
            loss_fn=run.loss_fn,
            every=SAMPLED,
        )
        hook = run.optimizer.register_step_post_hook(self._see_update)
        with contextlib.ExitStack() as stack:
            stack.callback(hook.remove)
            stack.enter_context(watch)
            for number, (place, batches) in zip(range(plan.steps), self._batches(), strict=False):
                set_rates(run, number, plan.steps)
                named = None if place is None else self._identities(place, batches)
                watch.begin(batches, step=number, identities=named)
                yield self._step(number, batches, watch)
            watch.checkpoint()

    def _step(self, number: int, batches: tuple[Batch, ...], watch: Watch) -> Step:
        if not self.inputs or number == self.plan.steps - 1:
            self.inputs.append(copied(batches[0][0]))
        self._number, self._rates, self._wanted = number, (), ()
        updates, counters = self._updates, watch.counters
        gate = _Relay(watch, lambda output, target: self._score(number, output, target), [b[1] for b in batches])
        with self._alterations.watching():
            step_of(self.run)(batches, gate)
        watch.end()
        discarded = watch.counters["skipped_by_scaler"] > counters["skipped_by_scaler"]
        self.losses.append(sum(map(float, gate.losses)) / len(gate.losses) if gate.losses else math.nan)
        return Step(
            number=number,
            loss=self.losses[-1],
            rates=self._rates,
            expected=self._wanted,
            asked=watch.counters["unchecked"] == counters["unchecked"],
            updated=self._updates > updates and not discarded,
            discarded=discarded,
            altered=self._alterations.read(),
        )

    def _score(self, number: int, output: Any, target: Any) -> None:
        if number >= self.plan.steps - self.compared:
            with self._alterations.unseen():
                self.late.see(output, target)

    def _see_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._updates += 1
        self._rates = tuple(float(group["lr"]) for group in optimizer.param_groups if "lr" in group)
        if self._expected is not None:
            self._wanted = tuple(map(float, self._expected(self._number)))

    def _batches(self) -> Iterator[tuple[int | None, tuple[Batch, ...]]]:
        """The micro-batches of each step with their place in the first pass (None: in a later one).

        When they end they begin anew: with the same object where it can be iterated again, else with that of a new run.
        """
        source, new = self.run, True
        while True:
            place = None
            for place, batches in enumerate(grouped(source)):
                self.passes += place == 0
                yield (place if self.passes == 1 else None), batches
            if place is None and new:
                return
            new = place is None
            if new:
                with preserved():
                    source = self.plan.recipe.build()

    def _identities(self, place: int, batches: tuple[Batch, ...]) -> Callable[[], Identities]:
        first = place * len(batches)
        return lambda: [
            [ask_subject(self.plan.recipe.subject, first + index, sample) for sample in range(batch_size(batch) or 0)]
            for index, batch in enumerate(batches)
        ]


class _Relay:
    """The gate in front of the watch's: it passes everything on, shows outputs to `score`, and keeps the losses."""

    def __init__(self, watch: Watch, score: Callable[[Any, Any], None], targets: Sequence[Any]) -> None:
        self._watch, self._score, self._targets = watch, score, targets
        self.losses: list[torch.Tensor] = []

    def forward(self, output: Any, loss: torch.Tensor) -> None:
        """A micro-batch's output and loss."""
        self._watch.forward(output, loss)
        if len(self.losses) < len(self._targets):
            self._score(output, self._targets[len(self.losses)])
        self.losses.append(loss.detach())

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """What the watch decides."""
        return self._watch.gradients(norm)


def _expected(run: Run, steps: int) -> Expected | None:
    """What the rates of each step should be, None where nobody says."""
    planned = run.schedule
    if planned is None:
        return schedule(run.optimizer, None, run.extra_state.values())
    initial = [group["lr"] for group in run.optimizer.param_groups]
    return lambda step: [rate * planned(step, steps) for rate in initial]
