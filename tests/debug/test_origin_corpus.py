"""Every planted fault is named exactly; nothing is said about a healthy control; everything is left as it was found."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch

from brainbrr_debug.mechanisms import MECHANISMS
from brainbrr_debug.origin import diagnose
from brainbrr_debug.tracing import harm
from tests.faults import CONTROLS, FAULTS, Control, Fault

pytestmark = pytest.mark.filterwarnings("ignore")  # some of the programs deserve a warning from torch


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_named(fault: Fault) -> None:
    torch.manual_seed(0)
    program = fault.build()
    origin = diagnose(program.model, program.batches, program.loss_fn, program.optimizer)
    assert not origin.healthy
    assert (origin.phase, origin.module, origin.op, origin.step) == (fault.phase, fault.module, fault.op, fault.step)
    assert origin.location == fault.location
    assert (origin.mechanism, origin.proof) == (fault.mechanism, fault.proof), origin.explanation
    assert fault.node in (None, origin.node) and fault.kind in (None, origin.kind)
    assert (origin.node is not None) == (fault.phase == "backward")
    assert origin.explanation is not None and origin.explanation.endswith(".")
    assert origin.mechanism in MECHANISMS


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_nothing_is_said_about_a_healthy_program(control: Control) -> None:
    torch.manual_seed(0)
    program = control.build()
    origin = diagnose(program.model, program.batches, program.loss_fn, program.optimizer)
    assert origin.healthy, origin
    assert all(value is None for key, value in origin.to_dict().items() if key != "healthy")


def test_the_corpus_is_as_large_as_it_claims() -> None:
    phases = {fault.phase for fault in FAULTS}
    assert len(FAULTS) >= 240 and len(CONTROLS) >= 50 and phases == {"data", "forward", "backward", "optimizer"}
    names = [entry.name for entry in (*FAULTS, *CONTROLS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("fault", FAULTS[::6], ids=lambda fault: fault.name)
def test_everything_is_left_as_it_was_found(fault: Fault) -> None:
    torch.manual_seed(0)
    program = fault.build()
    before = _state(program.model, program.optimizer)
    hooks = _hooks(program.model)
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    diagnose(program.model, program.batches, program.loss_fn, program.optimizer)
    _assert_same(_state(program.model, program.optimizer), before)
    assert torch.equal(torch.get_rng_state(), torch_state) and random.getstate() == python_state
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert _hooks(program.model) == hooks


def _state(model: object, optimizer: object) -> dict[str, object]:
    inner = getattr(optimizer, "inner", optimizer)
    parameters = harm.parameters_of(model, optimizer)
    held = {"parameters": parameters, "buffers": harm.buffers_of(model), "optimizer": inner.state_dict()}
    return copy.deepcopy(held | {"gradients": {name: p.grad for name, p in parameters.items()}})


def _hooks(model: object) -> list[int]:
    """How many hooks every module has: of the program's own, and of ours while we look."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else []
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules]


def _assert_same(now: object, before: object) -> None:
    if isinstance(before, torch.Tensor):
        assert isinstance(now, torch.Tensor) and torch.equal(now.nan_to_num(7.0), before.nan_to_num(7.0))
    elif isinstance(before, dict):
        assert isinstance(now, dict) and now.keys() == before.keys()
        for key, value in before.items():
            _assert_same(now[key], value)
    elif isinstance(before, (list, tuple)):
        assert isinstance(now, (list, tuple)) and len(now) == len(before)
        for a, b in zip(now, before, strict=True):
            _assert_same(a, b)
    else:
        assert now == before
