"""The thing under test: a Subject builds model, optimizer, loss and batches, and lists its switches.

Named on a command line as `package.module:attribute`, so that any PyTorch program can be one.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

Batch = tuple[tuple[Any, ...], Any]  # (inputs of the model, target of the loss)


class Gate(Protocol):
    """What a training step tells its observer; Watch is one, a Trial's recorder another."""

    def forward(self, output: Any, loss: torch.Tensor) -> None:
        """After the forward pass of each micro-batch: the model's output before any sanitiser, and its loss."""

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """Before gradients are clipped or sanitised and before `optimizer.step()`: True to go on with the update.

        `norm` is the total norm of the gradients where the step knows it already (it clips), so that nobody computes
        it twice.
        """


class Step(Protocol):
    """One optimizer step over its micro-batches, exactly as the training loop does it."""

    def __call__(self, micro_batches: Sequence[Batch], gate: Gate) -> None:
        """Zero the gradients, run forward and backward of each micro-batch, ask the gate, clip, update."""


Schedule = Callable[[int, int | None], float]
"""(step, steps of the run or None for as many as the program itself makes) → the factor of every initial rate."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What a Subject builds. `batches` is lazy: a Trial of a capture never draws from it.

    `step` is the program's own training step; None means the plain one of `plain_step`. `extra_state` holds further
    objects with `state_dict` and `load_state_dict` that a step reads or changes (a GradScaler, a scheduler).
    `accumulate` batches make one step. `schedule` is that of the rates, where the program sets them outside the step.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: Callable[[Any, Any], torch.Tensor]
    batches: Iterable[Batch]
    step: Step | None = None
    extra_state: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    accumulate: int = 1
    schedule: Schedule | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One thing that can be turned: its `values`, the `safe` one, and why it does not apply (None: it does).

    `keeps_weights` says that the captured weights stay meaningful under the switch (otherwise a trial starts afresh
    from the run's seed). `component` is the qualified module name it stands for, if it stands for one. `hides` says
    that the switch alters values instead of computing them differently: such a switch is never a repair.
    """

    values: tuple[Any, ...]
    safe: Any
    applies: str | None = None
    keeps_weights: bool = True
    component: str | None = None
    hides: bool = False
    description: str = ""


@runtime_checkable
class Subject(Protocol):
    """Builds runs; see the module's docstring."""

    def build(self, seed: int, switches: Mapping[str, object]) -> Run:
        """A fresh run with every RNG seeded by `seed` and the given switches turned."""

    def switches(self) -> Mapping[str, Switch]:
        """All switches by name; those that do not apply say why."""

    def identify(self, batch_index: int, sample_index: int) -> dict[str, Any]:
        """Where a sample comes from, e.g. {"recording": …, "start_s": …, "stop_s": …}."""


class SubjectError(ValueError):
    """A subject that cannot be loaded: what was given, what was expected."""


def load_subject(name: str) -> Subject:
    """The Subject named `package.module:attribute`; a class or function is called without arguments.

    Raises SubjectError when the name has another form, the module or attribute is missing, or what is found there
    has no `build` and `switches`.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise SubjectError(f"subject is {name!r}; expected package.module:attribute")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise SubjectError(
            f"subject {name!r}: {error}; is the package installed or its folder on PYTHONPATH?"
        ) from error
    except AttributeError as error:
        raise SubjectError(f"subject {name!r}: module {module_name} has no attribute {attribute}") from error
    if isinstance(found, type) or not isinstance(found, Subject):
        found = found() if callable(found) else found
    if not isinstance(found, Subject):
        raise SubjectError(f"subject {name!r} is a {type(found).__name__}; expected build, switches and identify")
    return found


def set_rates(run: Run, step: int, steps: int | None = None) -> None:
    """Before `step` of a run from its seed: every group's rate as the schedule says; without one as it is.

    A group's initial rate is kept in it as `initial_lr`, where torch's own schedulers keep it.
    """
    if run.schedule is None:
        return
    factor = run.schedule(step, steps)
    for group in run.optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def grouped(run: Run) -> Iterator[tuple[Batch, ...]]:
    """The micro-batches of each step, drawn when they are asked for."""
    batches = iter(run.batches)
    while group := tuple(itertools.islice(batches, run.accumulate)):
        yield group


def step_of(run: Run) -> Step:
    """The program's own step, or the plain one."""
    return run.step if run.step is not None else plain_step(run)


def plain_step(run: Run) -> Step:
    """The step of a program without one of its own: mean loss over the micro-batches, one update."""

    def step(micro_batches: Sequence[Batch], gate: Gate) -> None:
        run.optimizer.zero_grad(set_to_none=True)
        for inputs, target in micro_batches:
            output = run.model(*inputs)
            loss = run.loss_fn(output, target)
            gate.forward(output, loss)
            (loss / len(micro_batches)).backward()  # type: ignore[no-untyped-call]
        if gate.gradients():
            run.optimizer.step()

    return step
