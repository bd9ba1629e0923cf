from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from brainbrr_debug.probes.decompositions import Decompositions, degenerate
from brainbrr_debug.probes.ledger import Ledger, in_one_copy
from brainbrr_debug.probes.modules import Sentinel
from brainbrr_debug.probes.outputs import KEPT, Outputs
from brainbrr_debug.probes.state import CALL, States
from brainbrr_debug.records import Reading


def reading(value: float) -> Reading:
    return Reading(step=0, phase="p", site="s", quantity="q", value=value)


def plain(hook: object) -> object:
    return hook


def test_the_ledger_reads_in_order_and_forgets() -> None:
    ledger = Ledger()
    ledger.defer([torch.tensor(1.0), torch.tensor(2)], lambda v: [reading(v[0]), reading(v[1])])
    ledger.defer([], lambda v: [])
    ledger.defer([torch.tensor(math.inf, dtype=torch.bfloat16)], lambda v: [reading(v[0])])
    assert [(r.value, r.order) for r in ledger.read()] == [(1.0, 0), (2.0, 1), (math.inf, 2)]
    assert len(ledger) == 0 and ledger.read() == []


def test_one_copy_brings_every_dtype_in_order() -> None:
    dtypes = [torch.float32, torch.int64, torch.bfloat16, torch.float32, torch.bool, torch.float64]
    values = [torch.tensor(i % 2 + 1).to(dtype) for i, dtype in enumerate(dtypes)]
    assert in_one_copy(values) == [float(x) for x in values]


def test_state_is_seen_completely_within_the_period_and_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(50, 30), nn.BatchNorm1d(30), *[nn.Linear(3, 3) for _ in range(20)])
    optimizer = torch.optim.AdamW(model.parameters())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    states = States(Ledger(), model, optimizer, dict(model.named_parameters()), 10)
    seen: list[list[torch.Tensor]] = []
    monkeypatch.setattr("brainbrr_debug.probes.state.total_norm", lambda due: seen.append(due) or torch.zeros(()))
    for step in range(20):
        states.see(step)
    everything = {id(x) for x in model.parameters()} | {id(x) for x in model.buffers() if x.is_floating_point()}
    everything |= {id(x) for state in optimizer.state.values() for x in state.values()}
    assert {id(x) for due in seen for x in due} == everything
    assert sum(len(due) for due in seen) == 2 * len(everything)
    costs = [sum(x.numel() + CALL for x in due) for due in seen]
    assert max(costs) < 1.5 * sum(costs) / 20


def test_a_share_with_something_bad_in_it_is_a_reading() -> None:
    model = nn.Linear(3, 3)
    model.bias.data[1] = math.nan
    ledger = Ledger()
    states = States(ledger, model, torch.optim.SGD(model.parameters()), dict(model.named_parameters()), 2)
    for step in range(2):
        states.see(step)
    assert [(r.quantity, r.step) for r in ledger.read()] == [("state.norm", 1)]


def test_a_period_of_less_than_a_step_is_refused() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="period is 0 steps; expected at least 1"):
        States(Ledger(), model, torch.optim.SGD(model.parameters()), {}, 0)


def test_outputs_in_any_nesting_are_seen_once() -> None:
    ledger = Ledger()
    outputs = Outputs(ledger)
    outputs.step = 0
    x, y = torch.ones(2), torch.full((2,), math.nan)
    outputs.see({"logits": x, "more": (y, torch.tensor([1]), "text")})
    outputs.see(x)
    assert next(r.value for r in ledger.read()) == 2.0 and len(outputs.kept) == 2


def test_of_large_outputs_only_the_latest_is_kept() -> None:
    outputs = Outputs(Ledger())
    outputs.step = 0
    for _ in range(3):
        outputs.see(torch.zeros(KEPT + 1))
    assert [x is not None for x, _ in outputs.kept] == [False, False, True]


