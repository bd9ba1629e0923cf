from __future__ import annotations

import json
import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.lists(st.sampled_from(["rand", "standard_normal", "seed", "nothing", "shuffle", "set_state"]), max_size=8))
def test_the_kept_state_of_numpy_is_the_one_it_has_now(calls: list[str]) -> None:
    kept = np.random.get_state()
    for call in calls:
        match call:
            case "seed":
                np.random.seed(7)
            case "shuffle":
                np.random.shuffle([1, 2, 3])
            case "set_state":
                np.random.set_state(kept)
            case "nothing":
                pass
            case _:
                getattr(np.random, call)()
        taken, now = RngState.take().numpy, np.random.get_state(legacy=False)
        assert np.array_equal(taken["state"]["key"], now["state"]["key"])
        assert taken["state"]["pos"] == now["state"]["pos"]
        assert (taken["has_gauss"], taken["gauss"]) == (now["has_gauss"], now["gauss"])
