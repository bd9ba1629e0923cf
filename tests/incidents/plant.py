"""Plants a fault into files that a run has left: `python -m tests.incidents.plant COMMAND FILE …`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from brainbrr.data.electrodes import electrode_of
from brainbrr.data.header import read_header

MARK = -32768
"""What some recorders write where an amplifier delivered nothing."""
DISCHARGE = 4  # samples: 16 ms at 256 Hz
STEP_UV = 0.2  # of the synthetic corpus


@click.group()
def main() -> None:
    """Plant a fault."""


@main.command()
@click.argument("edf", type=click.Path(path_type=Path, exists=True))
@click.argument("electrode")
@click.argument("seconds", type=float)
def mark(edf: Path, electrode: str, seconds: float) -> None:
    """Put one mark of a missing sample into an EDF file, at `seconds` of one electrode."""
    with samples(edf, electrode, seconds, 1) as stretch:
        stretch[:] = MARK


@main.command()
@click.argument("edf", type=click.Path(path_type=Path, exists=True))
@click.argument("electrode")
@click.argument("seconds", type=float)
@click.argument("microvolts", type=float)
def discharge(edf: Path, electrode: str, seconds: float, microvolts: float) -> None:
    """Add a static discharge to an EDF file of the synthetic corpus: a few milliseconds of `microvolts`."""
    with samples(edf, electrode, seconds, DISCHARGE) as stretch:
        stretch += round(microvolts / STEP_UV)


@contextlib.contextmanager
def samples(edf: Path, electrode: str, seconds: float, count: int) -> Iterator[np.ndarray]:
    """The 16-bit samples of a stretch within one data record, written back at the end."""
    header = read_header(edf)
    signal = next(s for s in header.signals if electrode_of(s.label) == electrode)
    record, within = divmod(seconds, header.record_s)
    first = int(record) * sum(s.samples for s in header.signals) + signal.first + round(within * header.rate(signal))
    content = np.memmap(edf, dtype="<i2", mode="r+", offset=header.header_bytes)
    yield content[first : first + count]
    content.flush()


@main.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
def flip(checkpoint: Path) -> None:
    """Flip one bit of a checkpoint: the sign of the largest second moment of its optimizer."""
    import torch

    content = torch.load(checkpoint, weights_only=True)
    moments = [entries["exp_avg_sq"] for entries in content["state"]["optimizer"]["state"].values()]
    largest = max(moments, key=lambda moment: float(moment.max()))
    largest.view(-1)[largest.argmax()] *= -1
    torch.save(content, checkpoint)


if __name__ == "__main__":
    main()
