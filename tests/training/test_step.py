from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from brainbrr.config import Training
from brainbrr.training.losses import build_loss
from brainbrr.training.observer import Unobserved
from brainbrr.training.optim import build_optimizer
from brainbrr.training.step import TrainingStep


class Recorder(Unobserved):
    def __init__(self, proceed: bool = True) -> None:
        self.proceed, self.outputs, self.norms = proceed, [], []

    def forward(self, output: torch.Tensor, loss: torch.Tensor) -> None:
        self.outputs.append(output.detach().clone())

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        self.norms.append(float(norm))
        return self.proceed


def make(training: Training) -> TrainingStep:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    return TrainingStep(model, build_optimizer(model, training), build_loss(training), training)


def batch(value: float = 1.0) -> tuple[tuple[torch.Tensor], torch.Tensor]:
    return (torch.full((2, 2, 3), value),), torch.tensor([[0.0, 1, 0, 1]] * 2)


def weights(step: TrainingStep) -> torch.Tensor:
    return step.model[1].weight.detach().clone()


def test_a_step_changes_the_weights() -> None:
    step = make(Training())
    before = weights(step)
    step([batch()], Unobserved())
    assert not torch.equal(before, weights(step))


def test_a_gate_that_says_no_leaves_the_weights_untouched() -> None:
    step = make(Training())
    before = weights(step)
    step([batch()], Recorder(proceed=False))
    assert torch.equal(before, weights(step))


def test_a_gate_that_raises_leaves_the_weights_untouched() -> None:
    class Stop(Unobserved):
        def gradients(self, norm: torch.Tensor | None = None) -> bool:
            raise FloatingPointError

    step = make(Training())
    before = weights(step)
    with pytest.raises(FloatingPointError):
        step([batch(float("nan"))], Stop())
    assert torch.equal(before, weights(step))


def test_the_gate_sees_the_norm_before_clipping_and_the_gradient_is_clipped() -> None:
    step, gate = make(Training(gradient_clip=1e-3)), Recorder()
    step([batch(100.0)], gate)
    assert gate.norms[0] > 1e-2
    total = torch.nn.utils.get_total_norm([p.grad for p in step.model.parameters()])
    assert float(total) == pytest.approx(1e-3, rel=1e-3)


def test_accumulated_micro_batches_make_the_step_of_their_mean() -> None:
    one, two = make(Training(gradient_clip=0)), make(Training(gradient_clip=0))
    (x,), y = batch()
    one([((torch.cat([x, 2 * x]),), torch.cat([y, y]))], Unobserved())
    two([((x,), y), ((2 * x,), y)], Unobserved())
    assert torch.allclose(one.model[1].weight.grad, two.model[1].weight.grad, atol=1e-7)
    assert float(one.loss) == pytest.approx(float(two.loss))


def test_sanitize_shows_the_gate_raw_logits_counts_what_it_alters_and_reports_a_plausible_loss() -> None:
    step, gate = make(Training(on_nonfinite="sanitize")), Recorder()
    step([batch(float("nan"))], gate)
    assert torch.isnan(gate.outputs[0]).all()
    assert torch.isfinite(step.loss)
    assert step.altered["logits"] == gate.outputs[0].numel()
    assert torch.isnan(weights(step)).any()  # sanitised logits do not save the weights: 0 · NaN


def test_sanitised_inputs_are_counted() -> None:
    step = make(Training(sanitize_inputs=True))
    step([batch(float("inf"))], Unobserved())
    assert step.altered["inputs"] == 12
    assert torch.isfinite(weights(step)).all()


def test_anomaly_mode_is_on_when_asked_for() -> None:
    step = make(Training(detect_anomaly=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces the mode, then prints where it found the NaN
        with pytest.raises(RuntimeError, match="returned nan values"):
            step([batch(float("nan"))], Unobserved())


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), (False, torch.float32)])
def test_mixed_precision_reaches_the_model(precision: str | bool, dtype: torch.dtype) -> None:
    step, gate = make(Training(mixed_precision=precision)), Recorder()
    step([batch()], gate)
    assert gate.outputs[0].dtype == dtype
