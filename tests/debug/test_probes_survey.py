"""Sampled steps against brute force: what modules put out, what gradient arrives, what is altered, what is held."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from brainbrr_debug.probes.ledger import Ledger
from brainbrr_debug.probes.reach import in_reach
from brainbrr_debug.probes.survey import Survey
from brainbrr_debug.records import Reading
from brainbrr_debug.statistics import measure, summarize

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.float8_e4m3fn,
]  # fmt: skip


def plain(hook: Any) -> Any:
    return hook


def slow_summary(x: torch.Tensor) -> dict[str, float | None]:
    """One element at a time, in Python."""
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    values = x.detach().double().reshape(-1).tolist()
    absmax = max(abs(v) for v in values)
    return {
        "absmax": absmax,
        "rms": math.sqrt(sum(v * v for v in values) / len(values)),
        "mean": sum(values) / len(values),
        "zeros": sum(v == 0 for v in values) / len(values),
        "headroom": math.log2(torch.finfo(x.dtype).max) - math.log2(absmax) if absmax else None,
    }


def fast_summary(x: torch.Tensor) -> dict[str, float | None]:
    count = x.numel() * (2 if x.is_complex() else 1)
    return dataclasses.asdict(summarize([float(v) for v in measure(x)], count, x.dtype))


def agree(fast: dict[str, Any], slow: dict[str, Any]) -> bool:
    def equal(a: float | None, b: float | None) -> bool:
        return a == b if a is None or b is None else a == pytest.approx(b, rel=1e-4, abs=1e-6)

    return set(fast) == set(slow) and all(equal(fast[k], slow[k]) for k in slow)


@settings(max_examples=80)
@given(
    st.lists(st.floats(-400, 400, width=16), min_size=6, max_size=6),
    st.sampled_from(DTYPES),
    st.sampled_from(["plain", "transposed", "sliced", "expanded", "conjugate"]),
)
def test_the_statistics_agree_with_brute_force(values: list[float], dtype: torch.dtype, layout: str) -> None:
    x = torch.tensor(values, dtype=torch.float64).to(dtype).reshape(2, 3)
    if layout == "transposed":
        x = x.T
    elif layout == "sliced":
        x = x[:, ::2]
    elif layout == "expanded":
        x = x[:, :1].expand(2, 4)
    elif layout == "conjugate" and dtype.is_complex:
        x = (x * (1 + 1j)).conj()
    assert agree(fast_summary(x), slow_summary(x))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows_and_has_no_headroom(bad: float) -> None:
    found = fast_summary(torch.tensor([1.0, bad]))
    assert not math.isfinite(found["absmax"]) and found["headroom"] is None
    assert found["absmax"] > 0 or math.isnan(bad)


class Step:
    """One step of a model under a survey."""

    def __init__(self, model: nn.Module) -> None:
        self.ledger = Ledger()
        self.survey = Survey(self.ledger, model)
        self.survey.attach(plain)
        self.survey.open(3)

    def read(self) -> list[Reading]:
        self.survey.pause()
        return self.ledger.read()


def surveyed(model: nn.Module, *inputs: Any, loss: Callable[[Any], torch.Tensor] | None = None) -> list[Reading]:
    step = Step(model)
    output = model(*inputs)
    (loss or (lambda x: x.square().sum()))(output).backward()
    return step.read()


def of(readings: list[Reading], *quantities: str) -> list[tuple[Any, ...]]:
    return [(r.phase, r.site, r.quantity, r.value) for r in readings if r.quantity in quantities]


def rows(readings: list[Reading], phase: str) -> list[tuple[str, dict[str, float | None]]]:
    """(site, statistics) of each tensor in its order."""
    found: list[tuple[str, dict[str, float | None]]] = []
    for r in readings:
        if r.phase == phase and r.quantity in ("absmax", "rms", "mean", "zeros", "headroom"):
            if r.quantity == "absmax":
                found.append((r.site, {"headroom": None}))
            found[-1][1][r.quantity] = r.value
    return found


class Twice(nn.Module):
    """Calls a shared module twice, out of the order of registration, and works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.shared = nn.Linear(6, 6)
        self.again = self.shared
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.shared(x))
        return self.last(self.again(x) + x)


