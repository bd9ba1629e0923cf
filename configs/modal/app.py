"""Trains on a rented GPU at Modal: `modal run configs/modal/app.py --config configs/modal/smoke.yaml`.

Written against Modal's public interface; it has not been run by this project's tests, which have no account there.
The volumes `tusz` (recordings) and `brainbrr-results` (cache and runs) have to exist.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import modal

HERE = Path(__file__).resolve().parents[2]

image = (
    modal.Image.from_registry("pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel")
    .add_local_dir(str(HERE), "/app", copy=True, ignore=[".venv", ".git", "runs", "cache", "corpus"])
    .run_commands(
        "pip install --no-build-isolation 'causal-conv1d>=1.4' 'mamba-ssm>=2.2.5'",
        "pip install '/app[eeg,tensorboard]'",
    )
)
app = modal.App("brainbrr", image=image)


@app.function(
    gpu="A100-80GB",
    cpu=16,
    memory=65536,
    timeout=24 * 3600,
    volumes={
        "/data": modal.Volume.from_name("tusz"),
        "/results": modal.Volume.from_name("brainbrr-results", create_if_missing=True),
    },
)
def train(config: str, resume: str = "") -> int:
    """Run `brainbrr train` and return its exit code; the run directory stays on the results volume."""
    command = ["brainbrr", "train", f"/app/{config}"]
    if resume:
        command += ["--resume", resume]
    return subprocess.run(command, check=False).returncode


@app.local_entrypoint()
def main(config: str = "configs/modal/train.yaml", resume: str = "") -> None:
    """Pass the exit code on, so that a scheduler sees a stopped run."""
    raise SystemExit(train.remote(config, resume))
