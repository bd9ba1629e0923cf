from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from brainbrr.config import Config, ConfigError
from brainbrr.data.dataset import WindowDataset
from brainbrr.training.observer import Unobserved
from brainbrr.training.setup import (
    as_batch,
    build_setup,
    choose_device,
    epoch_windows,
    identities,
    new_detector,
    window_batches,
)

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize(
    ("name", "available", "found"), [("cpu", False, "cpu"), ("auto", False, "cpu"), ("auto", True, "cuda")]
)
def test_auto_takes_cuda_where_there_is_one(
    name: str, available: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device(name).type == found


def test_a_cuda_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"experiment\.device is cuda and torch finds no CUDA device; set it to auto"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cuda").type == "cuda"


def test_widths_that_do_not_fit_are_an_error_of_the_configuration(tiny: MakeConfig, v3: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model: headdim is 5, which does not divide expand·d_model"):
        new_detector(tiny({**v3, "model.mamba.headdim": 5}))


def test_the_same_seed_gives_the_same_objects_whatever_was_drawn_before(tiny: MakeConfig, noise: WindowDataset) -> None:
    states = []
    for seed in (None, None, 7, 42):
        torch.rand(3)
        setup = build_setup(tiny(), seed)
        (batch, *_) = window_batches(tiny(), noise, 0)
        setup.step([as_batch(batch)], Unobserved())
        states.append(torch.cat([p.detach().flatten() for p in setup.model.parameters()]))
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[3])  # experiment.seed is 42
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("first", [0, 1, 4, 5])
def test_an_epoch_can_be_entered_at_any_batch(first: int, tiny: MakeConfig, noise: WindowDataset) -> None:
    whole = [batch.windows for batch in window_batches(tiny(), noise, 1)]
    assert [batch.windows for batch in window_batches(tiny(), noise, 1, first)] == whole[first:]
    assert list(itertools.chain(*whole)) == epoch_windows(tiny(), noise, 1).tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_drawing_batches_leaves_the_random_state_alone(workers: int, tiny: MakeConfig, noise: WindowDataset) -> None:
    before = torch.get_rng_state()
    batches = list(window_batches(tiny({"data.num_workers": workers}), noise, 0))
    assert torch.equal(torch.get_rng_state(), before)
    plain = list(window_batches(tiny(), noise, 0))
    assert [batch.windows for batch in batches] == [batch.windows for batch in plain]
    assert all(torch.equal(a.signal, b.signal) for a, b in zip(batches, plain, strict=True))


def test_every_sample_is_named(tiny: MakeConfig, noise: WindowDataset) -> None:
    (batch, *_) = window_batches(tiny(), noise, 0)
    names = identities(noise, batch)
    assert [name["recording"] for name in names] == [f"r{window}" for window in batch.windows]
    (signal,), target = as_batch(batch)
    assert signal.shape[0] == target.shape[0] == len(names)
