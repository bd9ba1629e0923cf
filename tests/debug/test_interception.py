"""Every decomposition is seen wherever it is called, and measured as NumPy and SciPy would."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.linalg import eigh as bound_before
from torch.utils.checkpoint import checkpoint

from brainbrr_debug.factorization import OPERATIONS
from brainbrr_debug.interception import Interception
from brainbrr_debug.matrices import Call, Matrix

LA = torch.linalg
B, N, K = 3, 4, 2

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, about functions that it will drop


def play(program: Callable[..., Any], *arguments: Any) -> None:
    program(*arguments)


def spy(program: Callable[..., Any], *arguments: Any, model: nn.Module | None = None, samples: int = B) -> Interception:
    seen = Interception(model or nn.Identity(), [samples, samples], frozenset({play.__code__}))
    with seen.attached():
        play(program, *arguments)
    return seen


def only(seen: Interception) -> Call:
    (call,) = seen.calls()
    return call


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_singular_values(values: list[float], seed: int = 0) -> torch.Tensor:
    left, right = (torch.linalg.qr(normal(len(values), len(values), seed=seed + i).double())[0] for i in range(2))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right


def symmetric(values: list[float], seed: int = 0) -> torch.Tensor:
    q = torch.linalg.qr(normal(len(values), len(values), seed=seed).double())[0]
    return q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ q.mT


SOUND = with_singular_values([4, 3, 2, 1])
POSITIVE = symmetric([4, 3, 2, 1])
NARROW = with_singular_values([4, 3, 2, 1e-9])
UNSURE = symmetric([4, 3, 2, 1e-9])
RIGHT = normal(N, K)


def stacked(bad: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Sample 1 of three is the bad one; float32 with a gradient to come."""
    return torch.stack([good, bad, good * 1.5]).float().requires_grad_()


def through(pick: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], None]:
    return lambda a: pick(a).abs().sum().backward()


CASES: dict[str, tuple[Callable[[torch.Tensor], None], torch.Tensor, torch.Tensor, str]] = {
    "eigh": (through(lambda a: LA.eigh(a)[1]), symmetric([1, 2, 2, 3]), symmetric([1, 2, 2.5, 3]), "gap"),
    "eig": (through(lambda a: LA.eig(a)[1]), torch.diag(torch.tensor([1.0, 2, 2, 3])), SOUND, "gap"),
    "svd": (through(lambda a: LA.svd(a)[0]), with_singular_values([3, 2, 2, 1]), SOUND, "gap"),
    "qr": (through(lambda a: LA.qr(a)[0]), NARROW, SOUND, "condition"),
    "cholesky": (through(LA.cholesky), UNSURE + 1e-6 * torch.eye(N), POSITIVE, "condition"),
    "inv": (through(LA.inv), NARROW, SOUND, "condition"),
    "pinv": (through(lambda a: LA.pinv(a, rtol=0.0)), NARROW, SOUND, "condition"),
    "solve": (through(lambda a: LA.solve(a, RIGHT)), NARROW, SOUND, "condition"),
    "lstsq": (through(lambda a: LA.lstsq(a, RIGHT.expand(B, N, K), driver="gels")[0]), NARROW, SOUND, "condition"),
    "det": (through(LA.det), NARROW, SOUND, "condition"),
    "slogdet": (through(torch.logdet), UNSURE + 1e-6 * torch.eye(N), POSITIVE, "condition"),
    "lu": (through(lambda a: LA.lu(a)[2]), NARROW, SOUND, "condition"),
    "lu_factor": (through(lambda a: LA.lu_factor(a)[0]), NARROW, SOUND, "condition"),
    "solve_triangular": (
        through(lambda a: LA.solve_triangular(a, RIGHT, upper=True)),
        torch.eye(N) * 1e-9 + torch.ones(N, N).triu() * 1e9 - torch.diag(torch.full((N,), 1e9)),
        torch.ones(N, N).triu(),
        "condition",
    ),
    "triangular_solve": (
        through(lambda a: torch.triangular_solve(RIGHT.expand(B, N, K), a)[0]),
        torch.eye(N) * 1e-9 + torch.ones(N, N).triu() * 1e9 - torch.diag(torch.full((N,), 1e9)),
        torch.ones(N, N).triu(),
        "condition",
    ),
    "cholesky_solve": (
        through(lambda a: torch.cholesky_solve(RIGHT.expand(B, N, K), a)),
        torch.tensor(np.tril(np.ones((N, N))) * 1.0) * torch.tensor([1, 1, 1, 1e-5]),
        torch.linalg.cholesky(POSITIVE),
        "condition",
    ),
    "cholesky_inverse": (
        through(torch.cholesky_inverse),
        torch.tensor(np.tril(np.ones((N, N))) * 1.0) * torch.tensor([1, 1, 1, 1e-5]),
        torch.linalg.cholesky(POSITIVE),
        "condition",
    ),
}
"""Program, its degenerate matrix, its healthy one, and what is degenerate."""


