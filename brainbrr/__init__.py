"""EEG seizure detection: recordings in, seizure events out, trained under watch.

In Python: `brainbrr.load(checkpoint)` for recordings that are there as a whole, `brainbrr.StreamingDetector` for one
that still runs, `brainbrr.SeizureClassifier` for labelled windows (extra `sklearn`). All are imported when first used,
so that `import brainbrr` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainbrr.estimator import SeizureClassifier
    from brainbrr.evaluation.streaming import StreamingDetector
    from brainbrr.loaded import LoadedDetector, load

__version__ = "0.1.0"

__all__ = ["LoadedDetector", "SeizureClassifier", "StreamingDetector", "load"]

_HOMES = {
    "LoadedDetector": "loaded",
    "SeizureClassifier": "estimator",
    "StreamingDetector": "evaluation.streaming",
    "load": "loaded",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
