"""Scalars for TensorBoard, when the extra is installed and the configuration asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brainbrr.config import ConfigError

Log = Callable[[int, dict[str, float]], None]


def scalar_writer(folder: Path, *, enabled: bool) -> tuple[Log, Callable[[], None]]:
    """A function that logs named values at a step, and one that closes the log; both idle unless `enabled`.

    Raises ConfigError when TensorBoard is asked for and not installed.
    """
    if not enabled:
        return lambda step, values: None, lambda: None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "experiment.tensorboard is true and TensorBoard is not installed; pip install 'brainbrr[tensorboard]'"
        ) from error
    writer = SummaryWriter(str(folder))

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return log, writer.close
