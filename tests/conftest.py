"""One thread everywhere (faster on a loaded machine, and one bit pattern), seeded, and with Ctrl-C as Python has it."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("brainbrr", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("brainbrr")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    # A shell's background job, which a CI may be, starts with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
