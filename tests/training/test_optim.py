from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from brainbrr.config import Scheduler, Training
from brainbrr.training.optim import build_optimizer, build_scheduler, learning_rate_factor, parameter_groups


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    decayed, spared = parameter_groups(model, 0.1)
    assert [p.ndim for p in decayed["params"]] == [2]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


@given(st.integers(1, 2000), st.floats(0, 0.9), st.sampled_from(["cosine", "linear", "constant"]))
def test_the_rate_warms_up_from_the_first_step_and_never_exceeds_its_value(total: int, ratio: float, kind: str) -> None:
    schedule = Scheduler(type=kind, warmup_ratio=ratio)
    factors = [learning_rate_factor(step, total=total, schedule=schedule) for step in range(total)]
    warmup = max(1, round(ratio * total))
    assert factors[0] == pytest.approx(1 / warmup)
    assert all(0 <= f <= 1 for f in factors)
    assert all(a <= b for a, b in itertools.pairwise(factors[:warmup]))
    assert all(a >= b for a, b in itertools.pairwise(factors[warmup:]))


def test_the_first_step_is_taken_at_the_warm_up_rate() -> None:
    model = nn.Linear(2, 2)
    training = Training(learning_rate=1e-2, scheduler=Scheduler(warmup_ratio=0.1))
    optimizer = build_optimizer(model, training)
    scheduler = build_scheduler(optimizer, training, total=100)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert rates[:3] == pytest.approx([1e-3, 2e-3, 3e-3])
    assert rates[9:12] == pytest.approx([1e-2, 1e-2, 1e-2], rel=1e-2)