@pytest.mark.parametrize("name", CASES)
def test_a_planted_matrix_is_named_and_its_neighbours_are_not(name: str) -> None:
    program, bad, good, why = CASES[name]
    call = only(spy(program, stacked(bad, good)))
    assert call.name == name and call.gradient
    assert [bool(m.degenerate) for m in call.matrices] == [False, True, False]
    assert call.worst.index == call.worst.sample == 1 and why in call.worst.degenerate
    assert call.location.startswith(__file__)


@pytest.mark.parametrize("name", CASES)
def test_a_healthy_stack_is_passed_in_silence(name: str) -> None:
    program, _, good, _ = CASES[name]
    call = only(spy(program, stacked(good * 0.7, good)))
    assert not any(m.degenerate or m.harmless for m in call.matrices)
    assert all(m.residual is None or m.residual < call.limits.error / 10 for m in call.matrices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("n", [1, 2, 33])
def test_random_matrices_raise_no_alarm(n: int, dtype: torch.dtype) -> None:
    a = torch.randn(2, n, n, generator=torch.Generator().manual_seed(n), dtype=dtype)
    positive = a @ a.mH / n + torch.eye(n)
    b = torch.ones(2, n, 1, dtype=dtype)

    def program(a: torch.Tensor, positive: torch.Tensor) -> None:
        parts = [
            *LA.eigh(positive),
            *LA.svd(a)[:1],
            *LA.eig(a),
            *LA.qr(a),
            LA.cholesky(positive),
            LA.inv(a),
            LA.pinv(a),
        ]
        parts += [LA.det(a), LA.slogdet(positive)[1], LA.solve(a, b), LA.lstsq(a, b)[0]]
        # Of complex vectors only what their phase leaves alone has a gradient.
        sum(part.abs().square().sum() for part in parts).backward()

    calls = spy(program, a.requires_grad_(), positive.detach().requires_grad_()).calls()
    assert len(calls) == 11 and all(call.gradient for call in calls)
    assert [(c.name, m) for c in calls for m in c.matrices if m.degenerate or m.harmless] == []


def test_lu_solve_is_judged_by_the_matrix_behind_its_factors() -> None:
    for bad in (False, True):
        a = stacked(NARROW if bad else SOUND, SOUND)
        _, solved = spy(lambda a: LA.lu_solve(*LA.lu_factor(a), RIGHT.expand(B, N, K)), a).calls()
        assert [bool(m.degenerate) for m in solved.matrices] == [False, bad, False]


# Against NumPy and SciPy --------------------------------------------------------------------------------------------

spectra = st.lists(st.integers(1, 40), min_size=2, max_size=5).map(lambda numbers: [n / 4 for n in numbers])


def smallest_gap(values: np.ndarray[Any, Any]) -> float:
    apart = np.abs(values[:, None] - values[None, :])[~np.eye(len(values), dtype=bool)]
    return float(apart.min() / np.abs(values).max())


@settings(max_examples=25)
@given(st.integers(0, 2**20), spectra)
def test_eigh_is_measured_as_by_brute_force(seed: int, values: list[float]) -> None:
    a = symmetric(values, seed)
    (m,) = only(spy(LA.eigh, a)).matrices
    found, vectors = np.linalg.eigh(a.numpy())
    assert m.gap == pytest.approx(smallest_gap(np.array(values)), abs=1e-12)
    assert m.condition == pytest.approx(max(values) / min(values), rel=1e-8)
    assert m.smallest == pytest.approx(min(values), rel=1e-8)
    assert sorted(m.multiplicities) == sorted(values.count(v) for v in set(values))
    if m.gap and m.gap > 1e-6:
        assert m.amplification == pytest.approx(1 / (m.gap * max(values)), rel=1e-6)
    loss = np.linalg.norm(vectors.T @ vectors - np.eye(len(values)))
    wrong = np.linalg.norm(a.numpy() @ vectors - vectors * found) / np.linalg.norm(a.numpy())
    assert (m.orthogonality, m.residual) == (pytest.approx(loss, abs=1e-14), pytest.approx(wrong, abs=1e-14))


@settings(max_examples=25)
@given(st.integers(0, 2**20), st.integers(1, 5), st.integers(1, 5))
def test_svd_qr_and_pinv_of_any_shape(seed: int, m: int, n: int) -> None:
    a = normal(m, n, seed=seed)
    wide = a.double().numpy()
    values = np.linalg.svd(wide, compute_uv=False)
    svd, qr, pinv = (only(spy(f, a)).matrices[0] for f in (LA.svd, LA.qr, LA.pinv))
    bordering = values if m == n else np.append(values, 0.0)
    expected = smallest_gap(bordering) if len(bordering) > 1 else math.inf
    assert svd.gap == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert svd.condition == pytest.approx(np.linalg.cond(wide), rel=1e-6)
    assert pinv.smallest == pytest.approx(values.min(), rel=1e-6, abs=1e-9)
    assert qr.condition == pytest.approx(np.linalg.cond(wide[:, : min(m, n)]), rel=1e-6)
    q, r = (x.double().numpy() for x in LA.qr(a))
    assert qr.residual == pytest.approx(np.linalg.norm(q @ r - wide) / np.linalg.norm(wide), abs=1e-12)
    assert qr.orthogonality == pytest.approx(np.linalg.norm(q.T @ q - np.eye(q.shape[1])), abs=1e-12)
    x = LA.pinv(a).double().numpy()
    scale = np.linalg.norm(x) ** 2 * np.linalg.norm(wide)
    assert pinv.residual == pytest.approx(np.linalg.norm(x @ wide @ x - x) / scale, abs=1e-12)


@settings(max_examples=25)
@given(st.integers(0, 2**20), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans())
def test_solutions_from_both_sides_and_by_triangles(seed: int, n: int, k: int, left: bool, upper: bool) -> None:
    a = normal(n, n, seed=seed) + 2 * torch.eye(n)
    b = normal(*((n, k) if left else (k, n)), seed=seed + 1)
    triangle = a.triu() if upper else a.tril()
    programs: list[tuple[Callable[[], torch.Tensor], torch.Tensor]] = [
        (lambda: LA.solve(a, b, left=left), a),
        (lambda: LA.solve_triangular(a, b, upper=upper, left=left), triangle),
        (lambda: LA.lu_solve(*LA.lu_factor(a), b, left=left), a),
    ]
    for program, matrix in programs:
        m = spy(program).calls()[-1].matrices[0]
        wide, right, x = (y.double().numpy() for y in (matrix, b, program()))
        back = wide @ x if left else x @ wide
        scale = np.linalg.norm(wide) * np.linalg.norm(x) + np.linalg.norm(right)
        assert m.condition == pytest.approx(np.linalg.cond(wide), rel=1e-5)
        assert m.residual == pytest.approx(np.linalg.norm(back - right) / scale, abs=1e-7)


@settings(max_examples=25)
@given(st.integers(0, 2**20), spectra, st.booleans())
def test_cholesky_reads_one_triangle(seed: int, values: list[float], upper: bool) -> None:
    a = symmetric(values, seed)
    spoiled = a + (torch.full_like(a, math.nan).tril(-1) if upper else torch.full_like(a, math.nan).triu(1))
    (m,) = only(spy(lambda: LA.cholesky(torch.where(spoiled.isnan(), 7.0, spoiled), upper=upper))).matrices
    assert (m.smallest, m.condition) == (pytest.approx(min(values)), pytest.approx(max(values) / min(values)))
    factor = scipy.linalg.cholesky(a.numpy(), lower=True)
    assert m.residual == pytest.approx(
        np.linalg.norm(factor @ factor.T - a.numpy()) / np.linalg.norm(a.numpy()), abs=1e-14
    )


def test_a_defective_matrix_has_no_basis_of_eigenvectors() -> None:
    a = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).requires_grad_()
    (m,) = only(spy(through(lambda a: LA.eig(a)[1]), a)).matrices
    assert m.gap == 0 and m.condition > 1e6 and set(m.degenerate) == {"gap", "condition"}


