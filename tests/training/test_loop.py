from __future__ import annotations

import itertools
import math
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from brainbrr.config import Config
from brainbrr.training.checkpoint import load_checkpoint
from brainbrr.training.loop import Trainer
from brainbrr.training.observer import Batch, Unobserved
from brainbrr.training.optim import learning_rate_factor
from brainbrr.training.setup import Setup

MakeConfig = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]


class Recorder(Unobserved):
    """Keeps what every step was given, and its loss in full."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.names: list[list[str]] = []
        self.losses: list[float] = []

    def begin(self, micro_batches: Sequence[Batch], *, step: int | None = None, identities: Any = None) -> None:
        self.steps.append(step)
        self.names.append([sample["recording"] for micro in identities for sample in micro])

    def forward(self, output: torch.Tensor, loss: torch.Tensor) -> None:
        self.losses.append(float(loss.detach()))


class Interrupted(Recorder):
    """Presses Ctrl-C at one place of one step."""

    def __init__(self, step: int, place: str, press: Callable[[], None]) -> None:
        super().__init__()
        self.at, self.place, self.press = step, place, press

    def _maybe(self, place: str) -> None:
        if place == self.place and self.steps[-1] == self.at:
            self.press()

    def begin(self, micro_batches: Sequence[Batch], *, step: int | None = None, identities: Any = None) -> None:
        super().begin(micro_batches, step=step, identities=identities)
        self._maybe("begin")

    def forward(self, output: torch.Tensor, loss: torch.Tensor) -> None:
        super().forward(output, loss)
        self._maybe("forward")

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        self._maybe("gradients")
        return True

    def end(self) -> None:
        self._maybe("end")


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def send_signal() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def bits(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything that the following steps depend on."""
    state = {f"model.{k}": v.clone() for k, v in trainer.setup.model.state_dict().items()}
    for index, values in trainer.setup.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{k}": v.clone() for k, v in values.items()}
    rate = trainer.setup.optimizer.param_groups[0]["lr"]
    return state | {"rng": torch.get_rng_state(), "rate": torch.tensor(rate, dtype=torch.float64)}


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []


# Lengths


@pytest.mark.parametrize(
    ("changes", "steps", "epochs"),
    [
        ({}, 10, 2),
        ({"training.epochs": 1}, 5, 1),
        ({"training.batch_size": 3}, 8, 2),  # 10 windows: 3 + 3 + 3 + 1
        ({"training.gradient_accumulation_steps": 2}, 6, 2),  # 5 micro-batches: 2 + 2 + 1
        ({"training.max_steps": 3}, 3, 0),
        ({"training.max_steps": 5}, 5, 1),
        ({"training.max_steps": 99}, 10, 2),
        ({"data.use_balanced_sampling": True, "data.background_ratio": 1.0}, 4, 2),  # 2 partial, 2 background
    ],
)
def test_steps_and_whole_epochs_are_counted(
    changes: dict[str, Any], steps: int, epochs: int, tiny: MakeConfig, make_trainer: MakeTrainer
) -> None:
    recorder = Recorder()
    trainer = make_trainer(tiny(changes), observer=recorder)
    outcome = trainer.train()
    assert (outcome.steps, outcome.epochs, trainer.total) == (steps, epochs, steps)
    assert recorder.steps == list(range(steps))
    assert (outcome.stopped_early, outcome.best, outcome.metrics) == (False, None, {})
    assert load_checkpoint(trainer.checkpoints / "last.pt").step == steps


