"""Trainings that are healthy, and trainings with one thing wrong each, for the certificate."""

import torch
from torch import nn

from brainbrr_debug.subject import Run, Switch, plain_step

WIDTH = 6
BATCHES = 5


class Learner:
    """Learns a linear map from a few batches that can be iterated again; `step` is the plain one."""

    rate = 0.05

    def build(self, seed, switches):
        torch.manual_seed(seed)
        model = self.model(switches)
        run = Run(
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), lr=self.rate),
            loss_fn=nn.functional.mse_loss,
            batches=self.batches(torch.Generator().manual_seed(seed)),
        )
        return self.finished(run)

    def model(self, switches):
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))

    def batches(self, generator):
        weights = torch.randn(WIDTH, 1, generator=generator)
        signals = [torch.randn(8, WIDTH, generator=generator) for _ in range(BATCHES)]
        return [((signal,), signal @ weights) for signal in signals]

    def finished(self, run):
        return run

    def switches(self):
        return {}

    def identify(self, batch_index, sample_index):
        return {"recording": f"batch {batch_index}", "start_s": float(sample_index), "stop_s": sample_index + 1.0}


class OneShot(Learner):
    """Batches that can be drawn once: a new run has new ones."""

    def batches(self, generator):
        return iter(super().batches(generator))


class Empty(Learner):
    def batches(self, generator):
        return iter([])


class NonFinite(Learner):
    """The fourth batch holds an infinity."""

    def batches(self, generator):
        batches = super().batches(generator)
        batches[3][0][0][2, 1] = float("inf")
        return batches


class Sanitised(NonFinite):
    """The same, and a model that makes everything finite."""

    class Clean(nn.Module):
        def forward(self, x):
            return torch.nan_to_num(x, posinf=0.0)

    def model(self, switches):
        return nn.Sequential(self.Clean(), super().model(switches))


class Hooked(NonFinite):
    """The same, with a loss that drops what is bad, and a hook that cleans every gradient on its way to the gate."""

    def finished(self, run):
        for parameter in run.model.parameters():
            parameter.register_hook(lambda gradient: torch.nan_to_num(gradient, posinf=0.0, neginf=0.0))

        def loss(output, target):
            return (output - target).square().where(output.isfinite(), 0.0).mean()

        return Run(model=run.model, optimizer=run.optimizer, loss_fn=loss, batches=run.batches)


class Clamped(Learner):
    """A clamp that holds most of what passes it."""

    class Clamp(nn.Module):
        def forward(self, x):
            return x.clamp(-0.01, 0.01)

    def model(self, switches):
        return nn.Sequential(nn.Linear(WIDTH, 8), self.Clamp(), nn.Linear(8, 1))


class Saturating(Learner):
    """Activation functions with bounds are no clamps; clipping the gradient is no sanitiser."""

    def model(self, switches):
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.Hardtanh(-0.5, 0.5), nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 1))

    def finished(self, run):
        def step(micro_batches, gate):
            ((inputs, target),) = micro_batches
            run.optimizer.zero_grad()
            output = run.model(*inputs)
            loss = run.loss_fn(output, target)
            gate.forward(output, loss)
            loss.backward()
            if gate.gradients():
                nn.utils.clip_grad_norm_(run.model.parameters(), 0.5)
                run.optimizer.step()

        return replaced(run, step=step)


class Skipping(Learner):
    """Every tenth step makes no update, whatever the gate says."""

    def finished(self, run):
        plain, count = plain_step(run), iter(range(10_000))

        def step(micro_batches, gate):
            class Deaf:
                forward = gate.forward

                def gradients(self, norm=None):
                    return gate.gradients(norm) and next(count) % 10 != 7

            plain(micro_batches, Deaf())

        return replaced(run, step=step)


class Ungated(Learner):
    """A step that asks nobody."""

    def finished(self, run):
        def step(micro_batches, gate):
            ((inputs, target),) = micro_batches
            run.optimizer.zero_grad()
            run.loss_fn(run.model(*inputs), target).backward()
            run.optimizer.step()

        return replaced(run, step=step)


class Scheduled(Learner):
    """A scheduler that the step advances."""

    def finished(self, run):
        plain = plain_step(run)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(run.optimizer, 1000)

        def step(micro_batches, gate):
            self.spoil(run.optimizer, scheduler)
            plain(micro_batches, gate)
            scheduler.step()

        return replaced(run, step=step, extra_state={"scheduler": scheduler})

    def spoil(self, optimizer, scheduler):
        pass


