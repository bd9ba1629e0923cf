"""A component fails alone in front of the first parameter, too, where no gradient comes back to tell."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from brainbrr_debug.questions.sufficiency import fails_alone
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.trials import Trials

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")


class Compression(nn.Module):
    def forward(self, x):
        return x.sign() * torch.log(torch.cosh(x))


class LoudSubject(toy.PlainSubject):
    """cosh leaves float32 at 89."""

    def model(self, switches):
        return nn.Sequential(Compression(), nn.Linear(8, 1))

    def spoiled(self, step, signal):
        if step == 5:
            signal[3, 2] = 121
        return signal


@pytest.mark.parametrize(("component", "fails"), [("0", True), ("1", False)])
def test_what_overflows_in_front_of_the_first_parameter_fails_alone(component, fails):
    subject = LoudSubject()
    content = run_until_harm(subject, "").content
    assert fails_alone(Trials(content, subject), component).fails is fails
