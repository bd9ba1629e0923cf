"""The measures behind a certificate: significance, the strongest constant, contrast of outputs, altered values."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from brainbrr_debug.baseline import Baseline
from brainbrr_debug.probes.alterations import Alterations
from brainbrr_debug.probes.contrast import contrast
from brainbrr_debug.significance import below_zero, t_below

# Significance


@given(st.floats(-12, 12), st.integers(4, 400))
def test_the_tail_is_students(t, freedom):
    ours, exact = t_below(t, freedom), float(stats.t.cdf(t, freedom))
    assert ours == pytest.approx(exact, rel=0.33, abs=1e-9)


@pytest.mark.parametrize(("alike", "most"), [(0.0, 0.07), (0.6, 0.10)])
def test_numbers_around_zero_are_rarely_below_it(alike, most):
    generator, hits = random.Random(1), 0
    for _ in range(1000):
        number, numbers = 0.0, []
        for _ in range(60):
            number = alike * number + generator.gauss(0, 1)
            numbers.append(number)
        hits += below_zero(numbers).p < 0.05
    assert hits / 1000 < most


def test_numbers_below_zero_are_found_and_equal_ones_need_no_spread():
    generator = random.Random(2)
    assert below_zero([generator.gauss(-1, 1) for _ in range(60)]).p < 1e-6
    assert below_zero([-0.1] * 20).p == 0
    assert below_zero([0.1] * 20).p == below_zero([0.0] * 20).p == 1
    assert below_zero([math.nan, 1.0, -1.0]).p == 1
    assert "p below 1e-12" in str(below_zero([-0.1] * 20))


# The strongest constant


def test_a_class_prior_is_a_constant_and_so_is_a_mean_for_each_place():
    generator = torch.Generator().manual_seed(0)
    targets = [
        torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 16, replacement=True, generator=generator) for _ in "xyz"
    ]
    baseline = Baseline(nn.functional.cross_entropy, 3)
    for target in targets:
        baseline.see(torch.randn(16, 3, generator=generator), target)
    frequencies = torch.cat(targets).bincount().float() / 48
    entropy = -float((frequencies * frequencies.log()).sum())
    assert sum(baseline.constant_losses()) / 3 == pytest.approx(entropy, rel=1e-3)
    places = torch.tensor([[1.0, -2.0, 3.0]])
    squares = Baseline(nn.functional.mse_loss, 2)
    for sign in (1, -1):
        squares.see(torch.zeros(2, 3), torch.cat([places + sign, places - sign]))
    assert squares.constant_losses() == pytest.approx([1.0, 1.0], rel=1e-4)


@settings(max_examples=20)
@given(st.floats(0.05, 0.95), st.integers(0, 100))
def test_no_fixed_number_scores_better_than_the_best_constant(share, seed):
    generator = torch.Generator().manual_seed(seed)
    loss_fn, baseline, batches = nn.functional.binary_cross_entropy_with_logits, None, []
    baseline = Baseline(loss_fn, 4)
    for _ in range(4):
        target = (torch.rand(32, 1, generator=generator) < share).float()
        batches.append(target)
        baseline.see(torch.randn(32, 1, generator=generator), target)
    best = sum(baseline.constant_losses()) / 4
    for value in torch.linspace(-5, 5, 101):
        assert best <= float(sum(loss_fn(value.expand(32, 1), target) for target in batches)) / 4 + 1e-5


def test_a_constant_model_is_never_better_than_the_best_constant():
    baseline = Baseline(nn.functional.mse_loss, 10)
    for _ in range(10):
        baseline.see(torch.full((8, 1), 0.4), torch.rand(8, 1))
    differences = [a - b for a, b in zip(baseline.losses(), baseline.constant_losses(), strict=True)]
    assert below_zero(differences).p > 0.4


def test_only_the_last_batches_count_and_outputs_may_be_nested_or_ragged():
    baseline = Baseline(lambda output, target: (output["y"] - target).square().mean(), 2)
    for rows, length in ((3, 4), (2, 5), (4, 6)):
        baseline.see({"y": torch.zeros(rows, length), "n": 3}, torch.full((rows, length), 2.0))
    assert baseline.losses() == [4.0, 4.0]
    assert baseline.constant_losses() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_without_an_output_to_replace_there_is_no_constant():
    assert Baseline(lambda output, target: output, 2).constant_losses() is None
    alone = Baseline(lambda output, target: output, 2)
    alone.see(torch.tensor(1.5), None)
    assert alone.losses() == [1.5] and alone.constant_losses() is None
    apart = Baseline(lambda output, target: output["loss"], 2)
    apart.see({"loss": torch.tensor(1.5), "y": torch.zeros(3)}, None)
    assert apart.constant_losses() is None


def test_a_loss_with_corners_and_holes_has_a_best_constant_too():
    baseline = Baseline(lambda output, target: output.log().abs().round().mean(), 2)
    baseline.see(torch.tensor([[3.0], [4.0]]), None)
    baseline.see(torch.tensor([[0.5], [1.0]]), None)
    assert sum(baseline.constant_losses()) / 2 <= 1.0


def test_generators_are_left_alone():
    baseline = Baseline(lambda output, target: (output * torch.rand(3)).sum(), 2)
    before = torch.get_rng_state()
    baseline.see(torch.ones(3), None)
    baseline.constant_losses()
    assert torch.equal(torch.get_rng_state(), before)


# Contrast


def test_contrast_is_between_samples_and_between_batches_of_one():
    double = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        double.weight.fill_(2.0)
    assert contrast(double, [(torch.tensor([[1.0], [3.0]]),)]) == pytest.approx(4 / 6)
    assert contrast(double, [(torch.tensor([[1.0]]),), (torch.tensor([[3.0]]),)]) == pytest.approx(4 / 6)
    assert contrast(double, [(torch.tensor([[1.0]]),)]) is None
    assert contrast(nn.Linear(1, 1, bias=False).requires_grad_(False), [(torch.zeros(2, 1),)]) == 0.0


def test_noise_is_no_contrast_and_modes_are_left_alone():
    class Noise(nn.Module):
        def forward(self, x):
            return torch.dropout(torch.ones(len(x), 4), 0.5, self.training) + torch.rand(1)

    model = nn.Sequential(Noise())
    model[0].train(True)
    model.training = False
    assert contrast(model, [(torch.zeros(2, 1),), (torch.ones(2, 1),)]) == 0.0
    assert (model.training, model[0].training) == (False, True)


# Altered values


def alterations(work):
    seen = Alterations(nn.Identity())
    with seen.watching():
        work()
    return [(found.nonfinite, found.held) for found in seen.read()]


def indexed(x):
    x[~torch.isfinite(x)] = 0.0


def bad():
    return torch.tensor([1.0, math.nan, math.inf, 9.0], requires_grad=True)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda: torch.nan_to_num(bad()), [(2, 0)]),
        (lambda: torch.nan_to_num(torch.ones(3)), []),
        (lambda: bad().clamp(-5, 5), [(1, 1)]),
        (lambda: bad().detach().nan_to_num_(), [(2, 0)]),
        (lambda: torch.tensor([3.0, 9.0]).clamp(max=5), []),
        (lambda: torch.tensor([3.0, 9.0], requires_grad=True).clamp(min=1e-6), []),
        (lambda: nn.functional.relu6(torch.tensor([3.0, 9.0], requires_grad=True)), []),
        (lambda: nn.functional.hardtanh(torch.tensor([3.0, math.inf], requires_grad=True)), [(1, 0)]),
        (lambda: torch.relu(bad()), []),
        (lambda: torch.where(torch.isfinite(bad()), bad(), 0.0), [(2, 0)]),
        (lambda: torch.where(bad().isnan() | bad().isinf(), torch.zeros(4), bad()), [(2, 0)]),
        (lambda: bad().masked_fill(~torch.isfinite(bad()), 0.0), [(2, 0)]),
        (lambda: indexed(bad() * 1), [(2, 0)]),
        (lambda: torch.where(torch.tensor([True, False, False, False]), bad(), 0.0), []),
        (lambda: torch.where(torch.isfinite(bad()), bad().detach(), 0.0), []),
        (lambda: torch.where(torch.tensor([True, False]), torch.ones(2, requires_grad=True), 0.0), []),
    ],
)
def test_what_counts_as_altered(work, expected):
    assert alterations(work) == expected


def test_a_hook_in_the_backward_pass_is_seen():
    x = torch.tensor([0.0], requires_grad=True)

    def work():
        y = x.sqrt()
        x.register_hook(lambda gradient: torch.nan_to_num(gradient, posinf=0.0))
        y.backward()

    assert alterations(work) == [(1, 0)]

    def other():
        y = x.sqrt()
        x.register_hook(lambda gradient: torch.where(gradient.isinf(), 0.0, gradient))
        y.backward()

    assert (1, 0) in alterations(other)
