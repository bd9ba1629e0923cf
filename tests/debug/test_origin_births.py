"""Kinds of bad value, births in an operation, and the elements they are patched with, against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.tracing.births import find_births, mutated_arguments, signature, tensors_in
from brainbrr_debug.tracing.finiteness import INF, NAN, bad_elements, fill_finite_, first_bad_index, kinds, values

ATEN = torch.ops.aten
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kinds_of_every_dtype(dtype: torch.dtype) -> None:
    for bad, expected in (([], 0), ([math.nan], NAN), ([math.inf], INF), ([-math.inf, math.nan], NAN | INF)):
        assert kinds(torch.tensor([1.0, *bad, 2.0]).to(dtype)) == expected


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_kinds_where_nothing_can_be_bad_or_a_sum_misleads() -> None:
    assert kinds(torch.tensor([1, 2])) == 0 == kinds(torch.tensor([True])) == kinds(torch.empty(0))
    assert kinds(torch.empty(2, device="meta")) == 0
    assert kinds(torch.full((100,), 3e38)) == 0  # the sum overflows, no element does
    assert kinds(torch.full((9000,), 60000.0, dtype=torch.float16)) == 0
    assert kinds(torch.tensor([math.inf, -math.inf])) == INF  # the sum is NaN, no element is
    assert kinds(torch.eye(2).mul(math.nan).to_sparse()) == NAN
    assert kinds(torch.tensor([[1.0, math.inf]]).to_sparse_csr()) == INF


@settings(max_examples=60)
@given(st.lists(st.sampled_from([0.0, 1.0, -3e38, 3e38, math.inf, -math.inf, math.nan]), max_size=8))
def test_kinds_agree_with_brute_force(numbers: list[float]) -> None:
    expected = (NAN if any(map(math.isnan, numbers)) else 0) | (INF if any(map(math.isinf, numbers)) else 0)
    assert kinds(torch.tensor(numbers)) == expected


def test_patched_elements_are_finite_distinct_and_inside_every_domain() -> None:
    part = torch.full((40,), math.nan)
    part[3] = 9.0
    fill_finite_(part, bad_elements(part), "varied")
    rest = part[torch.arange(40) != 3]
    assert part[3] == 9 and bool(((rest > 0.29) & (rest < 0.71)).all()) and rest.unique().numel() == 39
    part[5] = math.inf
    assert first_bad_index(part.view(8, 5)) == (1, 0)
    fill_finite_(part, bad_elements(part, INF), "zero")
    assert part[5] == 0


def births(func, *args):
    """The births when `func` runs on `args`, as (kinds, indices, deliberate) or None."""
    sign = signature(func)
    mutated = mutated_arguments(sign, args, {})
    past = {id(tensor): tensor.clone() for tensor in mutated}
    result = func(*args)
    outputs = [*tensors_in(result), *mutated]
    bad = [(place, tensor) for place, tensor in enumerate(outputs) if kinds(tensor)]
    found = find_births(func, sign, args, {}, bad, past) if bad else None
    if found is None:
        return None
    return found.found, found.masks[0][1].nonzero().flatten().tolist(), found.deliberate


T = torch.tensor


def test_transitions_of_kind() -> None:
    assert births(ATEN.log.default, T([1.0, 0.0])) == (INF, [1], False)
    assert births(ATEN.log.default, T([1.0, -1.0])) == (NAN, [1], False)
    assert births(ATEN.sub.Tensor, T([math.inf, 1.0]), T([math.inf, 1.0])) == (NAN, [0], False)
    assert births(ATEN.mul.Tensor, T([math.nan, 1.0]), T([2.0, 2.0])) is None
    assert births(ATEN.add.Tensor, T([math.inf, 1.0]), T([2.0, 2.0])) is None
    assert births(ATEN._softmax.default, T([-math.inf, -math.inf]), -1, False) == (NAN, [0, 1], False)


def test_a_birth_behind_somebody_elses_bad_element() -> None:
    assert births(ATEN.div.Tensor, T([math.nan, 1.0, 0.0]), T([1.0, 1.0, 0.0])) == (NAN, [2], False)
    assert births(ATEN.exp.default, T([-math.inf, math.inf, 1000.0])) == (INF, [2], False)
    assert births(ATEN.sub.Tensor, T([math.nan, math.inf]), T([0.0, math.inf])) == (NAN, [1], False)
    assert births(ATEN.div_.Tensor, T([math.nan, 1.0]), T([1.0, 0.0])) == (INF, [1], False)


def test_the_first_result_says_what_was_born() -> None:
    """Later results are by-products: here a reciprocal deviation of inf beside the NaN."""
    assert births(ATEN.native_layer_norm.default, T([1.0, 1.0]), [2], None, None, 0.0) == (NAN, [0, 1], False)


def test_what_is_written_on_purpose() -> None:
    mask = T([True, False])
    assert births(ATEN.masked_fill.Scalar, T([1.0, 2.0]), mask, -math.inf) == (INF, [0], True)
    assert births(ATEN.full.default, [2], math.nan) == (NAN, [0, 1], True)
    assert births(ATEN.mul.Tensor, T([1.0, 2.0]), -math.inf) == (INF, [0, 1], True)
    assert births(ATEN.mul.Tensor, T([0.0, 2.0]), -math.inf) == (NAN | INF, [0, 1], False)


def test_operations_that_only_move_elements_give_birth_to_nothing() -> None:
    assert births(ATEN.index_select.default, T([math.nan, 1.0]), 0, T([0, 0])) is None
    assert births(ATEN.cat.default, [T([math.nan]), T([1.0])]) is None


def test_signatures() -> None:
    assert signature(ATEN.copy_.default).overwritten and not signature(ATEN.add_.Tensor).overwritten
    assert signature(ATEN.view.default).view and signature(ATEN.bernoulli_.float).random
    assert [name for _, name in signature(ATEN.native_batch_norm.default).mutated] == ["running_mean", "running_var"]
    assert signature(ATEN._foreach_addcdiv_.Scalar).mutated == ((0, "self"),)
    assert values(torch.tensor([1])) == ()