class Unscheduled(Scheduled):
    """The same, and somebody else writes the rate."""

    def spoil(self, optimizer, scheduler):
        if scheduler.last_epoch == 12:
            optimizer.param_groups[0]["lr"] = 0.5


class Planned(Learner):
    """A schedule that the loop around the step follows."""

    def finished(self, run):
        return replaced(run, schedule=lambda step, steps: 1 - step / (2 * steps))


class Overwritten(Planned):
    """The same, and a step with a rate of its own."""

    def finished(self, run):
        planned, plain = super().finished(run), plain_step(run)

        def step(micro_batches, gate):
            run.optimizer.param_groups[0]["lr"] = 0.04
            plain(micro_batches, gate)

        return replaced(planned, step=step)


class Still(Learner):
    rate = 0.0


class Blind(Learner):
    """An output that no input reaches."""

    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.bias.expand(len(x), 1) + 1e-9 * x[:, :1]

    def model(self, switches):
        return self.Bias()


class Guessing(Learner):
    """Targets that have nothing to do with the inputs, new ones in every batch."""

    def batches(self, generator):
        while True:
            yield (torch.randn(8, WIDTH, generator=generator),), torch.rand(8, 1, generator=generator)


class Prior(Guessing):
    """Classes of unequal frequency: a model that only knows the frequencies beats zeros and every single number."""

    def batches(self, generator):
        weights = torch.tensor([0.8, 0.15, 0.05])
        while True:
            yield (
                (torch.randn(8, WIDTH, generator=generator),),
                torch.multinomial(weights, 8, replacement=True, generator=generator),
            )

    def model(self, switches):
        return nn.Linear(WIDTH, 3)

    def finished(self, run):
        return replaced(run, loss_fn=nn.functional.cross_entropy)


class WithLoss(Learner):
    """The model returns its loss beside the prediction: no constant can be put in its place."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(WIDTH, 1)

        def forward(self, x):
            prediction = self.linear(x)
            return {"loss": prediction.square().mean() + 0.5, "prediction": prediction}

    def model(self, switches):
        return self.Own()

    def finished(self, run):
        return replaced(run, loss_fn=lambda output, target: output["loss"])


class Scaling(Learner):
    """A loss scaler; the gradients of some steps overflow under its scale."""

    overflows = (0, 1, 2)

    def finished(self, run):
        scaler = torch.amp.GradScaler("cpu")
        numbers = iter(range(10_000))

        def step(micro_batches, gate):
            ((inputs, target),) = micro_batches
            run.optimizer.zero_grad()
            output = run.model(*inputs)
            loss = run.loss_fn(output, target)
            gate.forward(output, loss)
            scaler.scale(loss).backward()
            if next(numbers) in self.overflows:
                run.model[0].weight.grad[0, 0] = float("inf")
            scaler.unscale_(run.optimizer)
            if gate.gradients():
                scaler.step(run.optimizer)
            scaler.update()

        return replaced(run, step=step, extra_state={"scaler": scaler})


class LateScaling(Scaling):
    overflows = (25,)


class Branched(Learner):
    """A model with a branch that can be switched off, and that fails, or does not; and a sanitiser that hides it."""

    fails = False

    class Net(nn.Module):
        def __init__(self, switches, fails):
            super().__init__()
            self.main = nn.Linear(WIDTH, 8)
            self.branch = nn.Linear(WIDTH, 8) if switches.get("branch", True) else None
            self.head = nn.Linear(8, 1)
            self.fails = fails and not switches.get("mended")

        def forward(self, x):
            y = self.main(x)
            if self.branch is not None:
                y = y + self.branch(x)
                if self.fails:
                    y = y + (y - y.detach()).abs().sqrt()  # the slope of a root at 0
            return self.head(torch.tanh(y))

    def model(self, switches):
        return self.Net(switches, self.fails)

    def switches(self):
        return {
            "branch": Switch(values=(True, False), safe=False, component="branch"),
            "mended": Switch(values=(False, True), safe=True, description="no root at all"),
            "clean": Switch(values=(False, True), safe=True, hides=True),
        }


class FailingBranch(Branched):
    fails = True


def replaced(run, **fields):
    import dataclasses

    return dataclasses.replace(run, **fields)
