"""The gate of a Trial: records what a step shows and lets everything pass."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch

from brainbrr_debug.fingerprint import fingerprint
from brainbrr_debug.jumps import largest_jump, magnitudes
from brainbrr_debug.observation import Decomposition, Observation
from brainbrr_debug.probes.decompositions import Call, Decompositions
from brainbrr_debug.probes.ledger import Ledger
from brainbrr_debug.quantities import ROOT_SITE
from brainbrr_debug.spectral import sample_of
from brainbrr_debug.statistics import exact_norm, finiteness, total_norm
from brainbrr_debug.subject import Run
from brainbrr_debug.tensors import leaves


class Recorder:
    """A Gate that watches one step of `run`, entered around the step; `observation` is to be read while entered.

    Infinities that the step begins with in a buffer or a state are meant, unless `damaged` names the tensor.
    """

    def __init__(self, run: Run, batch_sizes: Sequence[int | None], *, damaged: Collection[str] = ()) -> None:
        self._run, self._batch_sizes, self._damaged = run, batch_sizes, damaged
        names = {id(module): name for name, module in run.model.named_modules()}
        self._decompositions = Decompositions(Ledger(), names)
        self._losses: list[torch.Tensor] = []
        self._outputs = self._output_nan = self._output_inf = 0
        self._fingerprint: Mapping[str, Any] | None = None
        self._on_purpose: set[str] = set()
        self._before: dict[str, torch.Tensor] = {}
        self._magnitudes: dict[str, float] = {}

    def __enter__(self) -> Self:
        damage = {name for name, _ in self._run.model.named_parameters()} | set(self._damaged)
        # Infinities that a buffer or a state begins with (a mask, a running minimum) are meant; a NaN never is.
        self._on_purpose = {name for name, x in _state(self._run) if name not in damage and finiteness(x).inf}
        if _scales(self._run):
            self._before = {name: p.detach().clone() for name, p in self._run.model.named_parameters()}
        self._magnitudes = magnitudes(self._run.model)
        self._decompositions.attach(lambda function: function)
        self._decompositions.step = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decompositions.detach()

    def forward(self, output: Any, loss: torch.Tensor) -> None:
        """Count the outputs that are not finite, before any sanitiser; keep the loss."""
        for tensor in leaves(output):
            found = finiteness(tensor)
            self._outputs += found.elements
            self._output_nan += found.nan
            self._output_inf += found.inf
        self._losses.append(loss.detach())
        self._decompositions.micro_batch += 1

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """Keep what every gradient is before clipping; True, because a trial goes on to the update."""
        named = [(name, p) for name, p in self._run.model.named_parameters() if p.requires_grad]
        gradients = [p.grad for _, p in named if p.grad is not None]
        norm = total_norm(gradients) if norm is None else norm.detach()
        if not torch.isfinite(norm) and all(finiteness(gradient).finite for gradient in gradients):
            norm = exact_norm(gradients)  # squares of finite values overflowed, and that is no harm
        self._fingerprint = fingerprint(self._losses, norm, self._run.model.named_parameters())
        return True

    def observation(self, *, error: str | None = None, notes: tuple[str, ...] = ()) -> Observation:
        """Everything that was seen, after the step has ended or `error` has ended it."""
        print_ = self._fingerprint or {"gradients": {}, "gradient_norm": math.nan}
        gradients = {name: found for name, found in print_["gradients"].items() if found is not None}
        nonfinite = tuple(name for name, found in gradients.items() if found["nan"] or found["inf"])
        jump, jumped = largest_jump(self._magnitudes, magnitudes(self._run.model))
        ended = [(name, tensor) for name, tensor in _state(self._run) if name not in self._on_purpose]
        return Observation(
            losses=tuple(float(loss) for loss in self._losses),
            outputs=self._outputs,
            output_nan=self._output_nan,
            output_inf=self._output_inf,
            gradient_norm=float(print_["gradient_norm"]),
            gradients=len(gradients),
            gradients_nonfinite=nonfinite,
            state_nonfinite=tuple(name for name, tensor in ended if not finiteness(tensor).finite),
            jump=jump,
            jumped=jumped,
            discarded=bool(nonfinite) and bool(self._before) and self._unchanged(),
            decompositions=tuple(self._read(call) for call in self._decompositions.calls),
            fingerprint=self._fingerprint,
            error=error,
            notes=notes,
        )

    def _unchanged(self) -> bool:
        return all(torch.equal(self._before[name], p.detach()) for name, p in self._run.model.named_parameters())

    def _read(self, call: Call) -> Decomposition:
        observed = call.gaps.reshape(-1).to("cpu", torch.float64)
        exact = call.exact_gaps(torch.arange(observed.numel())) if observed.numel() else None
        # Where float32 gave the very same value twice, the gradient divides by zero whatever float64 would have found.
        gaps = observed if exact is None else torch.where(observed == 0, 0.0, exact.reshape(-1))
        place = min(call.micro_batch, len(self._batch_sizes) - 1)
        return Decomposition(
            site=call.site,
            op=call.op,
            location=call.location,
            micro_batch=place,
            gap=float(gaps.min()) if gaps.numel() else math.nan,
            gaps=gaps_of_samples(gaps, tuple(call.gaps.shape), self._batch_sizes[place]),
            differentiated=call.differentiated,
        )


def gaps_of_samples(gaps: torch.Tensor, shape: tuple[int, ...], samples: int | None) -> tuple[float, ...]:
    """The smallest of `gaps` (N,) for each of `samples`; () where a stack of `shape` cannot be divided among them."""
    owners = [sample_of(place, shape, samples) for place in range(gaps.numel())]
    if not samples or not owners or None in owners:
        return ()
    smallest = torch.full((samples,), math.inf, dtype=gaps.dtype)
    return tuple(smallest.scatter_reduce(0, torch.tensor(owners), gaps, "amin").tolist())


def _state(run: Run) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that a step may change, by name; those of the optimizer as "parameter:state"."""
    names: dict[torch.Tensor, str] = {p: name for name, p in run.model.named_parameters()}
    yield from run.model.named_parameters()
    yield from run.model.named_buffers()
    for parameter, entries in run.optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                yield f"{names.get(parameter, ROOT_SITE)}:{key}", value


def _scales(run: Run) -> bool:
    return any(isinstance(extra, torch.amp.GradScaler) and extra.is_enabled() for extra in run.extra_state.values())
