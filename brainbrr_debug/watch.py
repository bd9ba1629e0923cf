"""Watch: the gate that stands before the update, on every step of any training loop.

    with Watch(model, optimizer, "runs/first") as watch:
        for inputs, target in batches:
            watch.begin(inputs, target)
            optimizer.zero_grad()
            output = model(inputs)
            loss = loss_fn(output, target)
            loss.backward()
            if watch.check(loss, output):
                optimizer.step()

A step costs a sum over the output, the norm that clipping needs anyway, a hundredth of the state, and one read from
the device. When something is not finite the parameters in memory are still those of the step's start: that is the
moment in which the capture is written.

Of a model that torch.compile compiled, output, loss, gradients, parameters and optimizer state are seen as of any
other; what happens inside of a compiled region (outputs of its modules, its decompositions) is not.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from brainbrr_debug.checks import run as checks
from brainbrr_debug.environment import describe_environment
from brainbrr_debug.gate import Gate
from brainbrr_debug.judge import Judge, NonFiniteStep, Policy
from brainbrr_debug.lead import options
from brainbrr_debug.logbook import Logbook, Provenance
from brainbrr_debug.probes.panel import Looks, Panel
from brainbrr_debug.quarantine import Quarantine
from brainbrr_debug.ranks import Ranks
from brainbrr_debug.rng import RngState
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.scaling import ScalerPatience, find_scaler
from brainbrr_debug.snapshot import Batches, BufferCopies, Identities, StepStart
from brainbrr_debug.subject import Batch
from brainbrr_debug.trail import Trail
from brainbrr_debug.training_state import bare, named_parameters, parameter_count

__all__ = ["NonFiniteStep", "Policy", "Watch"]

COUNTED = (
    "steps",
    "incidents",
    "captures",
    "skipped",
    "quarantined",
    "unchecked",
    "damaged_checkpoints",
    "probe_crashes",
)
_NOTHING: Any = object()


class Watch:
    """Watches `model` and `optimizer`; a context manager and a `subject.Gate`.

    `run_dir` (a path or a RunDir) takes readings, findings and captures; without one nothing is written. `subject`
    ("package.module:attribute"), `config` (plain values) and `seed` go into captures, so that a replay can build the
    run again. `extra_state` names further objects with a state dict that a step depends on; a GradScaler among them
    (or `scaler`) may skip `scaler_patience` steps in a row. `eigengap` is the relative gap at or below which a
    differentiated decomposition is a finding; `sentinel` looks at every leaf module's output, too. Parameters and
    optimizer state are looked through once in `state_period` steps. Policy "skip" may drop `max_skipped` steps.

    `snapshot_every` copies model, optimizer and extra state to main memory every so many steps and keeps the batches
    since: a capture of damage that the optimizer's own step did then begins before it. 0 takes no snapshots.
    `quarantine` reads nothing before the update: a fused optimizer holds back a step that is not finite by itself (one
    whose gradient norm overflows float32 counts), and `end` or the next `begin` raises. Where `model` is a
    DistributedDataParallel, or a `process_group` is given, all its ranks decide together; each but the first writes
    into a folder of its own in `run_dir`.

    `every` takes statistics of every module, forward and backward, in the first step and each `every`-th after it;
    with `loss_fn` (output, target) → loss those steps also ask what zeros would have scored. `ranges` keeps the last so
    many minima and maxima of every leaf module, shown when something goes wrong. `learning_rate` says what the rate of
    a step should be; schedulers in `extra_state` are asked anyway. See `probes.panel.Looks`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        run_dir: RunDir | str | Path | None = None,
        *,
        policy: Policy = "stop",
        subject: str = "",
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
        environment: Mapping[str, Any] | None = None,
        extra_state: Mapping[str, Any] | None = None,
        scaler: torch.amp.GradScaler | None = None,
        scaler_patience: int = 8,
        eigengap: float = 1e-6,
        healthy_batches: int = 1,
        sentinel: bool = False,
        max_skipped: int = 10,
        state_period: int = 100,
        snapshot_every: int = 0,
        quarantine: bool = False,
        process_group: Any = None,
        every: int = 0,
        ranges: int = 0,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        learning_rate: Callable[[int], float] | None = None,
    ) -> None:
        self._model, self._optimizer, self._extra_state = bare(model), optimizer, dict(extra_state or {})
        if scaler is not None and scaler not in self._extra_state.values():
            self._extra_state.setdefault("scaler", scaler)
        self._parameters = named_parameters(self._model, optimizer)
        self._known = parameter_count(optimizer)
        looks = Looks(
            sentinel=sentinel,
            state_period=state_period,
            every=every,
            ranges=ranges,
            loss_fn=loss_fn,
            learning_rate=learning_rate,
            schedulers=tuple(self._extra_state.values()),
        )
        self._buffers = BufferCopies(self._model)
        self._panel = Panel(model, self._model, optimizer, self._parameters, looks, self._buffers.meant)
        device = next((p.device for p in self._parameters.values()), torch.device("cpu"))
        self._ranks = Ranks(model, process_group)
        around = {**describe_environment(device), **(environment or {})}
        self._log = Logbook(
            self._ranks.directory(run_dir),
            Provenance(subject=subject, seed=seed, config=dict(config or {}), environment=around),
        )
        scaling = ScalerPatience(find_scaler(self._extra_state), optimizer, scaler_patience)
        self._judge = Judge(
            policy=policy,
            max_skipped=max_skipped,
            eigengap=eigengap,
            healthy_batches=healthy_batches,
            scaling=scaling,
            log=self._log,
            trail=Trail(snapshot_every),
            ranks=self._ranks,
        )
        self._gate = Gate(
            model=self._model,
            optimizer=optimizer,
            parameters=self._parameters,
            extra_state=self._extra_state,
            buffers=self._buffers,
            panel=self._panel,
            judge=self._judge,
            quarantine=Quarantine(optimizer, policy=policy, scaled=scaling.active) if quarantine else None,
        )
        self._needs_options = quarantine or snapshot_every > 0
        self._start: StepStart | None = None
        self._decided = self._active = False
        self._next = 0

    # Context

    def __enter__(self) -> Self:
        self._log.begin()
        self._buffers.take()
        self._panel.attach(self._guard)
        self._ranks.attach(self._parameters, self._guard)
        self._active = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._gate.waiting and (error is None or isinstance(error, Exception)):
                self._gate.release(self._step())
            elif isinstance(error, Exception) and not isinstance(error, NonFiniteStep) and self._open():
                self._judge.died(error, self._gate.scene(self._step()), self._panel.read_forward())
        finally:
            self._gate.let_go()
            self._panel.detach()
            self._ranks.detach()
            self._judge.let_go()
            self._start, self._active = None, False
            self._log.close()

    @property
    def run_dir(self) -> RunDir | None:
        """Where things are written."""
        return self._log.run_dir

    @property
    def gradient_norm(self) -> Tensor:
        """Total norm of the last step's gradients before clipping, 0-d, on their device."""
        return self._judge.gradient_norm

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far: steps, incidents, captures, skipped steps, and what could not be seen."""
        seen = {
            "skipped_by_scaler": self._judge.scaling.skipped,
            "unseen_decompositions": self._panel.decompositions.unseen,
            "unseen_outputs": self._panel.unseen,
        }
        return {**{name: self._judge.counts[name] for name in COUNTED}, **seen}

    # The step

    def begin(
        self,
        batch: Any,
        target: Any = _NOTHING,
        *,
        step: int | None = None,
        identities: Identities | Callable[[], Identities] | None = None,
    ) -> None:
        """At the start of a step: its micro-batches [(inputs tuple, target), …], or the inputs and the target of one.

        Call it before the step draws a random number.

        `step` counts on from the last where it is not given. `identities` says for every sample of every micro-batch
        where it comes from; a function is called only when somebody asks.
        """
        if not self._active:
            raise RuntimeError("the watch is not active; expected begin inside of `with Watch(…) as watch:`")
        self.end()
        batches = [_as_batch(batch, target)] if target is not _NOTHING else list(batch)
        held = Batches(micro_batches=batches, identities=identities)
        step = self._next if step is None else step
        self._next = step + 1
        if parameter_count(self._optimizer) != self._known:  # a parameter group was added
            self._parameters.update(named_parameters(self._model, self._optimizer))
            self._known = parameter_count(self._optimizer)
            self._judge.trail.clear()
        self._panel.open(step, held)
        self._buffers.take()
        self._ranks.clear()
        groups = options(self._optimizer) if self._needs_options else []
        self._start = StepStart(step=step, rng=RngState.take(), batches=held, groups=groups)
        self._decided = self._gate.updated = False
        if not self._judge.trail.begin(self._gate.scene(self._start)):
            self._panel.see_state(step)

    def add(self, inputs: Any, target: Any) -> None:
        """One more micro-batch of the step, for loops that draw them one by one."""
        self._step().batches.add(_as_batch(inputs, target))

    def forward(self, output: Any, loss: Tensor) -> None:
        """After each micro-batch's forward pass: output before any sanitiser (None: what the hook saw) and loss."""
        self._panel.forward(output, loss, self._step().step)

    def check(self, loss: Tensor, output: Any = None) -> bool:
        """After the backward pass of a step with one micro-batch: True to go on with the update. See `gradients`."""
        self.forward(output, loss)
        return self.gradients()

    def gradients(self, norm: Tensor | None = None) -> bool:
        """Decide, before clipping and before the update: True to go on with it.

        `norm` is the total norm where the loop knows it. Raises NonFiniteStep under policy "stop", and under "skip"
        once more than `max_skipped` steps were dropped. The one synchronisation with the device is here; with
        `quarantine` it is in `end` (or the next `begin`), which then raises in place of this method.
        """
        start, self._decided = self._step(), True
        try:
            return self._gate.decide(start, norm)
        finally:
            if not self._gate.waiting:
                self._panel.close()

    def end(self) -> None:
        """After the update: let go of the step."""
        if self._gate.waiting:
            self._gate.release(self._step())
        if self._open():
            self._judge.counts["unchecked"] += 1
        if self._start is not None:
            self._judge.trail.end(self._start, updated=self._gate.updated)
        self._panel.close()
        self._start = None

    def checkpoint(self) -> None:
        """Before a checkpoint is written: look through all parameters, buffers and optimizer state at once.

        Raises NonFiniteStep under policies "stop" and "skip" when something is not finite, so that a checkpoint that
        can be resumed from is not overwritten by one that cannot; the others write the finding and go on.
        """
        if self._decided:
            self.end()
        between = Batches(micro_batches=[], identities=None)
        self._judge.check_state(
            self._gate.scene(StepStart(step=self._next - 1, rng=RngState.take(), batches=between, groups=[]))
        )

    # Inner matters

    def _open(self) -> bool:
        return self._start is not None and not self._decided

    def _step(self) -> StepStart:
        if self._start is None:
            raise RuntimeError("no step is open; expected begin before forward, check or gradients")
        return self._start

    def _guard(self, hook: Callable[..., None]) -> Callable[..., None]:
        """The hook, made unable to break the program: a crash becomes a finding, and it looks no longer."""
        crashed = False

        @functools.wraps(hook)
        def guarded(*args: Any, **kwargs: Any) -> None:
            nonlocal crashed
            if crashed:
                return
            try:
                hook(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  the seam between an observer and the program it observes
                crashed = True
                self._judge.counts["probe_crashes"] += 1
                self._log.finding(checks.crashed(hook.__qualname__, error, traceback.format_exc()), limit=None)

        return guarded


def _as_batch(inputs: Any, target: Any) -> Batch:
    return (inputs if isinstance(inputs, tuple) else (inputs,)), target
