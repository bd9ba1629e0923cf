"""A captured step, repeated in another process from the file alone, has the same bits."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import brainbrr_debug.watch
from brainbrr_debug import NonFiniteStep, Watch

PROGRAM = """
import json, random, sys
import numpy as np
import torch
from torch import nn
from brainbrr_debug.capture import read_capture, restore
from brainbrr_debug.fingerprint import fingerprint, mismatches
from brainbrr_debug.subject import Run, plain_step
from brainbrr_debug.watch import Watch

torch.set_num_threads(1)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.edges = nn.Linear(6, 36, bias=False)
        self.drop = nn.Dropout(0.4)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = x + 0.01 * random.random() + 0.01 * np.random.rand() * (x.abs().sum(-1, keepdim=True) > 0)
        x = torch.where(x.abs().sum(-1, keepdim=True) > 0.2, x, torch.zeros(()))
        a = self.edges(x).reshape(-1, 6, 6)
        return self.head(self.norm(self.drop(torch.linalg.eigh(a + a.mT)[1][..., 0].abs())))


def build(seed):
    torch.manual_seed(seed)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    return Run(model, optimizer, lambda output, target: (output - target).square().mean(), ())


def train(folder):
    run = build(1)
    random.seed(7)
    np.random.seed(8)
    with Watch(run.model, run.optimizer, folder, sentinel=True) as watch:
        for step in range(9):
            batches = [((torch.randn(5, 6),), torch.randn(5, 3)) for _ in range(2)]
            if step == 6:
                batches[1][0][0][2] = 0
            watch.begin(batches, step=step)
            plain_step(run)(batches, watch)
            watch.end()


class Recorder:
    def __init__(self, model):
        self.model, self.losses = model, []

    def forward(self, output, loss):
        self.losses.append(loss.detach())

    def gradients(self, norm=None):
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        self.found = fingerprint(self.losses, total, self.model.named_parameters())
        return False


if __name__ == "__main__":
    captured = read_capture(sys.argv[1])
    run = build(99)
    restore(captured, run)
    recorder = Recorder(run.model)
    plain_step(run)(captured.micro_batches, recorder)
    tampered = {**recorder.found, "losses": [0.0, 0.0]}
    print(json.dumps([mismatches(captured.expected, recorder.found), mismatches(captured.expected, tampered)]))
"""


def test_a_replay_in_a_fresh_process_has_the_same_bits(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    with pytest.raises(NonFiniteStep) as caught:
        runpy.run_path(str(program))["train"](tmp_path / "r")
    capture = caught.value.capture_path
    assert capture.name == "000006.h5"
    command = [sys.executable, str(program), str(capture)]
    same, tampered = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert same == []
    assert len(tampered) == 1 and tampered[0].startswith("losses was ")


def loops() -> list[str]:
    """The bare loop as the documentation shows it: in the module's docstring, and in README.md."""
    docstring = brainbrr_debug.watch.__doc__ or ""
    indented = "\n".join(line[4:] for line in docstring.splitlines() if line.startswith("    "))
    readme = Path(__file__).parents[2] / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    fenced = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Watch(" in block]
    return [indented, *fenced]


@pytest.mark.parametrize("code", loops())
def test_the_loop_of_the_documentation_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(4, 1)
    batches = [(torch.randn(3, 4), torch.randn(3, 1)) for _ in range(5)]
    names = {
        "Watch": Watch,
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters()),
        "batches": batches,
        "loss_fn": nn.functional.mse_loss,
    }
    exec(compile(code, "documentation", "exec"), names)
    assert len(code.strip().splitlines()) <= 10
    assert names["watch"].counters["steps"] == 5
