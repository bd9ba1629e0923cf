"""The recorder of the watch: which functions it sees, what of them, and that it leaves none of them behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brainbrr_debug import Watch
from brainbrr_debug.checks.conditioning import near_singular
from brainbrr_debug.probes.decompositions import PAIRS, Decompositions, degenerate
from brainbrr_debug.probes.ledger import Ledger
from brainbrr_debug.probes.replacement import FUNCTIONS
from brainbrr_debug.records import Reading, Severity
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.spectral import equilibrated, inverse_condition, solution_condition

LA = torch.linalg
N = 4

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, about functions that it will drop


@pytest.fixture
def recorder() -> Iterator[Decompositions]:
    found = Decompositions(Ledger(), {})
    found.attach(lambda hook: hook)
    found.step, found.samples = 0, 3
    yield found
    found.detach()


def read(recorder: Decompositions) -> dict[str, Reading]:
    recorder.finish()
    return {reading.quantity: reading for reading in recorder._ledger.read()}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turned(values: list[float], *, symmetric: bool = False) -> torch.Tensor:
    left, right = (torch.linalg.qr(normal(N, N, seed=seed).double())[0] for seed in range(2))
    return (left @ torch.diag(torch.tensor(values)).double() @ (left.mT if symmetric else right)).float()


def stack(bad: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    return torch.stack([good, bad, 1.5 * good]).requires_grad_()


SOUND, NARROW, POSITIVE = turned([4, 3, 2, 1]), turned([4, 3, 2, 1e-7]), turned([4, 3, 2, 1], symmetric=True)

GAPS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, torch.Tensor]] = {
    "torch.linalg.eigh": (lambda a: LA.eigh(a)[1], torch.eye(N), POSITIVE),
    "torch.linalg.eig": (lambda a: LA.eig(a)[1], torch.diag(torch.tensor([1.0, 2, 2, 3])), SOUND),
    "torch.linalg.svd": (lambda a: LA.svd(a)[0], torch.eye(N), SOUND),
    "torch.svd": (lambda a: torch.svd(a)[2], torch.eye(N), SOUND),
    "torch.Tensor.svd": (lambda a: a.svd()[0], torch.eye(N), SOUND),
}
VALUES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "torch.linalg.eigvalsh": lambda a: LA.eigvalsh(a),
    "torch.linalg.eigvals": lambda a: LA.eigvals(a),
    "torch.linalg.svdvals": lambda a: LA.svdvals(a),
}
DIVISIONS: dict[str, tuple[Callable[[torch.Tensor], Any], torch.Tensor, torch.Tensor]] = {
    "torch.linalg.inv": (lambda a: LA.inv(a), NARROW, SOUND),
    "torch.linalg.inv_ex": (lambda a: LA.inv_ex(a)[0], NARROW, SOUND),
    "torch.inverse": (lambda a: torch.inverse(a), NARROW, SOUND),
    "torch.Tensor.inverse": (lambda a: a.inverse(), NARROW, SOUND),
    "torch.linalg.solve": (lambda a: LA.solve(a, torch.eye(N)), NARROW, SOUND),
    "torch.linalg.solve_ex": (lambda a: LA.solve_ex(a, B=torch.eye(N))[0], NARROW, SOUND),
}


def test_every_function_has_a_planted_fault_and_a_healthy_run() -> None:
    assert {f.name for f in FUNCTIONS} == {*GAPS, *VALUES, *DIVISIONS}


@pytest.mark.parametrize("name", GAPS)
def test_a_gap_that_a_gradient_divides_by(name: str, recorder: Decompositions) -> None:
    program, bad, good = GAPS[name]
    program(stack(bad, good)).abs().sum().backward()
    found = degenerate(recorder.calls, 1e-6, 3)
    assert [(d.op, d.sample) for d in found] == [(name, 1)] and found[0].location.startswith(__file__)
    reading = read(recorder)["eigengap"]
    assert reading.value < 1e-6 and reading.sample == 1


@pytest.mark.parametrize("name", GAPS)
def test_a_wide_gap_is_a_reading_and_no_more(name: str, recorder: Decompositions) -> None:
    program, _, good = GAPS[name]
    program(stack(good * 0.5, good)).abs().sum().backward()
    assert degenerate(recorder.calls, 1e-6, 3) == [] and read(recorder)["eigengap"].value > 1e-2


@pytest.mark.parametrize("name", VALUES)
def test_values_alone_divide_by_nothing(name: str, recorder: Decompositions) -> None:
    VALUES[name](stack(torch.eye(N), POSITIVE)).abs().sum().backward()
    assert recorder.calls[0].op == name and degenerate(recorder.calls, 1e-6, 3) == []
    assert read(recorder)["eigengap.detached"].value == 0


@pytest.mark.parametrize("name", DIVISIONS)
def test_what_is_singular_to_its_precision(name: str, recorder: Decompositions) -> None:
    program, bad, good = DIVISIONS[name]
    program(stack(bad, good)).sum().backward()
    (finding,) = near_singular(read(recorder).values())
    assert (finding.check, finding.severity, finding.evidence["sample"]) == ("run.condition", Severity.P1, 1)
    assert "sample 1, is singular to its precision" in finding.message and recorder.calls == []


@pytest.mark.parametrize("name", DIVISIONS)
def test_what_is_not_singular(name: str, recorder: Decompositions) -> None:
    program, _, good = DIVISIONS[name]
    units = torch.diag(torch.tensor([1e-6, 1.0, 1e6, 1e3]))  # units of measurement are no fault
    program(stack(units @ good @ units, good)).sum().backward()
    found = read(recorder)
    assert 0 < found["condition"].value < 1e-3 and near_singular(found.values()) == []


def test_what_is_not_a_number_is_left_to_other_checks(recorder: Decompositions) -> None:
    LA.inv_ex(torch.full((2, 2), math.nan))
    assert math.isnan(read(recorder)["condition"].value)
    assert near_singular([Reading(step=0, phase="forward", site="", quantity="condition", value=math.nan)]) == []


def test_what_was_written_over_since_is_counted_and_not_guessed(recorder: Decompositions) -> None:
    a = NARROW.clone()
    LA.inv(a)
    a.zero_()
    assert read(recorder) == {} and recorder.unseen == 1


def test_one_matrix_for_many_right_hand_sides(recorder: Decompositions) -> None:
    LA.solve(NARROW, normal(3, N, 2))
    LA.solve(torch.stack([SOUND, NARROW, SOUND]), normal(3, N))
    assert near_singular(read(recorder).values())


def test_right_hand_sides_of_every_shape(recorder: Decompositions) -> None:
    a = torch.stack([SOUND, NARROW])
    LA.solve(NARROW, normal(N))
    for shape in ((2, N), (N, 3), (2, N, 3), (5, 1, N, 3), (N, 0)):
        LA.solve(a, normal(*shape))
    for shape in ((3, N), (2, 3, N), (5, 1, 3, N), (0, N)):
        LA.solve(a, normal(*shape), left=False)
    LA.solve(a, torch.zeros(N, 2))
    recorder.finish()
    assert all(math.isfinite(reading.value) for reading in recorder._ledger.read())


def test_numbers_whose_squares_overflow_raise_no_alarm(recorder: Decompositions) -> None:
    LA.inv(SOUND * 1e30)
    assert 0 < read(recorder)["condition"].value < 1e-5


def test_the_worst_of_several_calls_in_one_module_is_the_reading(recorder: Decompositions) -> None:
    for last in (1.0, 1e-6, 1.0):
        LA.inv(torch.stack([SOUND, turned([4, 3, 2, last]), SOUND]))
    (reading,) = read(recorder).values()
    assert reading.sample == 1 and 1e-2 < reading.value < 1


def test_exact_gaps_of_eigenvalues_without_order(recorder: Decompositions) -> None:
    a = torch.diag(torch.tensor([3.0, 1.0, 2.5]))
    LA.eig(torch.stack([a, torch.eye(3)]))
    assert recorder.calls[0].exact_gaps(torch.tensor([0, 1])).tolist() == [pytest.approx(0.5 / 3), 0.0]


def test_too_many_pairs_of_eigenvalues_are_counted_and_left_alone(recorder: Decompositions) -> None:
    n = math.isqrt(PAIRS) + 1
    LA.eigvals(torch.eye(n))
    assert (recorder.unseen, recorder.calls) == (1, [])


def test_nested_recorders_see_the_same_and_everything_is_put_back() -> None:
    def everywhere() -> list[Any]:
        return [getattr(*f.place) for f in FUNCTIONS]

    methods = {name for name in ("svd", "inverse") if name in vars(torch.Tensor)}
    before = everywhere()
    first, second = Decompositions(Ledger(), {}), Decompositions(Ledger(), {})
    first.attach(lambda hook: hook)
    replaced = everywhere()
    second.attach(lambda hook: hook)
    first.step = second.step = 0
    assert all(a is b for a, b in zip(everywhere(), replaced, strict=True))
    assert not any(a is b for a, b in zip(before, replaced, strict=True))
    torch.eye(2).svd()
    assert len(first.calls) == len(second.calls) == 1
    second.detach()
    second.detach()
    torch.svd(torch.eye(2))
    assert len(first.calls) == 2
    first.detach()
    assert all(a is b for a, b in zip(everywhere(), before, strict=True))
    assert methods == {name for name in ("svd", "inverse") if name in vars(torch.Tensor)} == set()


def test_a_subclass_of_tensors_keeps_its_class(recorder: Decompositions) -> None:
    assert isinstance(nn.Parameter(SOUND).inverse(), torch.Tensor) and len(recorder.divisions) == 1


# Against brute force ------------------------------------------------------------------------------------------------

scales = st.lists(st.integers(-6, 6), min_size=N, max_size=N).map(
    lambda powers: torch.tensor([10.0**p for p in powers])
)


def brute_force(a: np.ndarray[Any, Any]) -> float:
    """The smallest condition number in the maximum norm that scaled rows can give, columns already scaled."""
    rows = np.abs(a).max(1, keepdims=True)
    columns = (np.abs(a) / rows).max(0)
    scaled = a / columns
    scaled = scaled / np.abs(scaled).sum(1, keepdims=True)
    return float(np.linalg.cond(scaled, np.inf))


@settings(max_examples=40)
@given(st.integers(0, 2**20), scales, scales)
def test_an_inverse_tells_the_condition_number(seed: int, rows: Any, columns: Any) -> None:
    a = normal(N, N, seed=seed).double() * rows[:, None] * columns
    assert float(inverse_condition(a, LA.inv(a))) == pytest.approx(brute_force(a.numpy()), rel=1e-6)
    scaled = equilibrated(a)
    assert scaled.abs().amax() <= 1 + 1e-12 and scaled.abs().amax(0).min() > 1 - 1e-12


@settings(max_examples=40)
@given(st.integers(0, 2**20), scales, st.booleans(), st.booleans(), st.integers(1, 3))
def test_a_solution_tells_no_more_than_the_condition_number(
    seed: int, rows: Any, left: bool, vector: bool, k: int
) -> None:
    a = normal(2, N, N, seed=seed).double() * rows[:, None]
    b = normal(2, N, seed=seed + 1).double() if vector and left else normal(2, N, k, seed=seed + 1).double()
    b = b if left else b.mT
    found = solution_condition(a, LA.solve(a, b, left=left), b, left=left)
    true = [brute_force(x) for x in (a if left else a.mT).numpy()]
    assert found.shape == (2,) and all(0 < x <= y * (1 + 1e-9) for x, y in zip(found.tolist(), true, strict=True))


def test_matrices_of_zeros_do_not_break_the_bounds() -> None:
    zero = torch.zeros(2, 2)
    assert torch.equal(equilibrated(zero), zero)
    assert float(solution_condition(torch.eye(2), zero, zero)) == 0


# In a watch ---------------------------------------------------------------------------------------------------------


class Filter(nn.Module):
    """Solves with the covariance of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N, N)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, N) -> (B, T, N)
        covariance = x.mT @ x / x.shape[1]
        return self.linear(x @ LA.solve(covariance, self.linear.weight.expand_as(covariance)))


def watched(run_dir: Any, *, spoil: int | None) -> list[Any]:
    torch.manual_seed(0)
    model = nn.Sequential(Filter())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Watch(model, optimizer, run_dir) as watch:
        for step in range(6):
            x = torch.randn(3, 32, N)
            if step == spoil:
                x[2, :, 1] = x[2, :, 0] * (1 + 1e-6 * x[2, :, 2])
            watch.begin((x,), torch.zeros(()))
            optimizer.zero_grad()
            output = model(x)
            loss = output.square().mean()
            loss.backward()
            if watch.check(loss, output):
                optimizer.step()
    return [f for f in RunDir.open(run_dir).findings().items if f.check == "run.condition"]


def test_a_watch_says_which_sample_made_a_system_singular(tmp_path: Any) -> None:
    (finding,) = watched(tmp_path / "run", spoil=4)
    assert (finding.step, finding.where, finding.evidence["sample"]) == (4, "0", 2)
    readings = [r for r in RunDir.open(tmp_path / "run").readings().items if r.quantity == "condition"]
    assert [r.step for r in readings] == list(range(6))


def test_a_watch_is_silent_about_sound_systems(tmp_path: Any) -> None:
    assert watched(tmp_path / "run", spoil=None) == []