def test_a_rectangular_matrix_of_low_rank_borders_on_its_null_space() -> None:
    a = (normal(5, 1) @ normal(1, 2) + torch.tensor([0.0])).requires_grad_()
    seen = only(spy(through(lambda a: LA.svd(a, full_matrices=False)[0]), a))
    assert seen.worst.degenerate == ("gap",)


def test_what_is_cut_off_on_purpose_is_no_fault() -> None:
    """A matrix of low rank has a pseudo-inverse, and a least-squares solution."""
    low = stacked(with_singular_values([4, 3, 0.5, 0]), SOUND)
    b = RIGHT.expand(B, N, K)
    programs = [
        lambda a: LA.pinv(a),
        lambda a: LA.pinv(a, rtol=0.2),
        lambda a: LA.pinv(a, atol=1.0),
        lambda a: LA.lstsq(a, b, driver="gelsd")[0],
        lambda a: LA.lstsq(a, b, rcond=0.2, driver="gelsd")[0],
        lambda a: LA.lstsq(a, b)[0],
    ]
    for program in programs:
        call = only(spy(through(program), low))
        assert not any(m.degenerate for m in call.matrices) and call.matrices[1].condition < 10


def test_scales_alone_are_no_fault() -> None:
    units = torch.diag(torch.tensor([1e-6, 1.0, 1e6, 1e3]))
    for program in (LA.inv, LA.det, lambda a: LA.solve(a, RIGHT), LA.cholesky):
        (m,) = only(spy(through(program), (units @ POSITIVE.float() @ units).requires_grad_())).matrices
        assert m.condition > 1e10 and m.scaled < 100 and not m.degenerate


