"""Looking changes nothing: complex operations compute the same bits under every dispatch mode of ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brainbrr_debug import Watch, diagnose


class Inverse(nn.Module):
    """The pseudo-inverse of a complex matrix, which torch makes of other operations with lazy conjugates."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * torch.linalg.pinv(self.weight * x).abs()


def gradient(step: int, *, watched: bool) -> Tensor:
    torch.manual_seed(0)
    model = Inverse()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.tensor(1.0 + step, dtype=torch.float64)
    if not watched:
        model(x).sum().backward()
    else:
        with Watch(model, optimizer, every=1) as watch:
            watch.begin(x, x)
            loss = model(x).sum()
            loss.backward()
            assert watch.check(loss)
    assert model.weight.grad is not None
    return model.weight.grad


def test_a_sampled_step_computes_the_same_bits() -> None:
    torch.testing.assert_close(gradient(0, watched=True), gradient(0, watched=False), rtol=0, atol=0)


def test_diagnose_follows_a_complex_program_to_its_fault() -> None:
    torch.manual_seed(0)
    model = Inverse()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batches = [((torch.tensor(2.0, dtype=torch.float64),), torch.tensor(scale)) for scale in (1.0, 0.0)]

    def loss_fn(output: Tensor, scale: Tensor) -> Tensor:
        return (scale * output).norm().sqrt()

    origin = diagnose(model, batches, loss_fn, optimizer)
    assert (origin.step, origin.phase, origin.proof) == (1, "backward", "healed")