def slow_step(model: nn.Module, x: torch.Tensor) -> tuple[list[Any], list[Any]]:
    """What the hooks should see, by retained gradients and hand-written calls."""
    a = model.shared(x)
    a_seen = a.detach().clone()
    b = a.relu()
    c = model.shared(b)
    d = model.last(c + b)
    for t in (a, b, c, d):
        t.retain_grad()
    d.square().sum().backward()
    forward = [("shared", a_seen), ("act", b), ("shared", c), ("last", d), ("", d)]
    backward = [("", d.grad), ("last", d.grad), ("shared", c.grad), ("act", b.grad), ("shared", a.grad)]
    return forward, backward


def test_every_call_is_seen_in_true_order_forward_and_backward() -> None:
    torch.manual_seed(0)
    model, x = Twice(), torch.randn(5, 6)
    readings = surveyed(model, x)
    for phase, slow in zip(("forward", "backward"), slow_step(model, x), strict=True):
        found = rows(readings, phase)
        names = [site for site, _ in found]
        if phase == "forward":
            assert names == [site for site, _ in slow]
        else:
            assert sorted(names) == sorted(site for site, _ in slow) and names[2:] == [site for site, _ in slow][2:]
            slow = [slow[0], slow[1], *slow[2:]]
        assert all(agree(fast, slow_summary(x)) for (_, fast), (_, x) in zip(found, slow, strict=True))


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    more: tuple[torch.Tensor, ...]


class Mixed(nn.Module):
    """Puts out whatever a program may put out."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        sparse = torch.sparse_coo_tensor(torch.tensor([[0, 1]]), x[0, :2], (4,), check_invariants=True)
        return {
            "answer": Answer(logits=x * 2, more=(x.half(), x.bfloat16(), x.to(torch.complex64))),
            "sparse": sparse, "index": x.argmax(1), "mask": x > 0, "empty": x[:0], "text": "none", "nothing": None,
        }  # fmt: skip


def test_outputs_of_any_kind_and_nesting() -> None:
    x = torch.tensor([[1.0, 0.0, -3.0], [2.0, 0.5, 0.0]], requires_grad=True)
    readings = surveyed(nn.Sequential(Mixed()), x, loss=lambda o: o["answer"].logits.sum())
    forward = rows(readings, "forward")
    expected = [x * 2, x.half(), x.bfloat16(), x.to(torch.complex64), x[0, :2]]
    assert [site for site, _ in forward] == ["0"] * 5 + [""] * 5
    assert all(agree(fast, slow_summary(y)) for (_, fast), y in zip(forward, expected * 2, strict=True))
    assert [s["absmax"] for _, s in rows(readings, "backward")] == [1.0, 1.0]


def test_a_module_of_another_dtype_has_the_headroom_of_that_dtype() -> None:
    readings = surveyed(nn.Linear(2, 2).half(), torch.ones(1, 2, dtype=torch.float16), loss=lambda y: y.sum())
    ((_, found),) = rows(readings, "forward")
    assert found["headroom"] == pytest.approx(16 - math.log2(found["absmax"]), abs=1e-3)


# Sanitisers ---------------------------------------------------------------------------------------------------------


class Runs(nn.Module):
    """Runs a function inside of a module named `inner`."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.inner.forward = function  # type: ignore[method-assign]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x * 1) * 0


VALUES = [-9.0, -1.0, -0.5, 0.0, 0.5, 1.0, 9.0, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda x: x.clamp(-1, 1), -1, 1),
        (lambda x: x.clone().clamp_(-1, 1), -1, 1),
        (lambda x: torch.clamp(x, max=1), -math.inf, 1),
        (lambda x: torch.clip(x, -1, None), -1, math.inf),
        (lambda x: x.clamp(torch.tensor(-1.0), torch.tensor(1.0)), -1, 1),
        (lambda x: x.clamp_min(-1), -1, math.inf),
        (lambda x: x.clone().clamp_max_(1), -math.inf, 1),
        (functional.hardtanh, -1, 1),
        (lambda x: functional.hardtanh(x.clone(), -0.5, 1, inplace=True), -0.5, 1),
        (functional.relu6, -math.inf, 6),  # the lower bound is a rectifier
        (lambda x: x.clamp(0, 1), -math.inf, 1),
        (lambda x: x.clamp(min=1e-6), -math.inf, math.inf),
        (functional.relu, -math.inf, math.inf),
        (functional.leaky_relu, -math.inf, math.inf),
    ],
)
def test_what_a_clamp_alters_is_counted(function: Any, low: float, high: float) -> None:
    x = torch.tensor(VALUES, requires_grad=True)
    readings = surveyed(Runs(function), x)
    altered = [v for v in VALUES if v < low or v > high]
    expected: list[tuple[Any, ...]] = []
    if altered:
        expected.append(("forward", "inner", "clamped", len(altered) / len(VALUES)))
    if any(math.isinf(v) for v in altered):
        expected.append(("forward", "inner", "sanitised", float(sum(math.isinf(v) for v in altered))))
    found = of(readings, "clamped", "sanitised", "sanitised.data")
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert all(a[3] == pytest.approx(b[3]) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (torch.nan_to_num, 3),
        (lambda x: torch.nan_to_num_(x.clone()), 3),
        (lambda x: x.nan_to_num(posinf=math.inf), 2),
        (lambda x: torch.nan_to_num(x.relu().clamp(max=5)), 1),
    ],
)
def test_what_nan_to_num_hides_is_counted(function: Any, count: int) -> None:
    readings = surveyed(Runs(function), torch.tensor(VALUES, requires_grad=True))
    assert of(readings, "sanitised")[-1][3] == count and not of(readings, "sanitised.data")


