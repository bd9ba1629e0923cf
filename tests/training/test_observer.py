from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from brainbrr.config import Config
from brainbrr.training.checkpoint import load_checkpoint
from brainbrr.training.loop import Trainer
from brainbrr.training.observer import Observer, Unobserved
from brainbrr_debug.watch import NonFiniteStep, Watch

MakeConfig = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]


@pytest.mark.parametrize("kind", [Observer, Unobserved, Watch])
def test_observers_take_what_the_loop_tells_them(kind: type) -> None:
    inspect.signature(kind.begin).bind(None, [], step=0, identities=[])
    inspect.signature(kind.forward).bind(None, torch.zeros(1), torch.zeros(()))
    inspect.signature(kind.gradients).bind(None, torch.zeros(()))
    inspect.signature(kind.end).bind(None)
    inspect.signature(kind.checkpoint).bind(None)


def test_one_that_sees_nothing_lets_everything_pass() -> None:
    nobody = Unobserved()
    nobody.begin([], step=0, identities=[])
    nobody.forward(torch.tensor(float("nan")), torch.tensor(0.0))
    assert nobody.gradients(torch.tensor(float("nan"))) is True
    nobody.end()
    nobody.checkpoint()


def test_watching_changes_no_bit(
    tiny: MakeConfig, make_trainer: MakeTrainer, v3: dict[str, Any], tmp_path: Path
) -> None:
    config = tiny({**v3, "training.epochs": 1})
    plain = make_trainer(config)
    plain.train()
    watched = make_trainer(config)
    with Watch(watched.setup.model, watched.setup.optimizer, tmp_path / "watched", sentinel=True) as watch:
        watched.observer = watch
        watched.train()
    assert watch.counters["steps"] == 5 and watch.counters["unchecked"] == 0
    pairs = zip(plain.setup.model.parameters(), watched.setup.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_watch_sees_the_loop_s_own_norm_and_the_sources_of_samples(
    tiny: MakeConfig, make_trainer: MakeTrainer
) -> None:
    config = tiny({"training.epochs": 1, "training.gradient_accumulation_steps": 2})
    trainer = make_trainer(config)
    with Watch(trainer.setup.model, trainer.setup.optimizer) as watch:
        trainer.observer = watch
        trainer.train()
        assert float(watch.gradient_norm) == float(trainer.setup.step.norm) > 0
    assert watch.counters["steps"] == 3


def test_a_damaged_state_never_takes_the_place_of_a_checkpoint(
    tiny: MakeConfig, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    config = tiny({"training.epochs": 1, "training.checkpoint_interval": 2})
    trainer = make_trainer(config)

    class Spoil(Watch):
        def end(self) -> None:
            super().end()
            if self.counters["steps"] == 4:
                state = next(iter(trainer.setup.optimizer.state.values()))
                state["exp_avg_sq"].fill_(float("inf"))

    def train() -> None:
        with Spoil(trainer.setup.model, trainer.setup.optimizer, tmp_path / "watched") as watch:
            trainer.observer = watch
            trainer.train()

    with pytest.raises(NonFiniteStep, match="after step 3, before a checkpoint"):
        train()
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 2
