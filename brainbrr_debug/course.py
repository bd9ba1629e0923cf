"""The course of a run: from its seed, step by step, up to a step that may do harm, with one thing about it changed.

A trial repeats one captured step; what a step inherits from those before it takes a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.oracle import Harm, Indicator
from brainbrr_debug.records import Outcome
from brainbrr_debug.rerun import watched_step
from brainbrr_debug.subject import Batch, Run, Subject, grouped, set_rates, step_of
from brainbrr_debug.tensors import copied
from brainbrr_debug.trial import moved


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The run from its seed up to and including step `until`; the defaults repeat it as it was.

    `oracle` judges the step that has the captured batch, and the captured step; the others by harm alone. `seed`: other
    weights and random numbers, the batches remain those of the run. `moved`: step `moved` gets the captured batch.
    `other_batch`: the captured step gets a healthy one, else the one that comes next. `reordered`: the first batch
    comes last of those before the captured step. `frozen`: updates before the captured step leave the parameters as
    they are, as a learning rate of zero does. No learning rate goes above `most`, `share` multiplies them.
    """

    until: int
    oracle: Harm | Indicator
    seed: int | None = None
    moved: int | None = None
    other_batch: bool = False
    reordered: bool = False
    frozen: bool = False
    most: float | None = None
    share: float = 1.0

    @property
    def told(self) -> str:
        """What it is, in a line of trials."""
        changed = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.default is not dataclasses.MISSING and getattr(self, field.name) != field.default
        ]
        return f"run from the seed to step {self.until}: {', '.join(changed) or 'as it was'}"

    def __call__(self, content: CaptureContent, subject: Subject) -> dict[str, Any]:
        """Run it: the first step that `failed` (None: none did), the `reason`, `steps` done, `rates` of the updates.

        `exact` says whether the run came to the captured step with the bits of the captured weights; None where it did
        not come there.
        """
        source = subject.build(content.seed, {})
        run = source if self.seed is None else subject.build(self.seed, {})
        rates: list[float] = []
        answer: dict[str, Any] = {"failed": None, "reason": "", "steps": 0, "rates": rates, "exact": None}
        step = step_of(run)
        for number, batches in self._steps(source, content):
            if number == content.step:
                answer["exact"] = _same(run, content)
            set_rates(run, number)
            with _updates(self, run, rates, frozen=self.frozen and number < content.step):
                seen = watched_step(run, batches, lambda gate, batches=batches: step(batches, gate))  # type: ignore[misc]
            told = self._oracle(number, content)(seen)
            answer |= {"steps": number + 1, "reason": told.reason}
            if told.outcome is Outcome.BAD:
                return {**answer, "failed": number}
        return answer

    def _oracle(self, number: int, content: CaptureContent) -> Harm | Indicator:
        if number in (content.step, self.moved) or not isinstance(self.oracle, Indicator):
            return self.oracle
        return self.oracle.harm

    def _steps(self, source: Run, content: CaptureContent) -> Iterator[tuple[int, tuple[Batch, ...]]]:
        """Every step with its micro-batches; batches are drawn when they are needed, as the run draws them."""
        device = next((p.device for p in source.model.parameters()), torch.device("cpu"))
        drawn = grouped(source)
        first = copied(next(drawn, ())) if self.reordered else None
        for number in range(self.until + 1):
            if first is not None and number == max(content.step - 1, 0):
                group: tuple[Batch, ...] = first
            else:
                group = next(drawn, ())
            if number == content.step and self.other_batch:
                healthy = (content.healthy_micro_batches or ())[: len(content.micro_batches)]
                group = copied(healthy) or next(drawn, ())
            if number == self.moved:
                group = copied(content.micro_batches)
            if not group:
                return
            yield number, moved(group, device)


@contextlib.contextmanager
def _updates(course: Course, run: Run, rates: list[float], *, frozen: bool) -> Iterator[None]:
    """Around one step: its update with the rates that the course asks for, noted in `rates`.

    The rates are changed for the update alone, so that whatever writes the schedule never meets them.
    """
    kept: list[Any] = []
    parameters: list[torch.Tensor] = []

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        kept[:] = [group.get("lr") for group in optimizer.param_groups]
        parameters[:] = [p.detach().clone() for p in run.model.parameters()] if frozen else []
        for group, rate in zip(optimizer.param_groups, kept, strict=True):
            if rate is not None:
                group["lr"] = rate * course.share if course.share != 1 else rate
                if course.most is not None and not rate <= course.most:
                    group["lr"] = course.most
        rates.append(max((float(rate) for rate in kept if rate is not None), default=0.0))

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, kept, strict=True):
            if rate is not None:
                group["lr"] = rate
        with torch.no_grad():
            for parameter, old in zip(run.model.parameters(), parameters, strict=False):
                parameter.copy_(old)

    handles = [run.optimizer.register_step_pre_hook(before), run.optimizer.register_step_post_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _same(run: Run, content: CaptureContent) -> bool:
    own = run.model.state_dict()
    return all(
        name in own and torch.equal(own[name].cpu(), x)
        for name, x in content.model_state.items()
        if isinstance(x, torch.Tensor)
    )
