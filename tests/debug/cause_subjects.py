"""One program for each word that a cause has, and some with two faults at once: subclasses of the toys."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from toy_subjects import PlainSubject, RandomSubject

from brainbrr_debug.subject import Run, plain_step

FAILS = 5


class LinearSubject(PlainSubject):
    """Eight features, one output. `after(step, run)` is done behind the update of a step, `factor` is the schedule."""

    rate = 1e-2

    def model(self, switches):
        return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

    def optimizer(self, model):
        return torch.optim.Adam(model.parameters(), lr=self.rate)

    def build(self, seed, switches):
        built = super().build(seed, switches)
        run = Run(
            model=built.model,
            optimizer=self.optimizer(built.model),
            loss_fn=self.loss,
            batches=built.batches,
            schedule=lambda step, steps: self.factor(step),
        )
        plain, done = plain_step(run), iter(range(1000))

        def step(micro_batches, gate):
            plain(micro_batches, gate)
            self.after(next(done), run)

        self.run = dataclasses.replace(run, step=step)
        return self.run

    def after(self, step, run):
        pass

    def factor(self, step):
        return 1.0


def first_state(run):
    return next(iter(run.optimizer.state.values()))


class BadBatch(LinearSubject):
    """One sample holds a NaN."""

    def spoiled(self, step, signal):
        if step == FAILS:
            signal[1, 3] = float("nan")
        return signal


class DamagedWeights(LinearSubject):
    """Something else than the training makes a weight far too large, finite still."""

    def after(self, step, run):
        if step == FAILS - 1:
            run.model[2].weight.data.mul_(1e25)


class PoisonedWeights(LinearSubject):
    """A weight becomes no number between two steps."""

    def spoiled(self, step, signal):
        if step == FAILS:
            self.run.model[2].weight.data[0, 0] = float("nan")
        return signal


class CorruptedState(LinearSubject):
    """A moment of the optimizer becomes no number between two steps."""

    def spoiled(self, step, signal):
        if step == FAILS:
            first_state(self.run)["exp_avg_sq"].fill_(float("nan"))
        return super().spoiled(step, signal)


class EndlessRate(LinearSubject):
    """The schedule divides by zero."""

    def factor(self, step):
        return float("inf") if step == FAILS else 1.0


class JumpingRate(LinearSubject):
    """The schedule jumps for one step; the loss is lost in the next."""

    def factor(self, step):
        return 1e25 if step == FAILS - 1 else 1.0


class GrowingRate(LinearSubject):
    """The schedule grows without bound."""

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=1e-2)

    def model(self, switches):
        return nn.Linear(8, 1)

    def factor(self, step):
        return 1e3**step


class TooHighRate(LinearSubject):
    """No schedule, no bad batch: every step makes the weights a few times larger."""

    steps = 60

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=3.0)

    def model(self, switches):
        return nn.Linear(8, 1)


class BatchAndState(CorruptedState, BadBatch):
    """Two faults at once."""


class BatchAndWeights(BadBatch, DamagedWeights):
    """Two faults at once."""


class StateAndRate(LinearSubject):
    """A moment and a rate that are too large together only."""

    def after(self, step, run):
        if step == FAILS - 1:
            first_state(run)["exp_avg"].fill_(1e25)

    def factor(self, step):
        return 1e25 if step == FAILS else 1.0


class BatchAndNumbers(RandomSubject):
    """A NaN in the very step in which the random numbers keep nothing."""

    def spoiled(self, step, signal):
        if step == 7:
            signal[0, 0] = float("nan")
        return signal
