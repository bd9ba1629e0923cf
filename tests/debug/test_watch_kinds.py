"""Every kind of program, healthy and with one planted failure: dtypes, layouts, sharing, checkpointing, compilation."""

from __future__ import annotations

import gc
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from brainbrr_debug import NonFiniteStep, RunDir, Watch, read_capture

sys.path.insert(0, str(Path(__file__).parent))
programs: Any = importlib.import_module("watch_programs")
BAD = 3


class Typed(nn.Module):
    """(B, 4) -> (B, 2) in any real or complex dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.to(self.head.weight.dtype))


class Sparse(nn.Module):
    """Indices (from the first column) to an embedding with a sparse gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 2, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = (x[:, 0].nan_to_num(nan=3.0).abs().long() % 7).repeat(2)  # every row twice: not coalesced
        return self.table(rows) * x.mean()


class Shared(nn.Module):
    """One module under two names, called three times a step."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(torch.tanh(self.first(x)))))


class Checkpointed(nn.Module):
    """The body runs again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.2)), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=False))


class Odd(nn.Module):
    """Frozen, unused and empty parameters beside the one that learns, and an empty output."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.frozen = nn.Linear(4, 2), nn.Linear(4, 2).requires_grad_(False)
        self.unused, self.empty = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(0, 5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(x) + self.frozen(x), x[:0] @ self.empty.new_ones(4, 1) + self.empty.sum()


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3)


KINDS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "float64": (lambda: Typed(torch.float64), adam),
    "bfloat16": (lambda: Typed(torch.bfloat16), adam),
    "float16": (lambda: Typed(torch.float16), sgd),
    "complex64": (lambda: Typed(torch.complex64), adam),
    "complex128": (lambda: Typed(torch.complex128), adam),
    "sparse gradients": (Sparse, sgd),
    "shared modules": (Shared, adam),
    "checkpointed activations": (Checkpointed, adam),
    "frozen, unused and empty parameters": (Odd, adam),
    "compiled, slow": (lambda: torch.compile(Typed(torch.float32), backend="eager"), adam),
    "compiled ahead of time, slow": (lambda: torch.compile(Typed(torch.float32), backend="aot_eager"), adam),
}


def each(*kinds: str) -> list[Any]:
    """Those kinds as parameters of a test; what imports a compiler is slow."""
    return [pytest.param(kind, marks=[pytest.mark.slow] if "slow" in kind else []) for kind in kinds]


def train(kind: str, run_dir: Path, *, bad: int | None, **options: Any) -> Watch:
    """Six steps of two micro-batches; in step `bad` the second one holds a NaN."""
    make, optimize = KINDS[kind]
    torch.manual_seed(0)
    model = make()
    optimizer = optimize(model.parameters())
    with Watch(model, optimizer, run_dir, sentinel=True, **options) as watch:
        for step in range(6):
            batches = [((torch.randn(3, 4),), None) for _ in range(2)]
            if step == bad:
                batches[1][0][0][1, 2] = math.nan
            watch.begin(batches)
            optimizer.zero_grad()
            for inputs, _ in batches:
                output = model(*inputs)
                loss = sum(x.abs().square().sum() for x in (output if isinstance(output, tuple) else (output,))) / 2
                watch.forward(output, loss)
                loss.backward()
            if watch.gradients():
                optimizer.step()
    assert programs.hooks(model) == 0
    return watch


@pytest.mark.parametrize("kind", each(*KINDS))
def test_a_healthy_program_is_silent(tmp_path: Path, kind: str) -> None:
    watch = train(kind, tmp_path / "r", bad=None, snapshot_every=2, state_period=3)
    assert RunDir.open(tmp_path / "r").findings().items == ()
    assert watch.counters["steps"] == 6 and watch.counters["probe_crashes"] == watch.counters["incidents"] == 0


@pytest.mark.parametrize("kind", each(*KINDS))
def test_a_bad_value_stops_it_before_the_update_with_a_capture(tmp_path: Path, kind: str) -> None:
    with pytest.raises(NonFiniteStep) as caught:
        train(kind, tmp_path / "r", bad=BAD)
    finding = caught.value.finding
    assert finding.step == BAD and {"loss", "gradient"} <= set(finding.evidence["nonfinite"])
    assert finding.evidence["state_nonfinite"] == [] and finding.evidence["inputs_nonfinite"][0]["micro_batch"] == 1
    content = read_capture(caught.value.capture_path)
    assert content.step == BAD and len(content.micro_batches) == 2
    assert all(
        torch.isfinite(torch.view_as_real(x) if x.is_complex() else x).all() for x in content.model_state.values()
    )


def test_parameters_without_gradients_are_told_from_healthy_ones(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStep) as caught:
        train("frozen, unused and empty parameters", tmp_path / "r", bad=BAD)
    evidence = caught.value.finding.evidence
    assert evidence["gradient_nonfinite"] == ["head.weight", "head.bias"]
    assert evidence["gradient_finite"] == ["empty"]
    assert evidence["gradient_none"] == ["unused", "frozen.weight", "frozen.bias"]


@pytest.mark.slow
def test_in_a_compiled_model_the_output_is_seen_and_names_are_those_of_the_model_inside(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStep) as caught:
        train("compiled ahead of time, slow", tmp_path / "r", bad=BAD)
    evidence = caught.value.finding.evidence
    assert evidence["logits"]["nan"] > 0 and evidence["gradient_nonfinite"] == ["head.weight", "head.bias"]
    assert set(read_capture(caught.value.capture_path).model_state) == {"head.weight", "head.bias"}


def test_an_optimizer_whose_parameters_got_no_gradient_at_all_is_no_incident(tmp_path: Path) -> None:
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(other.parameters())
    with Watch(model, optimizer, tmp_path / "r") as watch:
        for _ in range(3):
            watch.begin(torch.ones(1, 2), None)
            output = model(torch.ones(1, 2)).detach()
            assert watch.check(output.sum(), output)
            optimizer.step()
    assert watch.counters["incidents"] == 0 and float(watch.gradient_norm) == 0.0


def test_a_model_without_parameters_can_be_watched() -> None:
    shift = nn.Parameter(torch.zeros(2))
    with Watch(nn.Tanh(), torch.optim.SGD([shift], lr=0.1)) as watch:
        watch.begin(torch.ones(2), None)
        loss = (torch.ones(2) + shift).sum()
        loss.backward()
        assert watch.check(loss)
    assert float(watch.gradient_norm) == pytest.approx(math.sqrt(2))


def live_bytes() -> int:
    gc.collect()
    return sum(x.numel() * x.element_size() for x in programs.live_tensors() if x.layout == torch.strided)


@pytest.mark.parametrize("kind", each("float64", "sparse gradients", "checkpointed activations"))
def test_nothing_stays_alive_after_an_exception(tmp_path: Path, kind: str) -> None:
    def run() -> None:
        with pytest.raises(NonFiniteStep):
            train(kind, tmp_path / "r", bad=BAD, snapshot_every=2)

    run()
    before = live_bytes()  # what an earlier test's traceback holds may go at any time
    run()
    assert live_bytes() <= before
