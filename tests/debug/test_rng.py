from __future__ import annotations

import json
import random

import numpy as np
import torch

from brainbrr_debug.rng import RngState, preserved


def draw() -> tuple[list[float], ...]:
    return (torch.randn(3).tolist(), np.random.rand(3).tolist(), [random.random(), random.gauss(0, 1)])


def test_what_is_restored_draws_the_same_numbers() -> None:
    state = RngState.take()
    first = draw()
    assert draw() != first
    assert state.restore() == ()
    assert draw() == first


def test_the_plain_form_goes_through_json_and_back() -> None:
    np.random.standard_normal()
    random.gauss(0, 1)
    state = RngState.take()
    first = draw()
    RngState.from_dict(json.loads(json.dumps(state.to_dict()))).restore()
    assert draw() == first


def test_preserved_leaves_the_generators_as_found() -> None:
    state = RngState.take()
    with preserved():
        inside = draw()
    after = draw()
    state.restore()
    assert draw() == inside == after
