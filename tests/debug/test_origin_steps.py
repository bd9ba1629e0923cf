"""Steps other than the plain one: micro-batches, a gate, a loss scaler, a step that sanitises."""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from brainbrr_debug.origin import diagnose, trace_step
from brainbrr_debug.subject import Batch, Gate, Run


class Root(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(-1).sqrt()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.root = nn.Linear(4, 3, bias=False), Root()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.root(self.linear(x))


def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean()


def make_run() -> Run:
    torch.manual_seed(0)
    model = Net()
    return Run(model, torch.optim.AdamW(model.parameters()), loss_fn, ())


def micro_batches(bad: int | None) -> list[Batch]:
    batches: list[Batch] = [((torch.randn(5, 4),), torch.randn(5)) for _ in range(3)]
    if bad is not None:
        batches[bad][0][0][1] = 0
    return batches


def test_a_healthy_step_is_called_healthy() -> None:
    assert trace_step(make_run(), micro_batches(None)).healthy


@pytest.mark.parametrize("bad", [0, 2])
def test_plain_step_over_micro_batches(bad: int) -> None:
    run = make_run()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    origin = trace_step(run, micro_batches(bad), number=41)
    assert (origin.step, origin.phase, origin.module, origin.op) == (41, "backward", "root", "aten::sqrt")
    assert (origin.node, origin.proof, origin.mechanism) == ("SqrtBackward0", "healed", "sqrt-at-zero")
    assert origin.location is not None and origin.location.rpartition(":")[0] == __file__
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert not run.optimizer.state


def test_bad_micro_batch_is_blamed_with_its_place() -> None:
    batches = micro_batches(None)
    batches[1][1][2] = float("nan")
    origin = trace_step(make_run(), batches)
    assert (origin.phase, origin.module, origin.op) == ("data", "<target>", "data")
    assert origin.explanation is not None and "target 0 of micro-batch 1" in origin.explanation
    assert "the first at (2,)" in origin.explanation


class Sanitising:
    """Sets bad gradients to zero, as a careless loop does; the parameters never turn bad."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, micro_batches: Sequence[Batch], gate: Gate) -> None:
        self.run.optimizer.zero_grad()
        for inputs, target in micro_batches:
            output = self.run.model(*inputs)
            loss = self.run.loss_fn(output, target)
            gate.forward(output, loss)
            loss.backward()
        if gate.gradients():
            for parameter in self.run.model.parameters():
                assert parameter.grad is not None
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
            self.run.optimizer.step()


def test_what_the_gate_sees_counts_unless_told_otherwise() -> None:
    run = make_run()
    step = Sanitising(run)
    origin = trace_step(run, micro_batches(1), step)
    assert (origin.phase, origin.module, origin.op) == ("backward", "root", "aten::sqrt")
    assert trace_step(run, micro_batches(1), step, strict=False).healthy


class Scaled:
    """A step with a loss scaler, which discards overflowed gradients."""

    def __init__(self, run: Run) -> None:
        self.run, self.scaler = run, run.extra_state["scaler"]

    def __call__(self, micro_batches: Sequence[Batch], gate: Gate) -> None:
        self.run.optimizer.zero_grad()
        for inputs, target in micro_batches:
            output = self.run.model(*inputs)
            loss = self.run.loss_fn(output, target)
            gate.forward(output, loss)
            self.scaler.scale(loss).backward()
        if gate.gradients():
            self.scaler.step(self.run.optimizer)
            self.scaler.update()


def test_a_discarded_step_of_a_loss_scaler_is_healthy() -> None:
    plain = make_run()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    run = Run(plain.model, plain.optimizer, loss_fn, (), extra_state={"scaler": scaler})
    batches = [((torch.randn(5, 4) * 100,), torch.randn(5)) for _ in range(2)]
    assert trace_step(run, batches, Scaled(run)).healthy
    assert scaler.get_scale() == 2.0**127


def test_other_exceptions_propagate_and_the_state_comes_back() -> None:
    class Failing(Net):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            type(self).calls += 1
            y = x.masked_fill(x > 0, float("-inf"))  # harmless
            if self.calls == 3:
                raise KeyError(f"no such sample, {int(torch.isinf(y).any())}")
            return super().forward(x)

    torch.manual_seed(0)
    model = Failing()
    weight = model.linear.weight.detach().clone()
    with pytest.raises(KeyError, match="no such sample"):
        diagnose(model, micro_batches(None) * 2, loss_fn, torch.optim.SGD(model.parameters(), lr=0.1))
    assert torch.equal(model.linear.weight, weight) and Failing.calls == 0


def test_a_singular_matrix_that_raises_is_not_a_non_finite_value() -> None:
    class Inverse(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(self.linear.weight[:, :3] * 0).sum() + super().forward(x)

    model = Inverse()
    with pytest.raises(torch.linalg.LinAlgError, match="singular"):
        diagnose(model, micro_batches(None), loss_fn, torch.optim.SGD(model.parameters(), lr=0.1))


def test_in_place_leaves_what_the_training_leaves() -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    origin = diagnose(model, micro_batches(2), loss_fn, optimizer, in_place=True)
    assert origin.step == 2 and bool(torch.isnan(model.linear.weight).any())
    model = Net()
    weight = model.linear.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert diagnose(model, micro_batches(None), loss_fn, optimizer, in_place=True).healthy
    assert not torch.equal(model.linear.weight, weight) and bool(torch.isfinite(model.linear.weight).all())


def test_max_steps_bounds_what_is_drawn() -> None:
    drawn = []

    def stream():
        for batch in micro_batches(2):
            drawn.append(1)
            yield batch

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert diagnose(model, stream(), loss_fn, optimizer, max_steps=2).healthy
    assert len(drawn) == 2


def test_a_step_that_cannot_be_repeated_is_traced_at_its_first_run() -> None:
    def noise():
        yield from (1.0, 1.0, 0.0, 1.0)

    factors = noise()

    class Noisy(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x) * next(factors)
            return (y / y.sum(-1, keepdim=True)).mean(-1)

    model = Noisy()
    origin = diagnose(model, micro_batches(None), loss_fn, torch.optim.SGD(model.parameters(), lr=0.1))
    assert (origin.step, origin.phase, origin.op, origin.proof) == (2, "forward", "aten::div", "first event")


def test_random_generators_are_repeated_in_replays() -> None:
    class Noisy(Net):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.generator = nn.Dropout(0.5), torch.Generator().manual_seed(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            noise = torch.rand(x.shape, generator=self.generator)
            y = self.dropout(self.linear(x)) * noise[:, :3].round()
            return (y / y.abs().amax(-1, keepdim=True)).mean(-1)

    torch.manual_seed(0)
    model = Noisy()
    state = model.generator.get_state()
    origin = diagnose(model, micro_batches(None), loss_fn, torch.optim.SGD(model.parameters(), lr=0.1))
    assert (origin.phase, origin.op, origin.proof) == ("forward", "aten::div", "healed")
    assert torch.equal(model.generator.get_state(), state)


def test_what_does_not_happen_again_is_said_so(tmp_path: Path) -> None:
    class Outside(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls = tmp_path / "calls"
            calls.write_text((calls.read_text() if calls.exists() else "") + ".")
            return super().forward(x) * (float("nan") if calls.read_text() == ".." else 1.0)

    model = Outside()
    origin = diagnose(model, micro_batches(None), loss_fn, torch.optim.SGD(model.parameters(), lr=0.1))
    assert not origin.healthy and origin.step == 1 and origin.op is None and origin.mechanism == "not-reproduced"
    assert origin.explanation is not None and "not when it was run again from the same state" in origin.explanation


def test_what_cannot_be_watched_is_said_so() -> None:
    class Opaque(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
                raise NotImplementedError("this region takes no dispatch mode")
            return super().forward(x)

    model = Opaque()
    origin = diagnose(model, micro_batches(1), loss_fn, torch.optim.SGD(model.parameters(), lr=0.1))
    assert not origin.healthy and origin.step == 1 and origin.op is None
    assert origin.explanation is not None and "this region takes no dispatch mode" in origin.explanation


def test_batches_of_other_shapes() -> None:
    model = Net()
    batches = [(torch.ones(5, 4), torch.ones(5)), ({"x": torch.zeros(5, 4)}, torch.ones(5))]
    origin = diagnose(model, batches, loss_fn, torch.optim.SGD(model.parameters(), lr=0.1))
    assert (origin.step, origin.module, origin.op) == (1, "root", "aten::sqrt")


def test_batches_come_back_whatever_holds_them() -> None:
    class Overwrites(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(2, 1)

        def forward(self, holder: types.SimpleNamespace) -> torch.Tensor:
            holder.x.nan_to_num_().add_(1.0)
            return self.fc(holder.x)

    x = torch.tensor([[1.0, math.nan], [2.0, 3.0]])
    label = torch.tensor(math.nan).expand(2, 1)
    model = Overwrites()
    before = x.clone()
    origin = diagnose(
        model, [((types.SimpleNamespace(x=x),), label)], torch.nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)
    )
    assert (origin.phase, origin.module, origin.mechanism) == ("data", "<target>", "bad-target")
    assert torch.equal(x.nan_to_num(7.0), before.nan_to_num(7.0)) and bool(label.isnan().all())
