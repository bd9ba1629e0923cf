"""The scan in its three forms: chunked, step by step with sequences innermost, and the plain recurrence."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brainbrr.models.ssd import chunked_scan, recurrence
from brainbrr.models.stepwise import stepwise_scan

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def inputs(
    sequences: int, steps: int, heads: int, width: int, states: int, *, seed: int = 0, longest: float = 0.1
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    dt = torch.rand(sequences, steps, heads, generator=generator, dtype=torch.float64) * longest
    a = -1 - 15 * torch.rand(heads, generator=generator, dtype=torch.float64)
    b, c = normal(sequences, steps, states), normal(sequences, steps, states)
    return normal(sequences, steps, heads, width), dt.requires_grad_(), a.requires_grad_(), b, c


def stepwise(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    x, dt, b, c = (tensor.movedim((0, 1), (-1, -2)) for tensor in (x, dt, b, c))
    return stepwise_scan(x, dt, a, b, c).movedim((-1, -2), (0, 1))


def largest_difference(found: Tensor, expected: Tensor) -> float:
    return (found - expected).abs().max().item()


@settings(max_examples=30)
@given(
    steps=st.integers(1, 40),
    chunk_size=st.integers(1, 48),
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    states=st.integers(1, 5),
    longest=st.sampled_from([0.1, 2.0, 20.0]),
    seed=st.integers(0, 2**16),
)
def test_every_form_is_the_recurrence(
    steps: int, chunk_size: int, heads: int, width: int, states: int, longest: float, seed: int
) -> None:
    given_inputs = inputs(2, steps, heads, width, states, seed=seed, longest=longest)
    expected = recurrence(*given_inputs)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, given_inputs, upstream)
    for found in (chunked_scan(*given_inputs, chunk_size=chunk_size), stepwise(*given_inputs)):
        assert largest_difference(found, expected) <= 1e-10
        for mine, theirs in zip(torch.autograd.grad(found, given_inputs, upstream), gradients, strict=True):
            assert largest_difference(mine, theirs) <= 1e-10 * (1 + theirs.abs().max().item())


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_gradcheck_of_the_chunked_scan(chunk_size: int) -> None:
    assert torch.autograd.gradcheck(lambda *i: chunked_scan(*i, chunk_size=chunk_size), inputs(2, 7, 2, 2, 3))


def test_gradcheck_of_the_stepwise_scan() -> None:
    assert torch.autograd.gradcheck(stepwise, inputs(2, 6, 2, 2, 3))


def test_long_steps_and_fast_decay_stay_finite_forward_and_backward() -> None:
    # dt·|a|·chunk is 3200, far above the 88.7 at which the exponential overflows in float32: the masked half of the
    # chunk's matrix must never be an infinity that is multiplied away.
    x, dt, a, b, c = (tensor.detach().float().requires_grad_() for tensor in inputs(1, 64, 2, 4, 4))
    y = chunked_scan(x, dt * 0 + 10, a * 0 - 16, b, c, chunk_size=32)
    assert y.isfinite().all()
    y.sum().backward()
    for tensor in (x, b, c):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_float32_is_as_accurate_as_float32_can_be() -> None:
    exact = inputs(3, 96, 4, 8, 16)
    expected = recurrence(*exact)
    found = chunked_scan(*(tensor.float() for tensor in exact), chunk_size=16)
    assert largest_difference(found.double(), expected) < 1e-6 * expected.abs().max().item()


def test_backward_cost_grows_linearly_with_the_number_of_chunks() -> None:
    # The trap: `states[:, i]` in the loop over chunks fills a zero tensor of the full size at every chunk backward.
    def seconds(steps: int) -> float:
        best = float("inf")
        for _ in range(3):
            tensors = tuple(tensor.detach().requires_grad_() for tensor in inputs(1, steps, 2, 16, 16))
            y = chunked_scan(*tensors, chunk_size=2).sum()
            start = time.thread_time()
            y.backward()
            best = min(best, time.thread_time() - start)
        return best

    assert seconds(1600) < 9 * seconds(400)  # 4 for a linear cost, 16 for a quadratic one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 5, 3)}, r"x has shape \(2, 5, 3\)"),
        ({"dt": torch.zeros(2, 4, 3)}, r"dt \(2, 4, 3\).* do not fit x"),
        ({"c": torch.zeros(2, 5, 7)}, "do not fit x"),
        ({"chunk_size": 0}, "chunk_size is 0; expected 1 or more"),
    ],
)
def test_wrong_shapes_are_named(change: dict[str, Tensor | int], message: str) -> None:
    arguments: dict[str, Tensor | int] = {
        "x": torch.zeros(2, 5, 3, 4),
        "dt": torch.zeros(2, 5, 3),
        "a": torch.zeros(3),
        "b": torch.zeros(2, 5, 6),
        "c": torch.zeros(2, 5, 6),
    }
    with pytest.raises(ValueError, match=message):
        chunked_scan(**(arguments | change))  # type: ignore[arg-type]
