from __future__ import annotations

import torch

from brainbrr_debug.environment import EXACT, describe_environment, differences
from brainbrr_debug.records import dumps


def test_everything_that_bits_depend_on_is_described_and_plain() -> None:
    here = describe_environment()
    assert all(here[key] not in (None, "") for key in EXACT)
    assert here["torch"] == torch.__version__ and here["threads"] == torch.get_num_threads()
    assert here["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    dumps(here)


def test_the_same_environment_does_not_differ() -> None:
    assert differences(describe_environment(), describe_environment()) == ()


def test_differences_come_with_what_forbids_the_same_bits_first() -> None:
    here = describe_environment()
    captured = {**here, "python": "2.7", "threads": 64, "command": ["other"]}
    found = differences(captured, here)
    assert [(d.key, d.exact) for d in found] == [("threads", True), ("python", False)]
    assert str(found[0]) == f"threads was 64, here {here['threads']}"
