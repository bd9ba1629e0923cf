"""One of two processes that train together: `python rank_program.py RANK FOLDER SCENARIO…`, results as JSON.

Each scenario trains six steps in FOLDER/<scenario>; in step 3 something goes wrong on rank 1, except in "healthy".
"""

from __future__ import annotations

import datetime
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from brainbrr_debug import NonFiniteStep, Watch

BAD = 3


class Net(nn.Module):
    """(B, 4) -> (B, 1); a row of zeros has no gradient at the root."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).square().sum(-1, keepdim=True).sqrt().expand(-1, 4))


def options(scenario: str) -> dict[str, Any]:
    if scenario == "skip":
        return {"policy": "skip", "max_skipped": 5}
    return {"quarantine": True} if scenario == "quarantine" else {}


def train(rank: int, folder: Path, scenario: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=scenario == "quarantine")
    generator = torch.Generator().manual_seed(rank)
    seen: dict[str, Any] = {"updates": 0, "stopped": None}
    try:
        with Watch(model, optimizer, folder / scenario, **options(scenario)) as watch:
            for step in range(6):
                x = torch.randn(3, 4, generator=generator)
                bad = step == BAD and rank == 1 and scenario != "healthy"
                if bad and scenario != "loss":
                    x[1] = 0
                watch.begin(x, None)
                optimizer.zero_grad()
                output = model(x)
                loss = output.square().mean() + (math.inf if bad and scenario == "loss" else 0)
                loss.backward()
                if bad and scenario == "died":
                    raise KeyError("mine")
                if watch.check(loss, output):
                    optimizer.step()
                    seen["updates"] += 1
    except NonFiniteStep as stop:
        seen["stopped"] = {"step": stop.finding.step, "message": str(stop), "evidence": stop.finding.evidence}
        seen["capture"] = None if stop.capture_path is None else str(stop.capture_path)
    seen["counters"] = watch.counters
    seen["weights"] = [p.detach().double().sum().item() for p in model.parameters()]
    seen["hooks"] = sum(len(p._backward_hooks or ()) for p in model.parameters())
    return seen


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    timeout = datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timeout)
    found = {scenario: train(rank, folder, scenario) for scenario in sys.argv[3:]}
    distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
