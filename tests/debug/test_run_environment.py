from __future__ import annotations

import torch

from brainbrr_debug.differences import EXACT, differences
from brainbrr_debug.environment import describe_environment
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


def test_of_tables_only_what_differs_is_told() -> None:
    here = {**describe_environment(), "packages": {"numpy": "2.0", "h5py": "3"}}
    captured = {**here, "packages": {"numpy": "1.9", "h5py": "3", "triton": "3.1"}, "cuda": "12.8"}
    captured["precision"] = {**here["precision"], "deterministic": True}
    found = differences(captured, {**here, "cuda": None})
    assert [(str(d), d.exact) for d in found] == [
        ("precision.deterministic was True, here False", True),
        ("cuda was 12.8, here not there", False),
        ("packages.numpy was 1.9, here 2.0", False),
        ("packages.triton was 3.1, here not there", False),
    ]
