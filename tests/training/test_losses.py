from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.config import Training
from brainbrr.training.losses import bce_loss, build_loss, focal_loss

LOGITS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20)


def brute_focal(logits: torch.Tensor, target: torch.Tensor, alpha: float, gamma: float) -> float:
    terms = []
    for z, y in zip(logits.double().flatten().tolist(), target.flatten().tolist(), strict=True):
        if y < 0:
            continue
        p = 1 / (1 + math.exp(-z))
        pt, at = (p, alpha) if y else (1 - p, 1 - alpha)
        terms.append(-at * (1 - pt) ** gamma * math.log(pt))
    return sum(terms) / len(terms)


@given(st.lists(st.floats(-15, 15, width=32), min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 5))
def test_focal_loss_against_the_formula(values: list[float], alpha: float, gamma: float) -> None:
    logits = torch.tensor([values])
    target = (torch.arange(len(values)) % 2).float()[None]
    assert float(focal_loss(logits, target, alpha=alpha, gamma=gamma)) == pytest.approx(
        brute_focal(logits, target, alpha, gamma), rel=1e-4, abs=1e-7
    )


@given(LOGITS, st.sampled_from([0.0, 1.0]), st.sampled_from(["focal", "bce"]), st.floats(0, 5))
def test_loss_and_gradient_are_finite_at_every_finite_logit(
    values: list[float], label: float, name: str, gamma: float
) -> None:
    logits = torch.tensor([values], requires_grad=True)
    loss = build_loss(Training(loss=name, focal_gamma=gamma))(logits, torch.full_like(logits, label))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_focal_with_alpha_half_and_gamma_zero_is_half_the_cross_entropy() -> None:
    logits, target = torch.randn(3, 50), (torch.rand(3, 50) > 0.7).float()
    assert torch.allclose(focal_loss(logits, target, alpha=0.5, gamma=0.0), bce_loss(logits, target) / 2)


@pytest.mark.parametrize("name", ["focal", "bce"])
def test_padding_is_left_out_of_the_mean(name: str) -> None:
    loss = build_loss(Training(loss=name))
    logits, target = torch.randn(2, 30), (torch.rand(2, 30) > 0.5).float()
    padded = torch.cat([target, torch.full((2, 10), -1.0)], dim=1)
    assert torch.allclose(loss(torch.cat([logits, torch.randn(2, 10)], dim=1), padded), loss(logits, target))


@pytest.mark.parametrize("name", ["focal", "bce"])
def test_a_nan_logit_is_a_nan_loss(name: str) -> None:
    logits = torch.zeros(1, 4)
    logits[0, 2] = float("nan")
    assert torch.isnan(build_loss(Training(loss=name))(logits, torch.zeros(1, 4)))
