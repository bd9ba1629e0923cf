"""The watch on sampled steps and with rings of ranges: what it writes down, what it finds, what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from brainbrr_debug import NonFiniteStep, RunDir, Watch, read_capture
from brainbrr_debug.probes.dependence import Dependence
from brainbrr_debug.probes.gradients import schedule, see_expected_rates
from brainbrr_debug.probes.ledger import Ledger
from brainbrr_debug.probes.ranges import Ranges
from brainbrr_debug.probes.updates import Updates
from brainbrr_debug.records import Finding, Reading


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))


class Loop:
    """A bare training loop of a small regression; `spoil` may change anything before the step's forward pass."""

    def __init__(self, path: Path, model: nn.Module | None = None, *, lr: float = 1e-2, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = mlp() if model is None else model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.path, self.options = path / "r", {"every": 5, **options}

    def run(self, steps: int, spoil: Callable[[int], None] = lambda step: None) -> Watch:
        generator = torch.Generator().manual_seed(1)
        truth = torch.randn(4, 3, generator=generator)
        with Watch(self.model, self.optimizer, self.path, **self.options) as watch:
            for step in range(steps):
                x = torch.randn(16, 4, generator=generator)
                spoil(step)
                watch.begin(x, x @ truth)
                self.optimizer.zero_grad()
                output = self.model(x)
                loss = functional.mse_loss(output, x @ truth)
                loss.backward()
                if watch.check(loss, output):
                    self.optimizer.step()
        return watch

    def readings(self) -> tuple[Reading, ...]:
        return RunDir.open(self.path).readings().items

    def findings(self) -> tuple[Finding, ...]:
        return RunDir.open(self.path).findings().items


def test_the_first_step_and_every_fifth_after_it_are_sampled_and_healthy(tmp_path: Path) -> None:
    loop = Loop(tmp_path, loss_fn=functional.mse_loss, learning_rate=lambda step: 1e-2)
    watch = loop.run(60)
    sampled = sorted({r.step for r in loop.readings() if r.quantity == "absmax"})
    assert sampled == list(range(0, 60, 5))
    order = [r.site for r in loop.readings() if (r.step, r.quantity, r.phase) == (5, "rms", "forward")]
    assert order == ["0", "1", "2", ""]
    assert {r.step for r in loop.readings() if r.quantity == "update.unchanged"} == set(range(1, 60, 5))
    assert loop.findings() == () and watch.counters["probe_crashes"] == 0 and watch.counters["unseen_outputs"] == 0


def test_without_a_period_nothing_is_sampled_and_a_negative_one_is_refused(tmp_path: Path) -> None:
    loop = Loop(tmp_path, every=0)
    loop.run(3)
    assert {r.quantity for r in loop.readings()} == {"loss", "output.sum", "gradient.norm", "learning_rate"}
    with pytest.raises(ValueError, match=r"every is -1; expected 0 \(off\) or more"):
        Loop(tmp_path, every=-1).run(1)
    with pytest.raises(ValueError, match=r"ranges is -2; expected 0 \(off\) or more"):
        Loop(tmp_path, ranges=-2).run(1)


def test_a_watch_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    runs = []
    for options in ({"every": 0}, {"every": 1, "ranges": 4, "loss_fn": functional.mse_loss, "sentinel": True}):
        torch.manual_seed(4)
        loop = Loop(tmp_path, nn.Sequential(mlp(), nn.Dropout(0.2)), **options)
        loop.run(6)
        runs.append(list(loop.model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


# What sampled steps find --------------------------------------------------------------------------------------------


class Sanitised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()
        self.offset = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(self.body(x) + self.offset)


def test_sanitised_outputs_are_found_though_everything_is_finite(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Sanitised(), loss_fn=functional.mse_loss)

    def spoil(step: int) -> None:
        loop.model.offset = math.nan if step >= 10 else 0.0

    loop.run(40, spoil)
    assert all(math.isfinite(r.value) for r in loop.readings() if r.quantity == "loss")
    masked = next(f for f in loop.findings() if f.check == "run.masked_failure")
    assert (masked.step, masked.where, masked.evidence["replaced"]) == (10, "", 48.0)
    constants = {f.where: f.step for f in reversed(loop.findings()) if f.check == "run.constant_predictor"}
    assert constants == {"output": 30, "loss of zeros": 30}


def test_a_model_that_ignores_its_input_is_found(tmp_path: Path) -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x * 1e-12)

    loop = Loop(tmp_path, Deaf())
    loop.run(40)
    assert {(f.check, f.where) for f in loop.findings()} == {("run.constant_predictor", "output")}


def test_a_loss_no_better_than_a_constants_is_found_after_a_while(tmp_path: Path) -> None:
    model = mlp()
    loop = Loop(
        tmp_path, model, lr=1e-3, loss_fn=lambda y, t: functional.mse_loss(y, torch.zeros_like(t) + 5), every=50
    )
    loop.run(601)
    assert [(f.check, f.where, f.step) for f in loop.findings()] == [
        ("run.constant_predictor", "loss of a constant", 500), ("run.constant_predictor", "loss of a constant", 600)
    ][:len(loop.findings())]  # fmt: skip
    assert loop.findings()


def test_updates_that_change_nothing_are_found(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.optimizer = torch.optim.AdamW(mlp().parameters())  # of a model that nobody trains
    loop.run(12)
    assert {f.check for f in loop.findings()} == {"run.no_update"}


def test_a_rate_that_rounds_to_nothing_in_bfloat16_is_found(tmp_path: Path) -> None:
    model = nn.Linear(4, 1, bias=False).bfloat16()
    model.weight.data.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    with Watch(model, optimizer, tmp_path / "r", every=2) as watch:
        for _ in range(6):
            x = torch.rand(3, 4, dtype=torch.bfloat16)
            watch.begin(x, None)
            optimizer.zero_grad()
            loss = model(x).sum()
            loss.backward()
            if watch.check(loss):
                optimizer.step()
    assert {f.check for f in RunDir.open(tmp_path / "r").findings().items} == {"run.no_update"}


def test_a_rate_other_than_scheduled_is_found(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    scheduler = torch.optim.lr_scheduler.LinearLR(loop.optimizer, total_iters=10)
    loop.options["extra_state"] = {"scheduler": scheduler}

    def spoil(step: int) -> None:
        if step:
            scheduler.step()
        if step >= 6:
            loop.optimizer.param_groups[0]["lr"] = 1e-2

    loop.run(8, spoil)
    first, *_ = [f for f in loop.findings() if f.check == "run.lr_schedule"]
    assert first.step == 6 and first.evidence["rates"] == [0.01]
    assert first.evidence["expected"] == pytest.approx(0.01 * (1 / 3 + 6 / 10 * 2 / 3))


def test_a_program_that_raises_when_asked_is_a_finding_and_trains_on(tmp_path: Path) -> None:
    def refuse(*args: Any) -> Any:
        raise KeyError("asked")

    loop = Loop(tmp_path, loss_fn=refuse, learning_rate=refuse)
    watch = loop.run(12)
    assert {f.check for f in loop.findings()} == {"run.probe"} and watch.counters["probe_crashes"] == 2
    assert watch.counters["steps"] == 12


# The parts by themselves --------------------------------------------------------------------------------------------


def read(ledger: Ledger) -> dict[str, float]:
    return {f"{r.site}:{r.quantity}": r.value for r in ledger.read()}


def test_tensor_rates_and_groups_are_compared_one_by_one() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.1, 0.2, torch.tensor(0.3))]
    optimizer = torch.optim.AdamW(groups, foreach=False, capturable=False)
    ledger = Ledger()
    see_expected_rates(ledger, optimizer, 0, lambda step: [0.1, 0.25, torch.tensor(0.4)])
    assert read(ledger) == pytest.approx(
        {"<optimizer>.1:learning_rate.expected": 0.25, "<optimizer>.2:learning_rate.expected": 0.4}
    )
    see_expected_rates(ledger, optimizer, 0, lambda step: [0.1])
    assert read(ledger) == {}
    other = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    foreign = torch.optim.lr_scheduler.ConstantLR(other)
    assert schedule(optimizer, None, [foreign, "text"]) is None
    assert schedule(optimizer, lambda step: step / 2, [foreign])(3) == [1.5]


def slow_unchanged(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    same = [torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(before, after, strict=True)]
    return sum(same) / len(same)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_any_single_bit_counts_as_a_change(dtype: torch.dtype) -> None:
    parameters = [nn.Parameter(torch.ones(3, 5, dtype=dtype)), nn.Parameter(torch.ones(4, 2, dtype=dtype).T)]
    parameters.append(nn.Parameter(torch.ones(2, dtype=dtype)))
    for p in parameters[:2]:
        p.grad = torch.zeros_like(p)
    for change in (lambda: None, lambda: parameters[0].data[1].neg_(), lambda: parameters[1].data.mul_(1)):
        ledger = Ledger()
        updates = Updates(ledger)
        before = [p.detach().clone() for p in parameters[:2]]
        updates.take(parameters)
        change()
        parameters[2].data.zero_()  # has no gradient
        updates.see(1)
        contiguous = [[x.detach().contiguous() for x in side] for side in (before, parameters[:2])]
        assert read(ledger) == {"<optimizer>:update.unchanged": slow_unchanged(*contiguous)}
        updates.see(2)
        assert read(ledger) == {}


def slow_spread(y: torch.Tensor) -> float:
    rows = y.double().reshape(len(y), -1).tolist()
    differences = [abs(a - b) for row in rows for a, b in zip(row, rows[0], strict=True)]
    return max(differences) / max(abs(v) for row in rows for v in row)


def test_dependence_is_what_the_definitions_say() -> None:
    x, y, target = torch.randn(6, 3), torch.randn(6, 2), torch.randint(2, (6,))
    x[4] = x[0]
    ledger = Ledger()
    generator = torch.get_rng_state()

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        torch.rand(1)  # must not be felt outside
        return functional.cross_entropy(output, target)

    Dependence(ledger, loss_fn).see(0, [torch.tensor(1.0), y], ((x, "text", torch.zeros(6)), target))
    found = read(ledger)
    expected = {
        ":input.differs": 4 / 6, ":output.spread": slow_spread(y),
        "<loss>:baseline.loss": float(functional.cross_entropy(y, target)), "<loss>:baseline.zeros": math.log(2),
        "<loss>:baseline.constant": float(functional.cross_entropy(y.mean(0).expand(6, 2), target)),
    }  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-5)
    assert torch.equal(generator, torch.get_rng_state())


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [
        ([torch.tensor(1.0)], torch.ones(3, 2)),
        ([torch.ones(1, 2)], torch.ones(1, 2)),
        ([torch.ones(4, 2)], torch.ones(3, 2)),
        ([torch.ones(3, 0)], torch.ones(3, 2)),
        ([torch.ones(3, dtype=torch.int64)], torch.ones(3, 2)),
        ([torch.ones(3)], {"text": "none"}),
    ],
)
def test_where_samples_cannot_be_told_apart_nothing_is_said(outputs: list[torch.Tensor], inputs: Any) -> None:
    ledger = Ledger()
    Dependence(ledger, None).see(0, outputs, ((inputs,), None))
    assert read(ledger) == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_outputs_of_zeros_have_no_spread(dtype: torch.dtype) -> None:
    ledger = Ledger()
    Dependence(ledger, None).see(0, [torch.zeros(3, 2, dtype=dtype)], ((torch.arange(3),), None))
    assert read(ledger) == {":output.spread": 0.0, ":input.differs": pytest.approx(2 / 3)}


# Ranges -------------------------------------------------------------------------------------------------------------


def test_a_ring_holds_the_last_ranges_of_each_leaf() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU()), nn.Linear(3, 2))
    ranges = Ranges(4)
    ranges.attach(model, lambda hook: hook)
    outputs: list[tuple[int, torch.Tensor]] = []
    model[1][0].register_forward_hook(lambda m, a, o: outputs.append((ranges.step, o.detach().clone())))
    for step in range(3):
        ranges.open(step)
        model(torch.randn(5, 3))
        model(torch.randn(2, 5, 3).transpose(0, 1))
    ranges.step = None
    model(torch.randn(5, 3))  # a validation is not of the step
    assert set(ranges._rings) == {"0", "1.0", "2"}
    expected = [(step, float(y.min()), float(y.max())) for step, y in outputs[:6]][-4:]
    assert [(at, low, high) for at, _, low, high in ranges._rings["1.0"].read()] == expected
    assert [order for _, order, *_ in ranges._rings["1.0"].read()] == [1, 4, 1, 4]
    ranges.detach()
    assert sum(len(m._forward_hooks) for m in model.modules()) == 1