def test_the_sentinel_sees_shared_modules_every_time_and_reports_only_the_bad() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    ledger = Ledger()
    sentinel = Sentinel(ledger)
    sentinel.attach(model, plain)
    sentinel.step = 4
    model(torch.tensor([[1.0, math.nan]]))
    sentinel.finish()
    assert [(r.site, r.step) for r in ledger.read()] == [("0", 4), ("1", 4), ("0", 4)]
    sentinel.step = 5
    model(torch.ones(1, 2))
    sentinel.finish()
    assert ledger.read() == []
    sentinel.detach()
    assert not shared._forward_hooks


class Eigen(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigh(a)[1].abs().sum()


@pytest.fixture
def recorder() -> Decompositions:
    found = Decompositions(Ledger(), {})
    found.attach(plain)
    found.step, found.samples = 0, 2
    yield found
    found.detach()


def stack(*matrices: torch.Tensor) -> torch.Tensor:
    return torch.stack(matrices).requires_grad_()


def test_many_calls_at_one_place_become_one_reading(recorder: Decompositions) -> None:
    module = Eigen()
    recorder._names = {id(module): "inner.eigen"}
    for scale in (1.0, 1e-3, 0.5):
        a = stack(torch.diag(torch.tensor([1.0, 2.0])), torch.diag(torch.tensor([1.0, 1.0 + scale])))
        module(a).backward()
    recorder.finish()
    (found,) = recorder._ledger.read()
    assert (found.site, found.quantity, found.sample) == ("inner.eigen", "eigengap", 1)
    assert found.value == pytest.approx(1e-3 / 1.001, rel=1e-3)


def test_a_call_outside_of_any_module_and_arguments_by_name(recorder: Decompositions) -> None:
    a = torch.tensor([[1.0, 9.0], [0.0, 1.0]])
    torch.linalg.eigh(input=a, UPLO="L")
    torch.linalg.eigh(a, "U")
    torch.linalg.svd(a)
    torch.linalg.eigvalsh(a)
    lower, upper, svd, values = recorder.calls
    assert lower.site == "<outside>" and "test_probes.py" in lower.location
    flat = torch.tensor([0])
    assert float(lower.exact_gaps(flat)) == 0.0 and float(upper.exact_gaps(flat)) == pytest.approx(18 / 10)
    assert 0 < float(svd.exact_gaps(flat)) < 1 and float(values.gaps) == 0.0


def test_singular_vectors_that_carry_a_gradient_count(recorder: Decompositions) -> None:
    u, _, _ = torch.linalg.svd(torch.eye(3, requires_grad=True))
    u.sum().backward()
    (call,) = recorder.calls
    assert call.differentiated and float(call.gaps) == 0.0


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_activations_keep_their_micro_batch(recorder: Decompositions, reentrant: bool) -> None:
    module = Eigen()
    for index in range(2):
        gap = 1.0 if index == 0 else 0.0
        a = stack(torch.diag(torch.tensor([1.0, 1.0 + gap])))
        out = checkpoint(module, a * 1, use_reentrant=reentrant)
        recorder.micro_batch += 1
        out.backward()
    found = degenerate(recorder.calls, 1e-6, 1)
    assert found and {tie.micro_batch for tie in found} == {1}


def test_matrices_written_over_since_are_not_trusted(recorder: Decompositions) -> None:
    a = torch.eye(2)
    torch.linalg.eigh(a)
    a.add_(torch.diag(torch.tensor([0.0, 1.0])))
    assert recorder.calls[0].exact_gaps(torch.tensor([0])) is None


def test_function_transforms_are_counted_as_unseen(recorder: Decompositions) -> None:
    torch.func.vmap(lambda a: torch.linalg.eigh(a)[0])(torch.randn(3, 2, 2))
    assert recorder.unseen == 1 and recorder.calls == []


def test_between_steps_nothing_is_recorded(recorder: Decompositions) -> None:
    recorder.step = None
    torch.linalg.eigh(torch.eye(2))
    assert recorder.calls == []