# Whatever the way to call it ----------------------------------------------------------------------------------------

A = POSITIVE.float().expand(B, N, N).contiguous()

WAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "a name bound before": (lambda: bound_before(A), "eigh"),
    "values only": (lambda: LA.eigvalsh(A), "eigh"),
    "values in no order only": (lambda: LA.eigvals(A), "eig"),
    "singular values only": (lambda: LA.svdvals(A), "svd"),
    "an alias": (lambda: torch.svd(A), "svd"),
    "a method": (lambda: A.svd(), "svd"),
    "the method of an inverse": (lambda: A.inverse(), "inv"),
    "an alias of an inverse": (lambda: torch.inverse(A), "inv"),
    "a power": (lambda: LA.matrix_power(A, -2), "inv"),
    "a norm": (lambda: LA.matrix_norm(A, 2), "svd"),
    "a condition number": (lambda: LA.cond(A), "svd"),
    "a rank": (lambda: LA.matrix_rank(A), "svd"),
    "an old name": (lambda: torch.qr(A), "qr"),
    "no check of errors": (lambda: LA.inv_ex(A), "inv"),
    "a determinant": (lambda: A.det(), "det"),
    "a place for the result": (lambda: LA.inv(A, out=torch.empty_like(A)), "inv"),
    "a library": (
        lambda: torch.distributions.MultivariateNormal(torch.zeros(N), A[0], validate_args=False),
        "cholesky",
    ),
    "vmap": (lambda: torch.func.vmap(LA.eigh)(A), "eigh"),
    "jacrev": (lambda: torch.func.jacrev(LA.inv)(A), "inv"),
    "a dispatched operator": (lambda: torch.ops.aten._linalg_eigh(A), "eigh"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_ends_at_the_same_place(way: str) -> None:
    program, name = WAYS[way]
    seen = spy(program)
    assert {call.name for call in seen.calls()} == {name} and not seen.unseen


def test_a_gradient_inside_of_function_transforms_is_seen() -> None:
    per_sample = torch.func.vmap(torch.func.grad(lambda a: LA.eigh(a)[1].sum()))
    call = only(spy(per_sample, A))
    assert call.shape == (B, N, N) and call.gradient == ("eigenvectors",) and call.divided_by_gaps


def test_the_results_and_the_gradients_stay_what_they_are() -> None:
    def program(out: list[torch.Tensor]) -> None:
        a = A.clone().requires_grad_()
        torch.linalg.svd(a)[1].sum().backward()
        out.append(a.grad)

    seen, plain = [], []
    spy(program, seen)
    program(plain)
    assert torch.equal(seen[0], plain[0])
    assert torch.autograd._engine_run_backward.__name__ == "_engine_run_backward"


def test_complex_results_stay_what_they_are() -> None:
    """Under a plain dispatch mode torch forgets to conjugate inside of pinv."""
    a, out = torch.view_as_complex(normal(B, N, N, 2)), []
    spy(lambda: out.append(LA.pinv(a)))
    assert torch.equal(out[0], LA.pinv(a))


def test_matrices_without_plain_numbers_are_counted() -> None:
    seen = spy(lambda: LA.eigh(torch.empty(2, 2, device="meta")))
    assert seen.calls() == () and dict(seen.unseen) == {"strided Tensor on meta": 1}
    assert spy(lambda: LA.eigh(torch.empty(0, 2, 2))).calls() == ()


def test_formulas_of_the_backward_pass_are_counted_and_not_listed() -> None:
    seen = spy(through(lambda a: LA.solve(a, RIGHT)), stacked(SOUND, SOUND))
    assert only(seen).name == "solve" and seen.inner == 1


# Whether it matters -------------------------------------------------------------------------------------------------


def tie() -> torch.Tensor:
    return torch.eye(N).repeat(B, 1, 1).requires_grad_()


@pytest.mark.parametrize(
    ("program", "gradient"),
    [
        (lambda a: LA.eigh(a), ()),
        (lambda a: LA.eigh(a)[0].sum().backward(), ("eigenvalues",)),
        (lambda a: LA.eigvalsh(a).sum().backward(), ("eigenvalues",)),
        (lambda a: LA.eigh(a.detach())[1].sum(), ()),
        (lambda a: LA.svd(a)[1].sum().backward(), ("S",)),
    ],
)
def test_a_tie_that_no_gradient_divides_by_is_harmless(program: Callable[..., Any], gradient: tuple[str, ...]) -> None:
    call = only(spy(program, tie()))
    assert call.gradient == gradient and not call.divided_by_gaps
    assert {(m.degenerate, m.harmless) for m in call.matrices} == {((), ("gap",))}


def test_a_call_without_a_gradient_right_behind_one_with_does_not_share_it() -> None:
    def program(a: torch.Tensor) -> None:
        vectors = LA.eigh(a)[1]
        LA.eigh(a.detach())
        vectors.sum().backward()

    first, second = spy(program, tie()).calls()
    assert first.gradient == ("eigenvectors",) and second.gradient == ()


class Careful(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigh(a)[1]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        torch.linalg.eigvalsh(gradient)
        return gradient


def test_a_custom_function_answers_for_its_own_gradient() -> None:
    forward, backward = spy(through(Careful.apply), tie()).calls()
    assert (forward.function, forward.worst.degenerate) == ("Careful", ())
    assert backward.name == "eigh" and backward.location.startswith(__file__)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pe = Encoding()

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return self.pe(a)


class Encoding(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return LA.eigh(a)[1].abs().sum()


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_activation_is_seen_twice_and_divides_once(reentrant: bool) -> None:
    net = Net()
    seen = Interception(net, [B, B], frozenset({play.__code__}))

    def program(a: torch.Tensor) -> None:
        for _ in range(2):
            out = checkpoint(net, a * 1, use_reentrant=reentrant)
            seen.micro_batch += 1
            out.backward()

    with seen.attached():
        play(program, tie())
    calls = seen.calls()
    assert [(c.site, c.micro_batch, c.recomputed) for c in calls] == [
        ("pe", 0, False), ("pe", 0, True), ("pe", 1, False), ("pe", 1, True),
    ]  # fmt: skip
    assert [c.divided_by_gaps for c in calls] == ([False, True] * 2 if reentrant else [True, False] * 2)


# What is not finite, and what fails ---------------------------------------------------------------------------------


def failing(program: Callable[..., Any], *arguments: Any) -> Interception:
    seen = Interception(nn.Identity(), [B], frozenset({play.__code__}))
    with seen.attached(), pytest.raises(RuntimeError):
        play(program, *arguments)
    return seen


def test_matrices_that_are_not_finite_are_said() -> None:
    a = torch.stack([POSITIVE, POSITIVE * math.nan, POSITIVE]).float()
    raised = only(failing(LA.eigh, a))
    assert [m.degenerate for m in raised.matrices] == [(), ("input",), ()]
    for program in (LA.inv, LA.det, LA.qr, lambda a: LA.solve(a, RIGHT)):
        call = only(spy(program, a))
        assert [m.degenerate for m in call.matrices] == [(), ("input",), ()] and math.isnan(call.worst.condition)


def test_a_right_hand_side_that_is_not_finite_is_said() -> None:
    b = RIGHT.expand(B, N, K).clone()
    b[2, 0, 0] = math.inf
    assert [m.finite for m in only(spy(LA.solve, A, b)).matrices] == [True, True, False]


def test_one_matrix_for_many_right_hand_sides() -> None:
    (m,) = only(spy(LA.solve, A[0], RIGHT.expand(B, N, K))).matrices
    assert m.residual is not None and m.residual < 1e-6 and m.sample is None


def test_a_singular_matrix_is_named_when_the_solver_gives_up() -> None:
    call = only(failing(LA.inv, torch.ones(N, N)))
    assert call.worst.degenerate[0] == "condition" and call.worst.condition > 1e15


def test_no_cholesky_decomposition_counts_where_the_step_ends_with_it() -> None:
    seen = failing(LA.cholesky, -POSITIVE)
    assert only(seen).worst.harmless == ("failed",)
    (call,) = seen.calls(failed=True)
    assert call.worst.degenerate == ("failed",) and call.worst.smallest == pytest.approx(-4)
    tried = only(spy(LA.cholesky_ex, -POSITIVE))
    assert (tried.worst.degenerate, tried.worst.harmless) == ((), ("failed",))


def test_a_wrong_result_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    eigh = OPERATIONS["aten::_linalg_eigh"]

    def broken(a: Any, given: Any, found: tuple[torch.Tensor, ...], eps: float) -> Any:
        return eigh.measure(a, given, (found[0], found[1] * 1.1), eps)

    monkeypatch.setitem(OPERATIONS, "aten::_linalg_eigh", dataclasses.replace(eigh, measure=broken))
    assert "orthogonality" in only(spy(LA.eigh, POSITIVE)).worst.degenerate


# Order --------------------------------------------------------------------------------------------------------------


def matrices() -> Iterator[Matrix]:
    yield Matrix(index=0, sample=None, finite=True, gap=0.5)
    yield Matrix(index=1, sample=None, finite=True, gap=1e-5)
    yield Matrix(index=2, sample=None, finite=True, condition=1e7)
    yield Matrix(index=3, sample=None, finite=True, gap=0.0, harmless=("gap",))
    yield Matrix(index=4, sample=None, finite=True, condition=1e4, degenerate=("residual",))
    yield Matrix(index=5, sample=None, finite=True, gap=0.0, degenerate=("gap",))
    yield Matrix(index=6, sample=None, finite=False, degenerate=("input",))


def test_what_is_worse_comes_last() -> None:
    assert [m.index for m in sorted(matrices(), key=lambda m: m.badness)] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_a_compiled_model_is_seen(before: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda a: LA.inv(a).sum() + a.svd()[1].sum() + LA.eigh(a)[0].sum(), backend="aot_eager")
    if before:
        compiled(A)
    assert [call.name for call in spy(compiled, A).calls()] == ["inv", "svd", "eigh"]
    torch._dynamo.reset()
