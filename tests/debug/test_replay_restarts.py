"""A captured step has the same bits in a hundred other processes: 95 forked ones and 5 that start cold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FORKED, COLD = 95, 5

PROGRAM = """
import random, sys
import numpy as np
import torch
from torch import nn
from brainbrr_debug import NonFiniteStep, Run, Watch
from brainbrr_debug.subject import plain_step


class Network(nn.Module):
    '''Convolution, recurrence, attention, dropout, batch statistics, eigenvectors, and three generators.'''

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(4, 16, 7, stride=4, padding=3, bias=False)
        self.norm = nn.BatchNorm1d(16)
        self.recurrence = nn.GRU(16, 32, batch_first=True, bias=False)
        self.attention = nn.MultiheadAttention(32, 4, dropout=0.1, batch_first=True)
        self.edges = nn.Linear(64, 64, bias=False)
        self.head = nn.Linear(8, 1)

    def forward(self, x):  # (B, 4, 256) -> (B,)
        noise = random.random() + np.random.rand()
        loud = (x.abs().sum((1, 2)) > 0).float()[:, None]
        y = nn.functional.gelu(self.norm(self.convolution(x * (1 + 0.01 * noise)))).mT
        y, _ = self.recurrence(nn.functional.dropout(y, 0.2))
        y = y + self.attention(y, y, y, need_weights=False)[0]
        a = self.edges(torch.cat([y.amax(1), y.mean(1)], -1) * loud).reshape(-1, 8, 8)
        return self.head(torch.linalg.eigh(a + a.mT)[1][..., 0])[:, 0]


class Program:
    def build(self, seed, switches):
        torch.manual_seed(seed)
        model = Network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        return Run(model, optimizer, nn.functional.mse_loss, ())

    def switches(self):
        return {}

    def identify(self, batch_index, sample_index):
        return {}


def train(folder):
    torch.set_num_threads(1)
    run = Program().build(1, {})
    with Watch(run.model, run.optimizer, folder, subject="restarted:Program", seed=1) as watch:
        for step in range(5):
            batches = [((torch.randn(6, 4, 256),), torch.randn(6)) for _ in range(2)]
            if step == 4:
                batches[1][0][0][3] = 0
            watch.begin(batches)
            plain_step(run)(batches, watch)


if __name__ == "__main__":
    try:
        train(sys.argv[1])
    except NonFiniteStep as stopped:
        print(stopped.capture_path)
"""

FORKS = """
import json, os, random, sys
from pathlib import Path
import numpy as np
import torch
import torch._dynamo  # which the first optimizer of every process would import, for seconds
import restarted
from brainbrr_debug.replay import replay_capture

for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(number)
        print(json.dumps(replay_capture(Path(sys.argv[1]), times=1).to_dict()), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_a_hundred_processes_repeat_a_step_bit_for_bit(tmp_path: Path) -> None:
    (tmp_path / "restarted.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def python(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    capture = python("restarted.py", "run").stdout.strip()
    assert capture.endswith("000004.h5")
    forked = python("-c", FORKS, capture, FORKED)
    documents = [json.loads(line) for line in forked.stdout.splitlines()]
    for _ in range(COLD):
        cold = python("-m", "brainbrr_debug", "replay", capture, "--times", 1, "--format", "json")
        assert cold.returncode == 1, cold.stderr
        documents.append(json.loads(cold.stdout))
    assert len(documents) == FORKED + COLD, forked.stderr
    for document in documents:
        assert document["outcome"] == "failed again" and document["replay"] == {"reproduced": 1, "of": 1}
        assert document["bit_exact"] and document["mismatches"] == []