def test_every_window_is_seen_once_an_epoch_and_the_order_changes(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    recorder = Recorder()
    make_trainer(tiny(), observer=recorder).train()
    first, second = (list(itertools.chain(*recorder.names[i : i + 5])) for i in (0, 5))
    assert sorted(first) == sorted(second) == sorted(f"r{w}" for w in range(10))
    assert first != second


def test_accumulated_micro_batches_reach_the_observer_as_one_step(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    plain, accumulated = Recorder(), Recorder()
    make_trainer(tiny({"training.epochs": 1}), observer=plain).train()
    changes = {"training.epochs": 1, "training.gradient_accumulation_steps": 2}
    make_trainer(tiny(changes), observer=accumulated).train()
    names = plain.names
    assert accumulated.names == [names[0] + names[1], names[2] + names[3], names[4]]


def test_the_first_step_has_the_first_rate_and_lines_and_scalars_are_logged(
    tiny: MakeConfig, make_trainer: MakeTrainer
) -> None:
    lines: list[str] = []
    scalars: dict[int, dict[str, float]] = {}
    config = tiny({"training.log_every": 4})
    make_trainer(config, narrate=lines.append, scalars=scalars.__setitem__).train()
    assert list(scalars) == [0, 4, 8, 9]  # every fourth, and the last
    for step, values in scalars.items():
        factor = learning_rate_factor(step, total=10, schedule=config.training.scheduler)
        assert values["learning_rate"] == pytest.approx(1e-2 * factor)
        assert values["gradient_norm"] > 0 and math.isfinite(values["loss"])
    assert [line.split()[:2] for line in lines] == [["step", f"{step}/10"] for step in scalars]
    assert len({line.index("loss") for line in lines}) == 1


def test_the_last_checkpoint_is_written_every_n_steps(
    tiny: MakeConfig, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny({"training.checkpoint_interval": 3}))
    written: list[tuple[str, int]] = []
    monkeypatch.setattr(trainer, "save", lambda name: written.append((name, trainer.step)))
    trainer.train()
    assert written == [("last", 3), ("last", 6), ("last", 9), ("last", 10)]


# Resumption


def straight(config: Config, make_trainer: MakeTrainer, **more: Any) -> tuple[dict[str, torch.Tensor], list[float]]:
    recorder = Recorder()
    trainer = make_trainer(config, observer=recorder, name="straight", **more)
    trainer.train()
    return bits(trainer), recorder.losses


@pytest.mark.parametrize("place", ["begin", "forward", "gradients"])
@pytest.mark.parametrize("step", [0, 3, 5, 7])
def test_an_interrupted_run_resumes_bit_for_bit(
    step: int, place: str, tiny: MakeConfig, make_trainer: MakeTrainer, v3: dict[str, Any]
) -> None:
    config = tiny(v3 if step == 3 else {})
    expected, losses = straight(config, make_trainer)
    first = Interrupted(step, place, raise_interrupt)
    trainer = make_trainer(config, observer=first)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.saved == step
    second = Recorder()
    resumed = make_trainer(config, observer=second, resume=trainer.checkpoints / "last.pt")
    assert resumed.train().steps == 10
    assert second.steps == list(range(step, 10))
    assert second.losses == losses[step:]
    assert_same_bits(bits(resumed), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"training.gradient_accumulation_steps": 2, "data.use_balanced_sampling": True},
        {"training.mixed_precision": "fp16", "training.learning_rate": 1e-3},
        {"data.num_workers": 1},
        {"data.num_workers": 1, "data.persistent_workers": True},
    ],
    ids=["accumulation", "fp16", "workers", "persistent"],
)
def test_resumption_is_exact_whatever_the_options(
    changes: dict[str, Any], tiny: MakeConfig, make_trainer: MakeTrainer
) -> None:
    config = tiny({**changes, "training.max_steps": 6})
    expected, losses = straight(config, make_trainer)
    trainer = make_trainer(config, observer=Interrupted(2, "begin", raise_interrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    recorder = Recorder()
    resumed = make_trainer(config, observer=recorder, resume=trainer.checkpoints / "last.pt")
    resumed.train()
    assert recorder.losses == losses[-len(recorder.losses) :]
    assert_same_bits(bits(resumed), expected)


def test_a_run_cut_short_by_max_steps_goes_on_where_it_was(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    constant = {"training.scheduler": {"type": "constant", "warmup_ratio": 0.0}}
    expected, _ = straight(tiny(constant), make_trainer)
    short = make_trainer(tiny({**constant, "training.max_steps": 7}))
    assert short.train().epochs == 1
    rest = Recorder()
    resumed = make_trainer(tiny(constant), observer=rest, resume=short.checkpoints / "last.pt")
    resumed.train()
    assert rest.steps == [7, 8, 9]
    assert_same_bits(bits(resumed), expected)


def test_ctrl_c_lets_the_step_end_and_the_run_resumes_bit_for_bit(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    expected, losses = straight(tiny(), make_trainer)
    first = Interrupted(4, "forward", send_signal)
    trainer = make_trainer(tiny(), observer=first)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert (trainer.step, trainer.epoch, trainer.batch) == (5, 1, 0)
    assert first.losses == losses[:5]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = make_trainer(tiny(), resume=trainer.checkpoints / "last.pt")
    resumed.train()
    assert_same_bits(bits(resumed), expected)


def test_a_second_ctrl_c_does_not_wait(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    def twice() -> None:
        send_signal()
        send_signal()

    trainer = make_trainer(tiny(), observer=Interrupted(4, "forward", twice))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert (trainer.step, trainer.saved) == (4, 4)


def test_a_handler_of_the_program_is_left_alone(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        make_trainer(tiny(), observer=Interrupted(4, "forward", send_signal)).train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == [signal.SIGINT]


def test_a_state_torn_in_the_update_is_not_saved(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    observer = Interrupted(4, "end", raise_interrupt)  # the weights have changed, the step has not been counted
    trainer = make_trainer(tiny({"training.checkpoint_interval": 3}), observer=observer)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.saved == 3
    assert load_checkpoint(trainer.checkpoints / "last.pt").step == 3


def test_what_the_observer_raises_passes_and_saves_nothing(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    def stop() -> None:
        raise FloatingPointError

    trainer = make_trainer(tiny(), observer=Interrupted(2, "gradients", stop))
    before = bits(trainer)["model.head.logit.weight"]
    with pytest.raises(FloatingPointError):
        trainer.train()
    assert not trainer.checkpoints.exists()
    assert not torch.equal(before, trainer.setup.model.head.logit.weight)


# Validation


class Script:
    """Validations whose results are known beforehand."""

    def __init__(self, *values: float, metric: str = "auroc") -> None:
        self.values, self.metric, self.calls = list(values), metric, 0

    def __call__(self, setup: Setup) -> dict[str, float]:
        self.calls += 1
        value = self.values[self.calls - 1]
        if value == -99:
            raise KeyboardInterrupt
        return {"loss": value, "auroc": value} if self.metric == "loss" else {"loss": 1.0, "auroc": value}


NAN = math.nan


@pytest.mark.parametrize(
    ("values", "metric", "best", "best_epoch"),
    [
        ((0.5, 0.7, 0.6), "auroc", 0.7, 2),
        ((0.5, 0.7, 0.6), "loss", 0.5, 1),
        ((0.5, 0.5, 0.5), "auroc", 0.5, 1),
        ((NAN, 0.4, NAN), "auroc", 0.4, 2),
        ((NAN, NAN, 0.4), "loss", 0.4, 3),
        ((math.inf, 0.4, 0.3), "auroc", 0.4, 2),
        ((NAN, NAN, NAN), "auroc", None, None),
    ],
)
def test_the_best_checkpoint_is_that_of_the_best_metric_and_never_of_a_nan(
    values: tuple[float, ...],
    metric: str,
    best: float | None,
    best_epoch: int | None,
    tiny: MakeConfig,
    make_trainer: MakeTrainer,
) -> None:
    config = tiny({"training.epochs": 3, "training.early_stopping.metric": metric})
    trainer = make_trainer(config, validate=Script(*values, metric=metric))
    assert trainer.train().best == best
    path = trainer.checkpoints / "best.pt"
    assert path.exists() == (best is not None)
    if best_epoch is not None:
        assert load_checkpoint(path).step == 5 * best_epoch


@pytest.mark.parametrize(
    ("patience", "values", "epochs"),
    [
        (1, (0.5, 0.4), 2),
        (2, (0.5, 0.4, 0.6, 0.5, 0.6), 5),  # as good is not better
        (2, (0.5, NAN, NAN), 3),
        (2, (NAN, NAN), 2),
        (None, (0.5, 0.4, 0.3, 0.2, 0.1, 0.0), 6),
    ],
)
def test_patience(
    patience: int | None, values: tuple[float, ...], epochs: int, tiny: MakeConfig, make_trainer: MakeTrainer
) -> None:
    lines: list[str] = []
    config = tiny({"training.epochs": 6, "training.early_stopping.patience": patience})
    trainer = make_trainer(config, validate=Script(*values), narrate=lines.append)
    outcome = trainer.train()
    assert (outcome.epochs, outcome.stopped_early) == (epochs, epochs < 6)
    assert any(line.startswith("stopped early: auroc") for line in lines) == outcome.stopped_early
    if outcome.stopped_early:  # and it stays stopped
        resumed = make_trainer(config, validate=Script(), resume=trainer.checkpoints / "last.pt").train()
        assert (resumed.steps, resumed.stopped_early, resumed.metrics["loss"]) == (outcome.steps, True, 1.0)


def test_early_stopping_remembers_across_a_resumption(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    config = tiny({"training.epochs": 6, "training.early_stopping.patience": 2})
    first = make_trainer(
        config, validate=Script(0.9, 0.5), observer=Interrupted(12, "begin", raise_interrupt), name="first"
    )
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = make_trainer(config, validate=Script(0.6), resume=first.checkpoints / "last.pt")
    outcome = second.train()
    assert (outcome.best, outcome.epochs, outcome.stopped_early) == (0.9, 3, True)


@pytest.mark.parametrize(("every", "calls"), [(1, 3), (2, 2), (5, 1)])
def test_validation_comes_every_n_epochs_and_after_the_last_step(
    every: int, calls: int, tiny: MakeConfig, make_trainer: MakeTrainer
) -> None:
    validate = Script(0.1, 0.2, 0.3)
    make_trainer(tiny({"training.epochs": 3, "training.validate_every": every}), validate=validate).train()
    assert validate.calls == calls


def test_a_run_cut_short_by_max_steps_is_validated(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    validate = Script(0.1)
    outcome = make_trainer(tiny({"training.max_steps": 3}), validate=validate).train()
    assert (validate.calls, outcome.best) == (1, 0.1)


def test_a_run_interrupted_in_its_validation_validates_when_it_goes_on(
    tiny: MakeConfig, make_trainer: MakeTrainer
) -> None:
    config = tiny()
    first = make_trainer(config, validate=Script(0.5, -99))  # -99: Ctrl-C in the second, the last one
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert load_checkpoint(first.checkpoints / "last.pt").step == 10
    second = make_trainer(config, validate=Script(0.8), resume=first.checkpoints / "last.pt")
    outcome = second.train()
    assert (outcome.steps, outcome.best, outcome.metrics["auroc"]) == (10, 0.8, 0.8)


def test_the_steps_before_a_validation_that_fails_are_saved(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    def broken(setup: Setup) -> dict[str, float]:
        raise RuntimeError("out of memory")

    trainer = make_trainer(tiny(), validate=broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    assert load_checkpoint(trainer.checkpoints / "last.pt").step == 5


def test_training_mode_returns_after_a_validation(tiny: MakeConfig, make_trainer: MakeTrainer) -> None:
    modes: list[bool] = []

    class Modes(Recorder):
        def forward(self, output: torch.Tensor, loss: torch.Tensor) -> None:
            modes.append(trainer.setup.model.training)

    def validate(setup: Setup) -> dict[str, float]:
        setup.model.eval()
        return {"loss": 1.0, "auroc": 0.5}

    trainer: Trainer = make_trainer(tiny(), observer=Modes(), validate=validate)
    trainer.train()
    assert modes == [True] * 10


def test_resumption_needs_nothing_of_the_first_process(
    tiny: MakeConfig, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny({"training.max_steps": 2}))
    trainer.train()
    moved = (trainer.checkpoints / "last.pt").rename(tmp_path / "elsewhere.pt")
    assert make_trainer(tiny(), resume=moved, name="other").train().steps == 10
