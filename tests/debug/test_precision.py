"""Which precision: where float64 heals, the module that needs it; where it does not, no word of it."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from brainbrr_debug.precision import algorithms, lift, outermost
from brainbrr_debug.questions.precision import Tree, which_precision
from brainbrr_debug.questions.reality import is_it_real
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.subject import Run, Switch, plain_step
from brainbrr_debug.trial import Trial, prepare
from brainbrr_debug.trials import Trials

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")


class Spread(nn.Module):
    """x → log(mean(exp(scale·x))): beyond float32 for some 90 and more."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return (self.linear(x).tanh().abs() * self.scale).exp().mean(-1, keepdim=True).log() / 100


class Block(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.spread = Spread(scale)

    def forward(self, x):
        return self.spread(self.first(x).relu()) + x


class Deep(nn.Module):
    def __init__(self, scales):
        super().__init__()
        self.blocks = nn.ModuleList(Block(scale) for scale in scales)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Overflowing(toy.PlainSubject):
    """From step 2 on the inputs are large, and the blocks with a scale of 200 overflow."""

    scales = (1.0, 200.0, 1.0)

    def model(self, switches):
        return Deep(self.scales)

    def spoiled(self, step, signal):
        return signal * (100 if step == 2 else 0.01)


class TwoOverflowing(Overflowing):
    scales = (200.0, 1.0, 200.0)

    def spoiled(self, step, signal):
        return signal * 100


class Losing(Overflowing):
    """The loss overflows, no module does."""

    scales = (1.0, 1.0)
    loss = staticmethod(lambda output, target: (output * 1e30).square().mean() / 1e30)


def asked(subject, name="x:Case"):
    content = run_until_harm(subject, name).content
    trials = Trials(content, subject)
    return which_precision(trials, is_it_real(trials, times=1).oracles), trials


def test_the_innermost_module_that_needs_float64_is_named():
    found, trials = asked(Overflowing())
    assert found.modules == ("blocks.1.spread",)
    assert found.told == "it is a matter of precision in blocks.1.spread: float64 there heals it"
    assert trials.count < 20


def test_two_that_need_it_together_are_both_named():
    found, _ = asked(TwoOverflowing())
    assert found.modules == ("blocks.0", "blocks.2")


def test_a_loss_that_overflows_is_in_no_module():
    found, _ = asked(Losing())
    assert found.modules == ("<loss>",)


def test_a_tie_is_no_matter_of_precision():
    found, _ = asked(toy.TieSubject())
    assert found.modules == ()
    assert found.told.startswith("it is no matter of precision: it fails in float64 as well")


def test_what_cannot_be_tried_here_says_why():
    found, _ = asked(Overflowing())
    rows = {row["name"]: row for row in found.rows}
    assert {"float64", "bfloat16 where it may", "float16 where it may", "deterministic algorithms"} <= rows.keys()
    if not torch.cuda.is_available():
        assert rows["TF32"] == {"name": "TF32", "outcome": "skip", "reason": "there is no CUDA device here"}


def test_other_backends_are_tried():
    class Backend(toy.KernelSubject):
        def model(self, switches):
            return super().model({"kernel": switches.get("op.backend", "own")})

        def switches(self):
            return {"op.backend": Switch(values=("own", "torch"), safe="torch", component="1")}

    found, _ = asked(Backend())
    rows = {row["name"]: str(row["outcome"]) for row in found.rows}
    assert rows["op.backend=torch"] == "good"
    assert "it heals with op.backend=torch, too" in found.told


@pytest.mark.parametrize("names", [("",), ("blocks.1",), ("blocks.1.spread", "head")])
def test_modules_in_float64_have_float32_borders(names):
    torch.manual_seed(0)
    model = Deep((1.0, 1.0, 1.0))
    run = Run(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), fused=True),
        loss_fn=nn.functional.mse_loss,
        batches=(),
    )
    signal, target = torch.randn(4, 8), torch.randn(4, 1)
    plain_step(run)([((signal,), target)], Gate())
    before = model(signal).detach()
    lift(run, names)
    output = model(signal)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output.detach(), before, rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        inside = any(name.startswith(part) for part in names)
        assert parameter.dtype == (torch.float64 if inside else torch.float32), name
    plain_step(run)([((signal,), target)], Gate())
    assert all(torch.isfinite(p).all() for p in model.parameters())


class Gate:
    def forward(self, output, loss):
        pass

    def gradients(self, norm=None):
        return True


def test_lifting_all_computes_what_float64_computes():
    subject = Overflowing()
    content = run_until_harm(subject, "x:Overflowing").content
    whole, batches, _ = prepare(content, subject, Trial(dtype="float64"))
    lifted, _, _ = prepare(content, subject, Trial(float64_modules=("",)))
    expected = whole.model(*batches[0][0])
    found = lifted.model(*(x.float() for x in batches[0][0]))
    torch.testing.assert_close(found, expected.float())


def test_the_tree_sees_through_lists():
    subject = Overflowing()
    content = run_until_harm(subject, "x:Overflowing").content
    tree = Tree()(content, subject)
    assert tree[""] == ["blocks.0", "blocks.1", "blocks.2", "head"]
    assert tree["blocks.1"] == ["blocks.1.first", "blocks.1.spread"]
    assert "head" not in tree


def test_names_within_others_are_left_out():
    assert outermost(["graph", "graph.pe", "head"]) == ("graph", "head")
    assert outermost(["", "graph"]) == ("",)
    assert outermost(["graphs", "graph"]) == ("graphs", "graph")


def test_algorithms_are_put_back():
    before = torch.get_float32_matmul_precision()
    with algorithms(deterministic=True, tf32=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_float32_matmul_precision() == "high"
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == before
