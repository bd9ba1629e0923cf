"""A step held back on the device: the update runs and changes nothing, and the capture is of a healthy state."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, RunDir, Watch, read_capture, write_capture
from brainbrr_debug.replay import replay_capture
from brainbrr_debug.subject import Batch, Run

sys.path.insert(0, str(Path(__file__).parent))
BAD = 3


class Roots(nn.Module):
    """(B, 4) -> (B, 1). The square root of zero has no gradient: only `body` is upstream of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).square().sum(-1, keepdim=True).sqrt().expand(-1, 4))


def optimizers() -> dict[str, Any]:
    return {
        "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
        "Adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True, amsgrad=True),
        "SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, fused=True),
        "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, fused=True),
    }


class RootsSubject:
    def build(self, seed: int, switches: Any) -> Run:
        torch.manual_seed(seed)
        model = Roots()
        return Run(model, optimizers()["AdamW"](model.parameters()), nn.functional.mse_loss, ())

    def switches(self) -> dict[str, Any]:
        return {}

    def identify(self, batch_index: int, sample_index: int) -> dict[str, Any]:
        return {}


def batch(step: int, bad: int) -> Batch:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
    if step == bad:
        x[1] = 0
    return (x,), torch.zeros(3, 1)


class Loop:
    """Clips by the watch's norm, and lets a scheduler on before the step is over, as loops do."""

    def __init__(self, run_dir: Path | None, *, optimizer: str = "AdamW", bad: int = BAD, **options: Any) -> None:
        torch.manual_seed(0)
        self.model, self.bad = Roots(), bad
        self.optimizer = optimizers()[optimizer](self.model.parameters())
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9) if bad else None
        self.options = {"quarantine": True, **options}
        self.run_dir = run_dir
        self.states: list[Any] = []

    def state(self) -> list[torch.Tensor]:
        optimizer = [x for s in self.optimizer.state.values() for x in s.values() if isinstance(x, torch.Tensor)]
        return [x.detach().clone() for x in (*self.model.parameters(), *optimizer)]

    def run(self, steps: int) -> Watch:
        with Watch(self.model, self.optimizer, self.run_dir, **self.options) as watch:
            for step in range(steps):
                inputs, target = batch(step, self.bad)
                watch.begin(inputs[0], target)
                self.optimizer.zero_grad()
                output = self.model(*inputs)
                loss = nn.functional.mse_loss(output, target)
                loss.backward()
                self.states.append(self.state())
                if watch.check(loss, output):
                    nn.utils.clip_grads_with_norm_(self.model.parameters(), 1.0, watch.gradient_norm)
                    self.optimizer.step()
                self.states.append(self.state())
                if self.scheduler is not None:
                    self.scheduler.step()
        return watch


@pytest.mark.parametrize("name", list(optimizers()))
@pytest.mark.parametrize("bad", [0, BAD])
def test_nothing_changes_in_a_step_that_is_held_back(name: str, bad: int) -> None:
    loop = Loop(None, optimizer=name, bad=bad)
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10)
    assert caught.value.finding.step == bad and not hasattr(loop.optimizer, "found_inf")
    before, after = loop.states[-2], loop.state()
    assert len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", list(optimizers()))
def test_skipping_goes_on_as_if_the_step_had_not_been(name: str) -> None:
    held, dropped = (Loop(None, optimizer=name, bad=0, policy="skip", quarantine=flag) for flag in (True, False))
    watch = held.run(6)
    dropped.run(6)
    assert (watch.counters["quarantined"], watch.counters["skipped"]) == (1, 1)
    assert all(torch.equal(a, b) for a, b in zip(held.state(), dropped.state(), strict=True))


def test_the_partition_of_gradients_survives_clipping_by_a_norm_that_is_not_a_number(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "r")
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10)
    assert all(torch.isnan(p.grad).all() for p in loop.model.parameters())  # what is left in memory
    evidence = caught.value.finding.evidence
    assert evidence["gradient_nonfinite"] == ["body.weight"]
    assert evidence["gradient_finite"] == ["head.weight", "head.bias"]
    assert evidence["state_nonfinite"] == []


