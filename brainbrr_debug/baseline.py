"""The strongest constant predictor: what one output for every sample would have scored on the same batches."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from brainbrr_debug.rng import RngState, preserved
from brainbrr_debug.tensors import copied

LARGEST = 1 << 18
"""An output of more elements a sample gets one constant in all, not one for each of its places."""
EVALUATIONS = 60


@dataclasses.dataclass(frozen=True, slots=True)
class _Scored:
    """One micro-batch: the output, leaf by leaf (those that are replaced: their shape, dtype and mean), and target."""

    leaves: list[Any]
    spec: Any
    target: Any
    loss: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """A floating leaf of an output, of which only the mean over samples is kept."""

    samples: int
    mean: Tensor  # shape (1, …)


class Baseline:
    """Keeps what the last `last` micro-batches were scored on. `loss_fn` maps (output, target) to a loss."""

    def __init__(self, loss_fn: Callable[[Any, Any], Tensor], last: int) -> None:
        self._loss_fn = loss_fn
        self._kept: collections.deque[_Scored] = collections.deque(maxlen=last)
        self._generators = RngState.take()

    @torch.no_grad()
    def see(self, output: Any, target: Any) -> None:
        """Take one micro-batch's output, as the model gave it, and its target."""
        found, spec = tree_flatten(output)
        target = copied(target)
        with preserved():
            loss = float(self._loss_fn(output, target).detach().float().mean())
        leaves = [_Place(len(x), _mean(x)) if _replaced(x) else copied(x) for x in found]
        self._kept.append(_Scored(leaves, spec, target, loss))

    def losses(self) -> list[float]:
        """What the model scored, in the order seen."""
        return [scored.loss for scored in self._kept]

    def constant_losses(self) -> list[float] | None:
        """What the one constant with the smallest mean loss over all of them scored, in the same order.

        It is found in hindsight, on these very batches, from the mean of the model's outputs and from zero: no constant
        that was to be known beforehand does better. None where no part of the output can be replaced, or the loss does
        not depend on what can.
        """
        start = self._start()
        if start is None:
            return None
        with preserved(), torch.enable_grad():
            self._generators = RngState.take()
            best = min((self._descend(x) for x in (start, [torch.zeros_like(x) for x in start])), key=lambda x: x[0])
            if best[1] is None:
                return None
            with torch.no_grad():
                return [float(loss) for loss in self._scores(best[1])]

    def _start(self) -> list[Tensor] | None:
        rows = [[x.mean for x in scored.leaves if isinstance(x, _Place)] for scored in self._kept]
        if not rows or not rows[0]:
            return None
        found = []
        for column in zip(*rows, strict=True):
            alike = len({x.shape for x in column}) == 1 and column[0].numel() <= LARGEST
            mean = torch.stack([x if alike else x.mean() for x in column]).mean(0)
            found.append(torch.nan_to_num(mean.detach().clone(), nan=0.0, posinf=0.0, neginf=0.0))
        return found

    def _scores(self, constants: Sequence[Tensor]) -> list[Tensor]:
        losses = []
        self._generators.restore()  # a loss that draws numbers is one function of the constants
        for scored in self._kept:
            values = iter(constants)
            leaves = [_filled(x, next(values)) if isinstance(x, _Place) else x for x in scored.leaves]
            losses.append(self._loss_fn(tree_unflatten(leaves, scored.spec), scored.target).float().mean())
        return losses

    def _descend(self, start: Sequence[Tensor]) -> tuple[float, list[Tensor] | None]:
        """The smallest mean loss met on the way down from `start`, and where; None where it does not depend on it."""
        constants = [x.clone().requires_grad_() for x in start]
        best: tuple[float, list[Tensor] | None] = (float("inf"), None)
        optimizer = torch.optim.LBFGS(
            constants, max_iter=EVALUATIONS, max_eval=EVALUATIONS, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            nonlocal best
            optimizer.zero_grad()
            loss = torch.stack(self._scores(constants)).mean()
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            if any(x.grad is not None for x in constants) and float(loss.detach()) < best[0]:
                best = float(loss.detach()), [x.detach().clone() for x in constants]
            return loss

        with contextlib.suppress(IndexError, RuntimeError):  # so torch's line search gives up on a loss with holes
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        return best


def _replaced(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) > 0 and x.is_floating_point()


def _mean(x: Tensor) -> Tensor:
    return x.detach().mean(0, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))


def _filled(place: _Place, value: Tensor) -> Tensor:
    return value.expand(place.samples, *place.mean.shape[1:]).clone()