def test_cleaning_of_data_goes_by_another_name() -> None:
    model = nn.Sequential(Runs(torch.nan_to_num), nn.Linear(10, 1))
    readings = surveyed(model, torch.tensor(VALUES))
    assert of(readings, "sanitised", "sanitised.data") == [("forward", "0.inner", "sanitised.data", 3.0)]


def test_sanitisers_that_do_nothing_are_not_mentioned() -> None:
    readings = surveyed(Runs(lambda x: torch.nan_to_num(x).clamp(-5, 5)), torch.ones(3, requires_grad=True))
    assert of(readings, "clamped", "sanitised", "sanitised.data") == []


# What is held -------------------------------------------------------------------------------------------------------


def saved_bytes(model: nn.Module, x: torch.Tensor) -> int:
    """The storages that autograd saves, each once, without parameters and input; and the output's."""
    foreign = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), x)}
    sizes: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = model(x)
    sizes[y.untyped_storage().data_ptr()] = y.untyped_storage().nbytes()
    return sum(size for pointer, size in sizes.items() if pointer not in foreign)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)),
        nn.Sequential(nn.Conv1d(6, 4, 3, padding=1), nn.BatchNorm1d(4), nn.GELU(), nn.Dropout(0.5), nn.Conv1d(4, 2, 1)),
        nn.TransformerEncoderLayer(6, 2, 12, batch_first=True),
        nn.Linear(6, 6),
    ],
)
def test_held_bytes_are_those_saved_for_the_backward_pass(model: nn.Module) -> None:
    x = torch.randn(4, 6) if not isinstance(model[0] if isinstance(model, nn.Sequential) else model, nn.Conv1d) else (
        torch.randn(4, 6, 10))  # fmt: skip
    x = torch.randn(2, 5, 6) if isinstance(model, nn.TransformerEncoderLayer) else x
    expected = saved_bytes(model, x)
    readings = surveyed(model, x)
    (total,) = of(readings, "held.bytes.total")
    assert total[3] == expected
    assert sum(row[3] for row in of(readings, "held.bytes")) == expected


def test_without_a_gradient_only_the_output_is_held_and_checkpoints_hold_less() -> None:
    stack = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4)])
    step = Step(stack)
    with torch.no_grad():
        stack(torch.randn(4, 8))
    assert of(step.read(), "held.bytes.total")[0][3] == 4 * 8 * 4

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = stack

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.stack, x, use_reentrant=False)

    x = torch.randn(4, 8, requires_grad=True)
    (less,) = of(surveyed(Checkpointed(), x), "held.bytes.total")
    (more,) = of(surveyed(stack, x), "held.bytes.total")
    assert less[3] < more[3] / 3


# What a program may do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_is_seen_once_and_its_gradients_arrive(reentrant: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(checkpoint(self.a, x, use_reentrant=reentrant))

    readings = surveyed(Model(), torch.randn(2, 3, requires_grad=True))
    assert [site for site, _ in rows(readings, "forward")] == ["a", "b", ""]
    assert sorted(site for site, _ in rows(readings, "backward")) == ["", "a", "b"]


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyError("inside")


