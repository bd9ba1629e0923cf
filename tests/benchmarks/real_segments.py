"""How a detector that has seen synthetic recordings alone ranks real EEG: two seizures among their look-alikes.

    python -m tests.benchmarks.real_segments [CHECKPOINT]

Without CHECKPOINT, `configs/local/smoke.yaml` is trained first (minutes). The composite of real segments and the
artefact that is not in it are one recording, so that all are scaled alike. A segment's score is its highest mean over
10 s. This is no clinical evidence: eleven places of 50 s of unknown patients, of which two count as seizures by the
votes of experts, four of twenty votes for one of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainbrr.cli import cli
from brainbrr.config import SAMPLING_RATE
from brainbrr.data.edf import read_recording
from brainbrr.data.montage import to_electrodes
from brainbrr.data.preprocess import preprocess
from brainbrr.evaluation.baseline import line_length
from brainbrr.evaluation.checkpointed import load_detector
from brainbrr.evaluation.predict import InMemory, predict_signal
from brainbrr.terminal import table

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
# The composite's segments in order, each 49 s after the one before, 1 s of cross-fade; then the artefact.
SEGMENTS = (
    *("Other_sample4", "GRDA_sample4", "SZ_sample1", "LPD_sample1", "GPD_sample4", "LRDA_sample1"),
    *("GPD_sample1", "SZ_sample4", "LPD_sample4", "GRDA_sample1", "Other_sample4 again", "Other_sample1"),
)
KINDS = {"SZ": "seizure", "LPD": "periodic", "GPD": "periodic", "LRDA": "rhythmic", "GRDA": "rhythmic"}
STEP_S, LENGTH_S, MEAN_S = 49, 50, 10


def recording() -> Any:
    """The composite, and the artefact behind it."""
    composite = read_recording(SHARED / "composite/iiic_composite_dev.edf")
    artefact = read_recording(SHARED / "iiic/Other_sample1.edf")
    assert composite.labels == artefact.labels[: len(composite.labels)] and composite.rate == artefact.rate
    behind = artefact.signal[: len(composite.labels)]
    behind = behind - behind.mean(axis=1, keepdims=True)  # as the composite's own segments are
    signal = np.concatenate([composite.signal, behind], axis=1)
    return dataclasses.replace(composite, signal=signal)


def highest_mean(scores: np.ndarray, start_s: float) -> float:
    """The highest mean over MEAN_S within a segment, its cross-fades left out."""
    piece = scores[round((start_s + 1) * SAMPLING_RATE) : round((start_s + LENGTH_S - 1) * SAMPLING_RATE)]
    width = MEAN_S * SAMPLING_RATE
    sums = np.concatenate([[0.0], np.cumsum(piece, dtype=np.float64)])
    return float((sums[width:] - sums[:-width]).max() / width)


def trained(folder: Path) -> Path:
    """The best checkpoint of a run of smoke.yaml within `folder`."""
    arguments = ["train", str(ROOT / "configs/local/smoke.yaml")]
    for key, name in (("data.data_dir", "corpus"), ("data.cache_dir", "cache"), ("experiment.output_dir", "runs")):
        arguments += ["--set", f"{key}={folder / name}"]
    with contextlib.redirect_stdout(sys.stderr):
        assert cli.main(arguments, standalone_mode=False) == 0
    return next((folder / "runs").rglob("best.pt"))


def main(checkpoint: Path) -> None:
    detector, config = load_detector(checkpoint)
    whole = recording()
    probabilities = predict_signal(detector, config, whole, device=torch.device("cpu")).probabilities
    prepared = preprocess(to_electrodes(whole).signal, whole.rate, config.preprocessing)
    lengths = line_length(InMemory(name="composite", signal=prepared.signal), n_samples=prepared.signal.shape[1])
    starts = [STEP_S * k for k in range(len(SEGMENTS) - 1)] + [STEP_S * (len(SEGMENTS) - 1) + 1]
    columns = [[highest_mean(scores, start) for start in starts] for scores in (probabilities, lengths)]
    ranks = [[1 + sum(other > score for other in column) for score in column] for column in columns]
    rows = [["segment", "kind", "detector", "rank", "line length", "rank"]]
    for k in sorted(range(len(SEGMENTS)), key=lambda k: ranks[0][k]):
        kind = KINDS.get(SEGMENTS[k].split("_")[0], "artefact" if SEGMENTS[k] == "Other_sample1" else "other")
        cells = [
            cell for column, rank in zip(columns, ranks, strict=True) for cell in (f"{column[k]:.3f}", str(rank[k]))
        ]
        rows.append([SEGMENTS[k], kind, *cells])
    print(table(rows))
    print("\nNo clinical evidence: twelve segments of 50 s, two of them seizures.")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(trained(Path(place)))
