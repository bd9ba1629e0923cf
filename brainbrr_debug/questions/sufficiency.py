"""Does the component fail by itself? Its recorded input and upstream gradient, run through it alone.

Recorded in a repeat of the captured step, then played to a copy of the module's start state in a run of its own: what
still fails cannot have come from anywhere else.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.oracle import TIE
from brainbrr_debug.probes.decompositions import Decompositions
from brainbrr_debug.probes.ledger import Ledger
from brainbrr_debug.quantities import LOSS_SITE, OPTIMIZER_SITE
from brainbrr_debug.records import from_json, to_json
from brainbrr_debug.statistics import finiteness
from brainbrr_debug.subject import Run, Subject, step_of
from brainbrr_debug.tensors import copied
from brainbrr_debug.trial import Trial, caused_by_nonfinite, prepare
from brainbrr_debug.trials import Skipped, Trials

DATA = ("<input>", "<target>")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Whether the component failed by itself, and what was seen. `fails` is None where it could not be tried."""

    fails: bool | None
    reason: str


@dataclasses.dataclass(slots=True, eq=False)
class _Call:
    """One forward call: its arguments, its autocast dtype, and by place the gradients that came back to its outputs."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    device: str
    autocast: torch.dtype | None
    upstream: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlayAlone:
    """A job: record the component in the captured step, then run it alone; its value is an Alone."""

    component: str
    threshold: float

    def __call__(self, content: CaptureContent, subject: Subject) -> Any:
        """Judged by harm and by the gap."""
        return to_json(self._play(content, subject))

    def _play(self, content: CaptureContent, subject: Subject) -> Alone:
        component = self.component
        run, batches, _ = prepare(content, subject, Trial())
        if component == LOSS_SITE:
            return _loss_alone(run, batches)
        if component == OPTIMIZER_SITE:
            return _optimizer_alone(run, batches)
        if component in DATA:
            return _data_alone(batches, component)
        modules = dict(run.model.named_modules())
        if component not in modules:
            return Alone(fails=None, reason=f"{component} is no module of the model")
        calls: list[_Call] = []
        with _recording(modules[component], calls):
            _quietly(run, batches)
        if not calls:
            return Alone(fails=None, reason=f"{component} was not called")
        fresh, _, _ = prepare(content, subject, Trial())
        module = dict(fresh.model.named_modules())[component]
        return _first_failure([_play(module, call, self.threshold) for call in calls])


def fails_alone(trials: Trials, component: str, *, threshold: float = TIE) -> Alone:
    """Whether the component fails by itself."""
    try:
        return from_json(Alone, trials.run("alone", PlayAlone(component=component, threshold=threshold)))
    except Skipped as reason:
        return Alone(fails=None, reason=str(reason))


def _first_failure(outcomes: list[Alone]) -> Alone:
    return next((o for o in outcomes if o.fails), outcomes[0])


class _NoUpdate:
    """A gate that ends the step before its update."""

    def __init__(self) -> None:
        self.outputs: list[Any] = []

    def forward(self, output: Any, loss: torch.Tensor) -> None:
        """Keep the output."""
        self.outputs.append(copied(output))

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """No update."""
        return False


def _quietly(run: Run, batches: Any) -> _NoUpdate:
    """Do the step; an exception that a non-finite value caused ends it."""
    gate = _NoUpdate()
    step = step_of(run)
    try:
        step(batches, gate)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        if not caused_by_nonfinite(error):
            raise
    return gate


@contextlib.contextmanager
def _recording(module: torch.nn.Module, calls: list[_Call]) -> Iterator[None]:
    """While inside, every call of `module` is recorded with the gradients that come back."""

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        device = next((x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)), "cpu")
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        calls.append(_Call(args=copied(args), kwargs=copied(kwargs), device=device, autocast=autocast))

    def after(_: Any, args: Any, output: Any) -> None:
        call = calls[-1]
        for place, x in enumerate(tree_leaves(output)):
            if isinstance(x, torch.Tensor) and x.requires_grad:
                x.register_hook(_keeping(call, place))  # type: ignore[no-untyped-call]

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keeping(call: _Call, place: int) -> Any:
    def keep(gradient: torch.Tensor) -> None:
        call.upstream[place] = gradient.detach().clone()

    return keep


def _play(module: torch.nn.Module, call: _Call, threshold: float) -> Alone:
    given = [x for x in tree_leaves((call.args, call.kwargs)) if isinstance(x, torch.Tensor)]
    if not all(finiteness(x).finite for x in given):
        return Alone(fails=False, reason="its input was not finite already")
    seen = Decompositions(Ledger(), {})
    seen.attach(lambda function: function)
    seen.step = 0
    try:
        return _judge(module, call, seen, threshold)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        if not caused_by_nonfinite(error):
            return Alone(fails=None, reason=f"it does not run alone: {' '.join(str(error).split())[:120]}")
        return Alone(fails=True, reason=f"{type(error).__name__} by itself")
    finally:
        seen.detach()


def _judge(module: torch.nn.Module, call: _Call, seen: Decompositions, threshold: float) -> Alone:
    leaves = _as_leaves((call.args, call.kwargs))
    # A leaf must not be written in place, and a module may do so with its input: it gets a clone.
    args, kwargs = tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, leaves)
    with torch.autocast(call.device, dtype=call.autocast, enabled=call.autocast is not None):
        outputs = tree_leaves(module(*args, **kwargs))
    found = [finiteness(x) for x in outputs if isinstance(x, torch.Tensor)]
    nan, inf = sum(f.nan for f in found), sum(f.inf for f in found)
    spoiled = not all(finiteness(x).finite for x in call.upstream.values())
    # An infinity that was masked further on did no harm; the gradient that came back tells, where one does: in front of
    # the first parameter none is asked for.
    if nan or (inf and (spoiled or not call.upstream)):
        return Alone(fails=True, reason=f"{nan + inf} of its outputs are not finite by itself")
    if spoiled:
        return Alone(fails=False, reason="the gradient that came to it was not finite already")
    pairs = [(outputs[place], gradient) for place, gradient in call.upstream.items() if outputs[place].requires_grad]
    if pairs:
        torch.autograd.backward([x for x, _ in pairs], [gradient for _, gradient in pairs])
    inputs = [x for x in tree_leaves(leaves) if isinstance(x, torch.Tensor)]
    gradients = [x.grad for x in (*inputs, *module.parameters()) if x.grad is not None]
    bad = sum(not finiteness(x).finite for x in gradients)
    if bad:
        return Alone(fails=True, reason=f"{bad} of {len(gradients)} gradients are not finite by itself")
    gaps = [float(g.min()) for c in seen.calls if c.differentiated and (g := _exact(c)).numel()]
    if gaps and min(gaps) <= threshold:
        return Alone(fails=True, reason=f"relative gap {min(gaps):.1e} by itself, gradients finite this time")
    return Alone(fails=False, reason="finite by itself")


def _exact(call: Any) -> torch.Tensor:
    exact = call.exact_gaps(torch.arange(call.gaps.numel())) if call.gaps.numel() else None
    gaps: torch.Tensor = call.gaps if exact is None else exact
    return gaps


def _as_leaves(tree: Any) -> Any:
    return tree_map(
        lambda x: x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x, tree
    )


def _optimizer_alone(run: Run, batches: Any) -> Alone:
    """The recorded gradients and the state, through the update alone."""
    _quietly(run, batches)
    named = list(run.model.named_parameters())
    if not all(finiteness(p.grad).finite for _, p in named if p.grad is not None):
        return Alone(fails=False, reason="the gradients that came to it were not finite already")
    run.optimizer.step()
    bad = [name for name, p in named if not finiteness(p).finite]
    if bad:
        return Alone(fails=True, reason=f"{len(bad)} of {len(named)} parameters are not finite after the update alone")
    return Alone(fails=False, reason="finite by itself")


def _data_alone(batches: Any, component: str) -> Alone:
    given = [leaf for inputs, target in batches for leaf in tree_leaves(inputs if component == DATA[0] else target)]
    bad = sum(not finiteness(x).finite for x in given if isinstance(x, torch.Tensor))
    return Alone(fails=bool(bad), reason="not finite as it came" if bad else "finite as it came")


def _loss_alone(run: Run, batches: Any) -> Alone:
    """The recorded output and the target through the loss function alone."""
    outputs = _quietly(run, batches).outputs
    for output, (_, target) in zip(outputs, batches, strict=False):
        leaf = _as_leaves(output)
        given = [x for x in tree_leaves(leaf) if isinstance(x, torch.Tensor)]
        if not all(finiteness(x).finite for x in given):
            return Alone(fails=False, reason="the output it was given was not finite already")
        loss = run.loss_fn(leaf, target)
        if not finiteness(loss).finite:
            return Alone(fails=True, reason=f"the loss is {float(loss.detach())} by itself")
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        if any(x.grad is not None and not finiteness(x.grad).finite for x in given):
            return Alone(fails=True, reason="the gradient of the loss is not finite by itself")
    return Alone(fails=False, reason="finite by itself") if outputs else Alone(fails=None, reason="no output was seen")
