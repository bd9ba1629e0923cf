"""Finds out why a PyTorch training run goes numerically wrong, proves it, and proves the repair.

What is listed in `__all__` is the public surface. Names that need torch are imported when first used, so that
`import brainbrr_debug.records` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from brainbrr_debug.records import Finding, Origin, Outcome, Reading, Severity, Verdict

if TYPE_CHECKING:
    from brainbrr_debug.capture import CaptureContent, read_capture, restore, write_capture
    from brainbrr_debug.origin import diagnose
    from brainbrr_debug.rundir import RunDir
    from brainbrr_debug.sealed import CaptureError
    from brainbrr_debug.subject import Run, Subject, Switch, load_subject
    from brainbrr_debug.watch import NonFiniteStep, Watch

__version__ = "0.1.0"

__all__ = [
    "CaptureContent",
    "CaptureError",
    "Finding",
    "NonFiniteStep",
    "Origin",
    "Outcome",
    "Reading",
    "Run",
    "RunDir",
    "Severity",
    "Subject",
    "Switch",
    "Verdict",
    "Watch",
    "diagnose",
    "load_subject",
    "read_capture",
    "restore",
    "write_capture",
]

_HOMES = {
    "CaptureContent": "capture",
    "CaptureError": "sealed",
    "NonFiniteStep": "watch",
    "Run": "subject",
    "RunDir": "rundir",
    "Subject": "subject",
    "Switch": "subject",
    "Watch": "watch",
    "diagnose": "origin",
    "load_subject": "subject",
    "read_capture": "capture",
    "restore": "capture",
    "write_capture": "capture",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
