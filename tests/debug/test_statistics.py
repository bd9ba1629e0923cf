from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.statistics import exact_norm, finiteness, screen, tensor_norms, total_norm

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip
SPECIAL = [0.0, -1.5, 3.0, math.nan, math.inf, -math.inf]


def slow_counts(x: torch.Tensor) -> tuple[int, int]:
    """Brute force: one element at a time, in Python."""
    values = x.to(torch.complex128).reshape(-1).tolist()
    nan = sum(math.isnan(v.real) or math.isnan(v.imag) for v in values)
    bad = sum(not (math.isfinite(v.real) and math.isfinite(v.imag)) for v in values)
    return nan, bad - nan


@settings(max_examples=60)
@given(st.lists(st.sampled_from(SPECIAL), max_size=12), st.sampled_from(DTYPES))
def test_screen_and_finiteness_agree_with_brute_force(values: list[float], dtype: torch.dtype) -> None:
    x = torch.tensor(values, dtype=torch.float64).to(dtype)
    nan, inf = slow_counts(x)
    found = finiteness(x)
    assert (found.nan, found.inf, found.elements) == (nan, inf, len(values))
    assert found.finite == (nan + inf == 0)
    assert bool(torch.isfinite(screen(x))) == found.finite


def test_the_first_bad_element_is_named_by_its_index() -> None:
    x = torch.zeros(3, 4, 5)
    x[1, 2, 3], x[2, 0, 0] = math.inf, math.nan
    assert finiteness(x).first == (1, 2, 3)
    assert finiteness(torch.tensor(math.nan)).first == ()


@pytest.mark.parametrize("x", [torch.zeros(0), torch.zeros(3, 0), torch.ones(2, dtype=torch.bool), torch.tensor([7])])
def test_what_cannot_be_nonfinite_is_finite(x: torch.Tensor) -> None:
    assert finiteness(x).finite and float(screen(x)) == 0.0


def test_half_precision_does_not_overflow_its_own_sum() -> None:
    assert float(screen(torch.full((1000,), 60000.0, dtype=torch.float16))) == pytest.approx(6e7, rel=1e-3)


def test_a_sum_of_finite_values_may_overflow_and_is_cleared_exactly() -> None:
    x = torch.full((4096,), 3e38)
    assert not torch.isfinite(screen(x))
    assert finiteness(x).finite


@pytest.mark.parametrize(("bad", "sign"), [(-math.inf, -1), (math.inf, 1)])
def test_infinities_of_one_sign_keep_it(bad: float, sign: int) -> None:
    assert float(screen(torch.tensor([1.0, bad]))) == sign * math.inf


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_tensors_count_by_their_stored_values() -> None:
    x = torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.tensor([1.0, math.nan]), (4,), check_invariants=True)
    assert finiteness(x).nan == 1 and finiteness(x).first == (1,)
    assert torch.isnan(screen(x))
    csr = torch.sparse_compressed_tensor(
        torch.tensor([0, 1, 1]),
        torch.tensor([0]),
        torch.tensor([math.inf]),
        (2, 2),
        layout=torch.sparse_csr,
        check_invariants=True,
    )
    assert finiteness(csr).inf == 1


def slow_norm(tensors: list[torch.Tensor | None]) -> float:
    flat = [x.to_dense().to(torch.complex128).reshape(-1) for x in tensors if x is not None]
    return math.sqrt(sum(float((x.abs() ** 2).sum()) for x in flat))


@settings(max_examples=40)
@given(st.lists(st.sampled_from([*DTYPES[:6], None]), max_size=6), st.integers(0, 2**31))
def test_the_norm_agrees_with_brute_force_in_any_mixture(dtypes: list[torch.dtype | None], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors: list[torch.Tensor | None] = [
        None if d is None else torch.randn(seed % 7, 3, generator=generator).to(d) for d in dtypes
    ]
    assert float(total_norm(tensors)) == pytest.approx(slow_norm(tensors), rel=1e-5, abs=1e-12)


def test_the_norm_has_the_bits_that_clipping_computes() -> None:
    gradients = [torch.randn(7, 5), torch.randn(300), torch.randn(())]
    assert torch.equal(total_norm(gradients), torch.nn.utils.get_total_norm(gradients))


def test_the_norm_of_half_precision_does_not_overflow() -> None:
    x = torch.full((1000,), 60000.0, dtype=torch.float16)
    assert float(total_norm([x])) == pytest.approx(60000.0 * math.sqrt(1000), rel=1e-3)


def test_the_norm_of_a_sparse_gradient_adds_repeated_rows_first() -> None:
    x = torch.sparse_coo_tensor(torch.tensor([[1, 1]]), torch.tensor([[3.0], [1.0]]), (3, 1), check_invariants=True)
    assert float(total_norm([x])) == 4.0


def test_the_norm_of_nothing_is_zero() -> None:
    assert float(total_norm([None, torch.zeros(0)])) == 0.0


def test_the_exact_norm_survives_values_whose_squares_overflow() -> None:
    x = torch.full((4,), 1e30)
    assert not torch.isfinite(total_norm([x]))
    assert float(exact_norm([x])) == pytest.approx(2e30)


def test_norms_of_each_tensor_are_those_of_one_at_a_time_and_their_norm_is_that_of_all() -> None:
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)
    tensors: list[torch.Tensor | None] = [torch.randn(7, dtype=dtype) for dtype in kinds for _ in range(2)]
    tensors += [None, torch.zeros(0, 3), torch.eye(3).to_sparse(), torch.tensor([math.nan, 1.0])]
    norms = tensor_norms(tensors)
    assert norms[10] is None and norms[11] is None
    assert [math.isnan(n) for n in norms if n is not None] == [False] * 11 + [True]
    for x, norm in zip(tensors[:10], norms[:10], strict=True):
        assert float(norm) == pytest.approx(slow_norm([x]), rel=1e-5)
    gradients = [torch.randn(5, 3) for _ in range(4)]
    assert torch.equal(total_norm(tensor_norms(gradients)), total_norm(gradients))