class Catches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bad, self.good = nn.Sequential(nn.Linear(2, 2), Failing()), Runs(lambda x: x.clamp(-1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with contextlib.suppress(KeyError):
            return self.bad(x)
        return self.good(x).clamp(-5, -4)


def test_an_exception_inside_leaves_no_trace_of_the_modules_it_ended() -> None:
    readings = surveyed(Catches(), torch.full((2, 2), 3.0, requires_grad=True))
    assert [row[1] for row in of(readings, "clamped")] == ["good.inner", ""]


def dispatch_modes() -> int:
    return int(torch._C._len_torch_dispatch_stack())


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_exception_out_of_the_root_leaves_neither_mode_nor_hook(error: type[BaseException]) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    model = Model()
    step = Step(model)
    with pytest.raises(error):
        model(torch.ones(1))
    step.read()
    assert dispatch_modes() == 0 and hooks(model) == 0


def test_the_root_may_call_itself_and_run_twice() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, depth: int = 1) -> torch.Tensor:
            return self(self.layer(x).clamp(8, 9), depth - 1) if depth else self.layer(x)

    model = Model()
    step = Step(model)
    for _ in range(2):
        model(torch.zeros(1, 2)).sum().backward()
    readings = step.read()
    assert [site for site, _ in rows(readings, "forward")] == ["layer", "layer", "", ""] * 2
    assert len(of(readings, "clamped")) == 0  # clamp(8, 9) has a lower bound that is not negative
    assert len(of(readings, "held.bytes.total")) == 2
    assert dispatch_modes() == 0


def test_function_transforms_are_counted_as_unseen() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            slopes = torch.func.vmap(torch.func.grad(lambda v: self.layer(v).square().sum()))(x)
            return self.layer(x) + slopes

    model = Model()
    step = Step(model)
    model(torch.randn(3, 2)).sum().backward()
    assert [site for site, _ in rows(step.read(), "forward")] == ["layer", ""] and step.survey.unseen == 1


def test_inference_tensors_and_parameters_as_outputs() -> None:
    class Gives(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self) -> torch.Tensor:
            return self.weight

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gives, self.frozen = Gives(), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                y = self.frozen(x)
            return self.gives() * y.clone()

    model = Model()
    step = Step(model)
    with torch.no_grad():
        model(torch.ones(1, 2))
    assert [site for site, _ in rows(step.read(), "forward")] == ["frozen", "gives", ""]
    surveyed(model.gives)
    assert not model.gives.weight._backward_hooks


def train(model: nn.Module, sampled: bool) -> Iterator[torch.Tensor]:
    torch.manual_seed(3)
    optimizer = torch.optim.AdamW(model.parameters())
    step = Step(model)
    step.survey.pause()
    for index in range(3):
        if sampled:
            step.survey.open(index)
        optimizer.zero_grad()
        model(torch.randn(4, 6, 8)).square().mean().backward()
        step.read()
        yield from (p.grad.clone() for p in model.parameters())
        optimizer.step()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_sampled_step_computes_the_same_bits(compiled: bool) -> None:
    def build() -> nn.Module:
        torch.manual_seed(1)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        model = nn.Sequential(nn.Linear(8, 8), layer, nn.Dropout(0.1), nn.ReLU(inplace=True), nn.LayerNorm(8))
        if compiled:
            model[0].compile(backend="eager")
        return model

    pairs = zip(list(train(build(), True)), list(train(build(), False)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_wrong_program_fails_as_it_would_unwatched() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x).exp()
            y.detach().mul_(2)
            return y

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        surveyed(Model(), torch.ones(1, 2))


def test_counts_of_calls_are_those_of_a_counter() -> None:
    model = Twice()
    calls: collections.Counter[str] = collections.Counter()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, a, o, name=name: calls.update([name]))
    readings = surveyed(model, torch.randn(2, 6))
    assert collections.Counter(site for site, _ in rows(readings, "forward")) == calls


def test_compiled_modules_are_left_alone_and_counted() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 2))
    model[1].compile(backend="eager")
    readings = surveyed(model, torch.ones(1, 2))
    assert [site for site, _ in rows(readings, "forward")] == ["0", "2", ""]
    assert [name for name, _ in in_reach(model, model)[0]] == ["", "0", "2"] and in_reach(model, model)[1] == 3
    wrapped = torch.compile(model, backend="eager")
    assert in_reach(model, wrapped) == ([], 6)
    survey = Survey(Ledger(), model, wrapped)
    survey.attach(plain)
    survey.open(0)
    assert hooks(model) == 0 and survey.unseen == 6