def test_the_capture_is_healthy_and_replays(tmp_path: Path) -> None:
    sys.modules.setdefault("quarantined", sys.modules[__name__])
    loop = Loop(tmp_path / "r", subject="quarantined:RootsSubject")
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10)
    content = read_capture(caught.value.capture_path)
    assert all(torch.isfinite(x).all() for x in content.model_state.values())
    assert content.optimizer_state["param_groups"][0]["lr"] == pytest.approx(1e-2 * 0.9**BAD)  # not the next step's
    replayed = replay_capture(caught.value.capture_path, times=2)
    assert (replayed.outcome, replayed.reality.reproduced, replayed.reality.mismatches) == ("failed again", 2, ())
    assert content.expected["gradients"]["body.weight"] == {"digest": None, "nan": 1, "inf": 0}
    content.expected["gradients"]["head.bias"]["nan"] = 1
    write_capture(tmp_path / "other.h5", content)
    assert replay_capture(tmp_path / "other.h5", times=1).reality.mismatches == (
        "gradient of 1 of 3 parameters differs, first head.bias",
    )


def test_nothing_is_read_before_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a synchronisation would be: a tensor asked for its value between begin and the optimizer's step."""
    read: list[str] = []
    monkeypatch.setattr(
        "brainbrr_debug.probes.ledger._fetch",
        lambda tensors: read.append("ledger") or iter([float(x) for x in tensors]),
    )
    loop = Loop(None)
    loop.optimizer.register_step_post_hook(lambda *args: read.append("step"))
    loop.run(BAD)
    assert read == ["step", "ledger"] * BAD


def test_a_healthy_run_is_silent_and_the_same_to_the_bit(tmp_path: Path) -> None:
    watched, plain = Loop(tmp_path / "r", bad=-1), Loop(None, bad=-1, quarantine=False)
    watch = watched.run(12)
    plain.run(12)
    assert all(torch.equal(a, b) for a, b in zip(watched.state(), plain.state(), strict=True))
    assert RunDir.open(tmp_path / "r").findings().items == () and watch.counters["quarantined"] == 0
    assert not hasattr(watched.optimizer, "found_inf")


def test_a_failure_in_the_last_step_is_not_lost() -> None:
    with pytest.raises(NonFiniteStep):
        Loop(None).run(BAD + 1)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_another_error_behind_the_gate_leaves_no_flag_behind(error: type[BaseException]) -> None:
    model = Roots()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def run() -> None:
        with Watch(model, optimizer, quarantine=True) as watch:
            (inputs, target) = batch(0, -1)
            watch.begin(inputs[0], target)
            loss = model(*inputs).square().mean()
            loss.backward()
            watch.check(loss)
            raise error("mine")

    with pytest.raises(error, match="mine"):
        run()
    assert not hasattr(optimizer, "found_inf")


def test_an_infinite_loss_with_finite_gradients_is_held_back_too() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    before = [p.detach().clone() for p in model.parameters()]

    def run() -> None:
        with Watch(model, optimizer, quarantine=True) as watch:
            watch.begin(torch.ones(1, 2), None)
            loss = model(torch.ones(1, 2)).sum() + math.inf
            loss.backward()
            watch.check(loss)
            optimizer.step()

    with pytest.raises(NonFiniteStep, match="the loss is not finite"):
        run()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_what_cannot_be_held_back_is_refused() -> None:
    model = nn.Linear(1, 1)
    plain, fused = torch.optim.AdamW(model.parameters()), torch.optim.AdamW(model.parameters(), fused=True)
    with pytest.raises(ValueError, match=r"quarantine is on and AdamW does not take found_inf; expected a fused optim"):
        Watch(model, plain, quarantine=True)
    with pytest.raises(ValueError, match=r"RMSprop does not take found_inf"):
        Watch(model, torch.optim.RMSprop(model.parameters()), quarantine=True)
    with pytest.raises(ValueError, match=r"quarantine is on and a GradScaler is in charge of found_inf"):
        Watch(model, fused, quarantine=True, scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match=r"lets pass; expected policy stop or skip"):
        Watch(model, fused, quarantine=True, policy="record")
    Watch(model, fused, quarantine=True, scaler=torch.amp.GradScaler("cpu", enabled=False))
