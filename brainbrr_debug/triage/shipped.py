"""The data that come with the checks: checklists, runbooks, lists of known faults. Imports no torch.

They lie in `triage/` of the repository, and beside the package where it was installed from a wheel.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def shipped(name: str) -> Path:
    """The path of a file or folder such as "default.yaml" or "runbooks"."""
    installed = _PACKAGE / "triage_data"
    return (installed if installed.is_dir() else _PACKAGE.parent / "triage") / name


def runbook(check: str) -> Path:
    """The page on one check: what it means, how to confirm, how to repair."""
    return shipped("runbooks") / f"{check}.md"
