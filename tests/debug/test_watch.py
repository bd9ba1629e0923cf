from __future__ import annotations

import contextlib
import gc
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, RunDir, Watch, read_capture
from brainbrr_debug.checks.run import nonfinite
from brainbrr_debug.records import Severity
from brainbrr_debug.subject import Run, plain_step

EIGH = torch.linalg.eigh


class Spectral(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigh(a)[1][..., :2].abs().flatten(1)


class Network(nn.Module):
    """(B, 4) -> (B, 3); a sample of zeros gives a zero matrix, so a repeated eigenvalue."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Linear(4, 16, bias=False)
        self.pe = Spectral()
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.edges(x).reshape(-1, 4, 4)
        return self.head(self.norm(self.pe(a + a.mT)))


class Loop:
    """A bare training loop; `spoil` may change inputs, output, loss and gradients of a step."""

    def __init__(self, *, model: nn.Module | None = None, **options: Any) -> None:
        torch.manual_seed(1)
        self.model = Network() if model is None else model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.options = options
        self.watch: Watch | None = None

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]

    def run(self, steps: int, spoil: Callable[[int, dict[str, Any]], None] = lambda step, scene: None) -> None:
        generator = torch.Generator().manual_seed(5)
        with Watch(self.model, self.optimizer, **self.options) as self.watch:
            for step in range(steps):
                scene: dict[str, Any] = {"x": torch.randn(5, 4, generator=generator), "target": torch.zeros(5, 3)}
                spoil(step, scene)
                names = [[{"row": i} for i in range(5)]]
                self.watch.begin(scene["x"], scene["target"], identities=names)
                self.optimizer.zero_grad()
                output = self.model(scene["x"])
                scene["output"] = output
                spoil(step, scene)
                loss = (scene["output"] - scene["target"]).square().mean()
                scene["loss"] = loss
                spoil(step, scene)
                scene["loss"].backward()
                scene["model"] = self.model
                spoil(step, scene)
                self.before = self.weights()
                if self.watch.check(scene["loss"], scene["output"]):
                    self.optimizer.step()


def spoil_logits(step: int, scene: dict[str, Any]) -> None:
    if step == 3 and "output" in scene and "loss" not in scene:
        scene["output"] = scene["output"] * torch.tensor([1.0, 1.0, math.nan])


def spoil_hidden_logits(step: int, scene: dict[str, Any]) -> None:
    """Logits with NaN behind a sanitiser: the loss stays finite."""
    if step == 3 and "output" in scene and "loss" not in scene:
        scene["output"] = scene["output"] + torch.tensor([0.0, math.nan, 0.0])
    if step == 3 and "loss" in scene:
        scene["loss"] = torch.nan_to_num(scene["output"]).square().mean()


def spoil_loss(step: int, scene: dict[str, Any]) -> None:
    if step == 3 and "loss" in scene and "model" not in scene:
        scene["loss"] = scene["loss"] + math.inf


def spoil_gradient(step: int, scene: dict[str, Any]) -> None:
    if step == 3 and "model" in scene:
        scene["model"].head.bias.grad[1] = math.nan


def spoil_spectrum(step: int, scene: dict[str, Any]) -> None:
    if step == 3 and "output" not in scene:
        scene["x"][2] = 0


def test_a_healthy_run_is_silent_and_leaves_its_readings(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r")
    loop.run(30)
    run = RunDir.open(tmp_path / "r")
    assert run.findings().items == () and run.list_captures() == []
    readings = run.readings().items
    assert {r.quantity for r in readings} == {"loss", "output.sum", "gradient.norm", "learning_rate", "eigengap"}
    assert {r.step for r in readings} == set(range(30))
    assert nonfinite(readings) == []
    assert loop.watch.counters["steps"] == 30 and loop.watch.counters["incidents"] == 0


@pytest.mark.parametrize(
    ("spoil", "where", "also"),
    [
        (spoil_logits, "logits", ["logits", "loss", "gradient"]),
        (spoil_hidden_logits, "logits", ["logits"]),
        (spoil_loss, "loss", ["loss"]),
        (spoil_gradient, "gradient", ["gradient"]),
        (spoil_spectrum, "gradient", ["gradient"]),
    ],
)
def test_every_planted_failure_stops_before_the_update(
    tmp_path: Path, spoil: Callable[[int, dict[str, Any]], None], where: str, also: list[str]
) -> None:
    loop = Loop(run_dir=tmp_path / "r", subject="here:thing", seed=9)
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil)
    finding = caught.value.finding
    assert (finding.check, finding.severity, finding.where, finding.step) == ("run.nonfinite", Severity.P0, where, 3)
    assert finding.evidence["nonfinite"] == also
    assert all(torch.equal(a, b) for a, b in zip(loop.before, loop.weights(), strict=True))
    assert caught.value.capture_path == tmp_path / "r" / "captures" / "000003.h5"
    assert str(caught.value).startswith("step 3: ")
    assert str(caught.value).endswith(f"next: brainbrr-debug bisect {caught.value.capture_path}")
    assert RunDir.open(tmp_path / "r").findings().items[-1].step == 3
    captured = read_capture(caught.value.capture_path)
    assert (captured.step, captured.subject, captured.seed) == (3, "here:thing", 9)
    assert captured.healthy_micro_batches is not None and captured.readings[-1].step == 3
    for name, value in loop.model.state_dict().items():
        if not name.startswith("norm."):
            assert torch.equal(captured.model_state[name], value)


def test_the_finding_names_gap_site_sample_identity_and_the_partition_of_gradients(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r")
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil_spectrum)
    evidence = caught.value.finding.evidence
    assert evidence["gradient_nonfinite"] == ["edges.weight"]
    assert evidence["gradient_finite"] == ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    assert evidence["eigengap"] == {"value": 0.0, "site": "pe", "sample": 2}
    tie = evidence["degenerate"][0]
    assert (tie["site"], tie["sample"], tie["identity"], tie["exact_gap"]) == ("pe", 2, {"row": 2}, 0.0)
    assert tie["op"] == "torch.linalg.eigh" and Path(tie["location"].rpartition(":")[0]).name == "test_watch.py"
    assert "gradients of 1 of 5 parameters, under edges" in str(caught.value)
    assert "smallest relative eigengap 0 in pe (torch.linalg.eigh, sample 2)" in str(caught.value)


def test_the_leading_indicator_is_a_finding_that_does_not_stop(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", eigengap=1e9)
    loop.run(3)
    found = RunDir.open(tmp_path / "r").findings().items
    assert [(f.check, f.severity, f.where) for f in found] == [("run.eigengap", Severity.P1, "pe")] * 3
    assert "at or below 1e+09, and a gradient flows through the vectors" in found[0].message
    assert found[0].evidence["degenerate"][0]["identity"] == {"row": found[0].evidence["sample"]}


def test_vectors_without_a_gradient_are_read_but_no_finding(tmp_path: Path) -> None:
    class Detached(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.edges(x).reshape(-1, 4, 4)
            return self.head(self.norm(self.pe((a + a.mT).detach())))

    loop = Loop(model=Detached(), run_dir=tmp_path / "r", eigengap=1e9)
    loop.run(10, spoil_spectrum)
    run = RunDir.open(tmp_path / "r")
    assert run.findings().items == ()
    assert [r.value for r in run.readings().items if r.quantity == "eigengap.detached" and r.step == 3] == [0.0]


def test_eigenvalues_alone_do_no_harm(tmp_path: Path) -> None:
    class Values(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.edges(x).reshape(-1, 4, 4)
            return self.head(torch.linalg.eigh(a + a.mT)[0].repeat(1, 2))

    loop = Loop(model=Values(), run_dir=tmp_path / "r", eigengap=1e9)
    loop.run(5, spoil_spectrum)
    assert RunDir.open(tmp_path / "r").findings().items == ()


def test_a_gap_that_only_rounding_made_small_is_no_finding(tmp_path: Path) -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = torch.diag(torch.tensor([1.0, 1.0 + 2**-20, 2.0])) + self.shift
            return torch.linalg.eigh(a)[1].abs().sum() * torch.ones(5, 3) + x.sum() * 0

    for threshold, expected in ((4.7e-7, 0), (4.8e-7, 1)):  # the exact gap is 2**-20 / 2
        loop = Loop(model=Narrow(), run_dir=tmp_path / str(threshold), eigengap=threshold)
        loop.run(1)
        assert len(RunDir.open(tmp_path / str(threshold)).findings().items) == expected


# Policies -----------------------------------------------------------------------------------------------------------


def spoil_often(step: int, scene: dict[str, Any]) -> None:
    if step in (3, 5, 6) and "model" in scene:
        scene["model"].head.bias.grad[1] = math.nan


def test_skip_drops_the_update_counts_and_goes_on(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", policy="skip")
    loop.run(10, spoil_often)
    assert all(torch.isfinite(w).all() for w in loop.weights())
    assert loop.watch.counters["skipped"] == 3 and loop.watch.counters["captures"] == 1
    found = RunDir.open(tmp_path / "r").findings().items
    assert [f.step for f in found] == [3, 6]
    assert found[1].message.startswith("2 more of the same, the last in step 6: ")


def test_skip_has_a_limit(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", policy="skip", max_skipped=2)
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil_often)
    assert caught.value.finding.step == 6 and loop.watch.counters["skipped"] == 2
    assert caught.value.capture_path.name == "000006.h5"


@pytest.mark.parametrize("policy", ["record", "sanitize"])
def test_record_goes_on_with_one_capture_for_each_kind_of_incident(tmp_path: Path, policy: Any) -> None:
    class Sanitised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        spoil_gradient(step, scene)
        if "loss" in scene and "model" not in scene:
            scene["loss"] = torch.nan_to_num(scene["output"]).square().mean()

    loop = Loop(model=Sanitised(), run_dir=tmp_path / "r", policy=policy)
    loop.run(10, spoil)
    run = RunDir.open(tmp_path / "r")
    assert [p.name for p in run.list_captures()] == ["000003.h5", "000004.h5"]
    assert [(f.where, f.step) for f in run.findings().items] == [("gradient", 3), ("logits", 4), ("logits", 9)]
    assert loop.watch.counters["incidents"] == 7
    state = read_capture(run.list_captures()[1]).finding.evidence["state_nonfinite"]
    assert "head.bias" in state and any(name.startswith("head.bias:exp_avg") for name in state)


def test_an_unknown_policy_is_refused() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="policy is 'pause'; expected stop, skip, record or sanitize"):
        Watch(model, torch.optim.SGD(model.parameters()), policy="pause")  # type: ignore[arg-type]


def test_without_a_run_directory_nothing_is_written_and_the_step_still_stops() -> None:
    with pytest.raises(NonFiniteStep) as caught:
        Loop().run(10, spoil_gradient)
    assert caught.value.capture_path is None and "next:" not in str(caught.value)


def test_a_capture_that_cannot_be_written_does_not_hide_the_finding(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", config={"thing": object()})
    with pytest.raises(TypeError, match="object has no JSON form"):  # said at once, not at the incident
        loop.run(10, spoil_gradient)
    loop = Loop(run_dir=tmp_path / "s")
    (tmp_path / "s" / "captures").mkdir(parents=True)
    (tmp_path / "s" / "captures").rmdir()
    (tmp_path / "s").mkdir(exist_ok=True)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        spoil_gradient(step, scene)
        if step == 3 and "output" not in scene:
            (tmp_path / "s" / "captures").rmdir()
            (tmp_path / "s" / "captures").touch()

    with pytest.raises(NonFiniteStep, match=r"the gradient is not finite.*; no capture: .*cannot be written") as caught:
        loop.run(10, spoil)
    assert caught.value.capture_path is None


# What must not alarm, and what must --------------------------------------------------------------------------------


def test_a_mask_of_infinities_is_noted_once_and_harmless(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x).masked_fill(torch.tensor([False, True, False]), -math.inf)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if "loss" not in scene and "output" in scene:
            scene["target"] = torch.zeros(5, 3)
            scene["output"] = scene["output"].softmax(-1)

    loop = Loop(model=Masked(), run_dir=tmp_path / "r")
    loop.run(4, spoil)
    found = RunDir.open(tmp_path / "r").findings().items
    assert [(f.check, f.severity) for f in found] == [("run.infinite_output", Severity.P2)] * 2
    assert found[1].message.startswith("3 more of the same")


def test_finite_values_that_overflow_a_sum_are_cleared(tmp_path: Path) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if "output" in scene and "loss" not in scene:
            scene["output"] = scene["output"] * 0 + 3e38 * torch.tensor([1.0, 1.0, -1.0])
        if "loss" in scene and "model" not in scene:
            scene["loss"] = scene["output"][0, 0] * 1e-38

    loop = Loop(model=Large(), run_dir=tmp_path / "r")
    loop.run(2, spoil)
    run = RunDir.open(tmp_path / "r")
    assert run.findings().items == ()
    assert nonfinite(run.readings().items) == []


def test_finite_gradients_whose_norm_overflows_are_no_incident_but_a_finding(tmp_path: Path) -> None:
    def spoil(step: int, scene: dict[str, Any]) -> None:
        if "model" in scene:
            scene["model"].head.bias.grad.fill_(1e30)

    loop = Loop(run_dir=tmp_path / "r")
    loop.run(1, spoil)
    assert float(loop.watch.gradient_norm) == pytest.approx(3**0.5 * 1e30)
    finding = RunDir.open(tmp_path / "r").findings().items[0]
    assert (finding.check, finding.severity) == ("run.gradient_overflow", Severity.P1)


def test_bad_data_is_named_with_its_index(tmp_path: Path) -> None:
    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 2 and "output" not in scene:
            scene["target"][4, 1] = math.nan

    loop = Loop(run_dir=tmp_path / "r")
    with pytest.raises(NonFiniteStep, match=r"the target was not finite on arrival, first at \[4, 1\]"):
        loop.run(10, spoil)


def test_a_poisoned_parameter_that_nothing_uses_is_found_within_the_period(tmp_path: Path) -> None:
    model = Network()
    model.unused = nn.Parameter(torch.zeros(50))
    loop = Loop(model=model, run_dir=tmp_path / "r", state_period=10)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 12:
            model.unused.data[3] = math.nan

    with pytest.raises(NonFiniteStep, match="parameters or optimizer state are not finite") as caught:
        loop.run(40, spoil)
    assert 12 <= caught.value.finding.step < 32
    assert caught.value.finding.evidence["state_nonfinite"] == ["unused"]


def test_an_exception_that_a_nan_caused_is_an_incident(tmp_path: Path) -> None:
    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 3 and "output" not in scene:
            scene["x"][1, 1] = math.nan

    loop = Loop(run_dir=tmp_path / "r")
    with pytest.raises(NonFiniteStep, match=r"step 3: (_LinAlgError|LinAlgError): linalg.eigh") as caught:
        loop.run(10, spoil)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert caught.value.finding.evidence["inputs_nonfinite"][0]["first"] == [1, 1]
    assert read_capture(caught.value.capture_path).expected["losses"] == []


def test_other_exceptions_pass_untouched(tmp_path: Path) -> None:
    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 3:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Loop(run_dir=tmp_path / "r").run(10, spoil)
    assert RunDir.open(tmp_path / "r").findings().items == ()


def test_the_sentinel_names_the_first_module(tmp_path: Path) -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x)))

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 3 and "output" not in scene:
            scene["x"][1, 1] = math.nan

    loop = Loop(model=Chain(), run_dir=tmp_path / "r", sentinel=True)
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil)
    assert caught.value.finding.evidence["first_module"] == "a"


# Micro-batches, loss scaling, buffers -------------------------------------------------------------------------------


def test_every_micro_batch_is_seen_and_captured(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters())
    batches = [((torch.randn(5, 4),), torch.zeros(5, 3)) for _ in range(9)]
    batches[7][0][0][4] = 0  # second micro-batch of step 2

    def train() -> None:
        with Watch(model, optimizer, tmp_path / "r", healthy_batches=2) as watch:
            for step in range(3):
                micro = batches[3 * step : 3 * step + 3]
                watch.begin(micro, step=step, identities=lambda: [[{"n": i} for i in range(5)]] * 3)
                plain_step(Run(model, optimizer, nn.functional.mse_loss, ()))(micro, watch)
                watch.end()

    with pytest.raises(NonFiniteStep) as caught:
        train()
    tie = caught.value.finding.evidence["degenerate"][0]
    assert (tie["micro_batch"], tie["sample"], tie["identity"]) == (1, 4, {"n": 4})
    captured = read_capture(caught.value.capture_path)
    assert len(captured.micro_batches) == 3 and len(captured.healthy_micro_batches) == 6
    assert torch.equal(captured.healthy_micro_batches[0][0][0], batches[3][0][0])  # the latest step first
    assert len(captured.expected["losses"]) == 3 and len(captured.identities) == 3


def test_micro_batches_may_be_added_one_by_one(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)

    def train() -> None:
        with Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path / "r") as watch:
            for index, x in enumerate((torch.ones(3, 2), torch.full((3, 2), math.nan))):
                watch.add(x, None) if index else watch.begin(x, None)
                loss = model(x).sum()
                watch.forward(None, loss)
                loss.backward()
            watch.gradients()

    with pytest.raises(NonFiniteStep) as caught:
        train()
    assert len(read_capture(caught.value.capture_path).micro_batches) == 2
    assert caught.value.finding.evidence["inputs_nonfinite"][0]["micro_batch"] == 1
    assert caught.value.finding.evidence["logits"]["nan"] == 3  # through the hook alone


class Scaled:
    """A loop with a GradScaler on the CPU; `bad` steps have a gradient that overflows."""

    def __init__(self, tmp_path: Path, *, unscale: bool, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        self.unscale, self.path, self.options = unscale, tmp_path / "r", options
        self.norms: list[float] = []

    def run(self, steps: int, bad: Callable[[int], bool]) -> Watch:
        with Watch(self.model, self.optimizer, self.path, scaler=self.scaler, **self.options) as watch:
            for step in range(steps):
                x = torch.ones(2, 4)
                watch.begin(x, None)
                self.optimizer.zero_grad()
                loss = self.model(x).sum()
                self.scaler.scale(loss).backward()
                if bad(step):
                    self.model.weight.grad[0, 0] = math.inf
                if self.unscale:
                    self.scaler.unscale_(self.optimizer)
                if watch.check(loss):
                    self.norms.append(float(watch.gradient_norm))
                    self.scaler.step(self.optimizer)
                self.scaler.update()
        return watch


@pytest.mark.parametrize("unscale", [True, False])
def test_a_skipped_scaler_step_is_no_incident_until_it_repeats(tmp_path: Path, unscale: bool) -> None:
    scaled = Scaled(tmp_path, unscale=unscale, scaler_patience=3)
    watch = scaled.run(12, lambda step: step in (0, 1, 2, 6))
    assert watch.counters["skipped_by_scaler"] == 4 and watch.counters["incidents"] == 0
    assert scaled.norms[-1] == pytest.approx(20**0.5)  # of the unscaled gradient: eight twos and one of two
    run = RunDir.open(tmp_path / "r")
    assert run.findings().items == () and nonfinite(run.readings().items) == []
    scaled = Scaled(tmp_path / "again", unscale=unscale, scaler_patience=3)
    with pytest.raises(NonFiniteStep) as caught:
        scaled.run(12, lambda step: step >= 5)
    assert caught.value.finding.step == 8


def test_an_overflow_at_a_scale_of_one_is_an_incident_at_once(tmp_path: Path) -> None:
    scaled = Scaled(tmp_path, unscale=True)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    with pytest.raises(NonFiniteStep):
        scaled.run(3, lambda step: step == 1)


def test_captured_buffers_are_those_of_the_start(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r")
    seen: dict[str, torch.Tensor] = {}

    def spoil(step: int, scene: dict[str, Any]) -> None:
        spoil_spectrum(step, scene)
        if step == 3 and "output" not in scene:
            seen.update({name: b.clone() for name, b in loop.model.named_buffers()})

    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil)
    state = read_capture(caught.value.capture_path).model_state
    assert len(seen) == 3 and all(torch.equal(state[name], value) for name, value in seen.items())
    assert not torch.equal(loop.model.norm.running_mean, seen["norm.running_mean"])


def test_a_batch_that_was_written_into_is_said_so(tmp_path: Path) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mul_(2))

    loop = Loop(model=InPlace(), run_dir=tmp_path / "r")
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil_gradient)
    assert caught.value.finding.evidence["batch_modified_in_place"] is True
    assert read_capture(caught.value.capture_path).healthy_micro_batches is None


# Cleanliness --------------------------------------------------------------------------------------------------------


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


@pytest.mark.parametrize("spoil", [lambda step, scene: None, spoil_gradient])
def test_hooks_and_replacements_are_gone_afterwards(spoil: Any) -> None:
    loop = Loop(sentinel=True)
    inside: list[Any] = []

    def look(step: int, scene: dict[str, Any]) -> None:
        inside.append((hooks(loop.model), torch.linalg.eigh is EIGH))
        spoil(step, scene)

    with contextlib.suppress(NonFiniteStep):
        loop.run(5, look)
    assert inside[0][0] >= 4 and inside[0][1] is False
    assert hooks(loop.model) == 0 and torch.linalg.eigh is EIGH


def test_watches_may_overlap_in_any_order() -> None:
    models = [Network(), Network()]
    first, second = (Watch(m, torch.optim.SGD(m.parameters(), lr=0.1)) for m in models)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.linalg.eigh is not EIGH
    second.__exit__(None, None, None)
    assert torch.linalg.eigh is EIGH


def test_calls_out_of_order_say_what_was_expected() -> None:
    model = nn.Linear(1, 1)
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match=r"the watch is not active; expected begin inside of `with Watch"):
        watch.begin(torch.ones(1), None)
    with watch, pytest.raises(RuntimeError, match="no step is open; expected begin before forward"):
        watch.gradients()


def test_a_step_that_nobody_decided_is_counted() -> None:
    model = nn.Linear(1, 1)
    with Watch(model, torch.optim.SGD(model.parameters(), lr=0.1)) as watch:
        watch.begin(torch.ones(1), None)
        watch.begin(torch.ones(1), None)
        watch.end()
    assert watch.counters["unchecked"] == 2


def test_a_probe_that_crashes_is_a_finding_and_the_run_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("brainbrr_debug.probes.decompositions.eigengap", lambda values: 1 / 0)
    loop = Loop(run_dir=tmp_path / "r")
    loop.run(4)
    finding = RunDir.open(tmp_path / "r").findings().items
    assert len(finding) == 1 and finding[0].check == "run.probe" and "ZeroDivisionError" in finding[0].message
    assert loop.watch.counters["probe_crashes"] == 1


def live_tensors() -> Iterator[torch.Tensor]:
    return (o for o in gc.get_objects() if issubclass(type(o), torch.Tensor))


def test_a_long_watch_holds_on_to_nothing(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", healthy_batches=2, sentinel=True)
    sizes: list[int] = []

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step in (20, 120) and "output" not in scene:
            gc.collect()
            sizes.append(sum(x.numel() * x.element_size() for x in live_tensors()))

    loop.run(121, spoil)
    assert sizes[0] == sizes[1]


def test_readings_are_json_lines_without_nan_literals(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStep):
        Loop(run_dir=tmp_path / "r").run(10, spoil_gradient)
    for name in ("readings.jsonl", "findings.jsonl", "environment.json"):
        text = (tmp_path / "r" / name).read_text()
        assert "NaN" not in text.replace("not finite", "") and "Infinity" not in text
    line = json.loads((tmp_path / "r" / "readings.jsonl").read_text().splitlines()[3])
    assert ["backward", "", "gradient.norm", "nan"] in line["readings"]