def test_a_ring_begins_anew_with_another_dtype_and_takes_what_it_can() -> None:
    class Shifts(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x, x[:0], x.long() if not x.is_complex() else None

    ranges = Ranges(3)
    model = Shifts()
    ranges.attach(model, lambda hook: hook)
    for step, dtype in enumerate([torch.float32, torch.bfloat16, torch.bfloat16, torch.complex64]):
        ranges.open(step)
        model(torch.tensor([-1.0, 2.0]).to(dtype))
    ((step, _, low, high),) = ranges._rings[""].read()
    assert (step, low, high) == (3, -1.0, 2.0)
    ranges.open(4)
    torch.func.vmap(lambda v: model(v)[0])(torch.ones(2, 2))
    assert ranges.unseen == 1


def test_the_report_names_the_first_module_out_of_its_range() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.gain

    model = nn.Sequential(Scales(), Scales(), Scales())
    ranges = Ranges(5)
    ranges.attach(model, lambda hook: hook)
    for step in range(8):
        ranges.open(step)
        model[1].gain = 2.0 if step < 7 else math.inf
        model[2].gain = 1000.0
        model(torch.tensor([1.0, 1.5], dtype=torch.float16) + step / 100)
        if step == 6:
            calm = ranges.report(step)
    assert calm["left_first"] is None and calm["headroom"]["module"] == "2"  # the least is left there
    report = ranges.report(7)
    assert report["left_first"]["module"] == "1" and math.isinf(report["left_first"]["high"])
    assert report["left_first"]["usual"] == pytest.approx(2 * 1.56, rel=1e-2)
    usual = [round(math.log2(65504 / (2 * float(torch.tensor(1.5).half() + s / 100))), 2) for s in range(3, 7)]
    assert report["headroom"] == {"module": "1", "bits": [*map(pytest.approx, usual), None]}
    assert ranges.report(99) == {"left_first": None, "headroom": None}


def test_ranges_go_into_the_finding_and_the_capture(tmp_path: Path) -> None:
    loop = Loop(tmp_path, ranges=3)

    def spoil(step: int) -> None:
        if step == 6:
            loop.model[2].weight.data.mul_(1e30)
            loop.model[2].weight.data[0, 0] = math.inf

    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil)
    evidence = caught.value.finding.evidence["ranges"]
    assert evidence["left_first"]["module"] == "2" and len(evidence["headroom"]["bits"]) == 3
    assert read_capture(caught.value.capture_path).finding.evidence["ranges"]["left_first"]["module"] == "2"
