"""The state of a training run as plain trees of tensors, and back into live objects, bit for bit.

Parameters and persistent buffers travel as the model's state dict. What a state dict leaves out but a step depends on
(other buffers, train or eval mode of every module, frozen parameters) travels under the name MODEL in the extra state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.errors import UsageError
from brainbrr_debug.tensors import copied

MODEL = "<model>"


class StateError(UsageError):
    """A captured state that does not fit the objects it is to be loaded into."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Model, optimizer and further state, sharing memory with the live objects until somebody copies it."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What `load_state` could not load, by name; all empty after an exact restore.

    `missing` in the capture, `unexpected` in the model, `extra` objects that only one side has.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    optimizer: bool = True

    @property
    def exact(self) -> bool:
        """True when model and optimizer are what was captured."""
        return self.optimizer and not self.missing and not self.unexpected


def bare(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile's wrapper."""
    while True:
        parallel = isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel))
        inner = getattr(model, "module" if parallel else "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def named_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The model's parameters by name, then those that only the optimizer knows, as "<optimizer>.GROUP.INDEX"."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    known = {id(p) for p in named.values()}
    for g, group in enumerate(optimizer.param_groups):
        for i, parameter in enumerate(group["params"]):
            if id(parameter) not in known:
                named[f"<optimizer>.{g}.{i}"] = parameter
    return named


def parameter_count(optimizer: torch.optim.Optimizer) -> int:
    """Parameters in all groups: cheap to ask every step, and different when a group was added."""
    return sum(len(group["params"]) for group in optimizer.param_groups)


def collect_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra_state: Mapping[str, Any],
    buffers: Mapping[str, Tensor],
) -> TrainingState:
    """The state as of the step's start: `buffers` replace those that the forward pass has changed since."""
    state = dict(model.state_dict())
    beside = {}
    for name, buffer in buffers.items():
        if name in state:
            state[name] = buffer
        else:
            beside[name] = buffer
    extra = {name: thing.state_dict() for name, thing in extra_state.items()}
    extra[MODEL] = {
        "buffers": beside,
        "training": {name: module.training for name, module in model.named_modules()},
        "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
    }
    return TrainingState(model=state, optimizer=dict(optimizer.state_dict()), extra=extra)


def load_state(
    state: TrainingState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra_state: Mapping[str, Any],
    *,
    strict: bool = True,
) -> Restored:
    """Load copies of `state`, so that nothing a later step does reaches the captured tensors.

    With `strict`, a model that does not fit raises StateError. Without, what fits by name and shape is loaded, and
    the optimizer's state only if the whole model fitted.
    """
    model = bare(model)
    own = model.state_dict()
    fits = {name: value for name, value in state.model.items() if name in own and _same_shape(own[name], value)}
    missing = tuple(name for name in own if name not in fits)
    unexpected = tuple(name for name in state.model if name not in fits)
    if strict and (missing or unexpected):
        raise StateError(
            f"the captured model does not fit: {len(missing)} tensors of the model are not in the capture"
            f"{_first(missing)}, {len(unexpected)} captured ones do not fit{_first(unexpected)}; "
            "expected the subject and configuration of the captured run"
        )
    model.load_state_dict(fits, strict=False)
    loaded = not missing and not unexpected and _load_optimizer(optimizer, state.optimizer, strict=strict)
    extra = {name: value for name, value in state.extra.items() if name != MODEL}
    for name in extra.keys() & extra_state.keys():
        if extra[name]:
            extra_state[name].load_state_dict(copied(extra[name]))
    _load_modes(model, state.extra.get(MODEL, {}))
    return Restored(
        missing=missing, unexpected=unexpected, extra=tuple(sorted(extra.keys() ^ extra_state.keys())), optimizer=loaded
    )


def _load_modes(model: nn.Module, modes: Mapping[str, Any]) -> None:
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in modes.get("buffers", {}).items():
            if name in buffers and _same_shape(buffers[name], value):
                buffers[name].copy_(value)
    modules = dict(model.named_modules())
    for name, training in modes.get("training", {}).items():
        if name in modules:
            modules[name].training = training
    frozen = set(modes.get("frozen", ()))
    if "frozen" in modes:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)


def _load_optimizer(optimizer: torch.optim.Optimizer, captured: Mapping[str, Any], *, strict: bool) -> bool:
    captured = copied(dict(captured))
    try:
        optimizer.load_state_dict(dict(captured))
    except (ValueError, KeyError) as error:
        if strict:
            raise StateError(f"the captured optimizer does not fit: {error}") from error
        return False
    # load_state_dict casts state to the parameter's dtype; a float32 moment of a bfloat16 parameter must stay float32.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [n for group in captured["param_groups"] for n in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for key, value in captured["state"].get(number, {}).items():
            held = optimizer.state[parameter].get(key)
            if isinstance(value, Tensor) and isinstance(held, Tensor) and held.dtype != value.dtype:
                optimizer.state[parameter][key] = value.to(held.device)
    return True


def _same_shape(own: Any, value: Any) -> bool:
    if isinstance(own, Tensor) and isinstance(value, Tensor):
        return own.shape == value.shape
    return isinstance(own, Tensor) == isinstance(value, Tensor)


def _first(names: tuple[str, ...]) -> str:
    return f" (first {names[0]})" if names else ""
