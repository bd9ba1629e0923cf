"""Python imports this at its start, because the observed command has this folder on its path: begin to observe."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

_HERE = os.path.dirname(__file__)
_PATH = os.path.join(os.path.dirname(_HERE), "observer.py")
_SPEC = importlib.util.spec_from_file_location("_brainbrr_observer", _PATH)
if _SPEC is not None and _SPEC.loader is not None:
    _observer = importlib.util.module_from_spec(_SPEC)
    _SPEC.loader.exec_module(_observer)
    _observer.begin()

# Somebody else's sitecustomize, which this one stands in front of.
sys.path[:] = [place for place in sys.path if os.path.abspath(place or ".") != _HERE]
_THIS = sys.modules.pop("sitecustomize", None)
try:
    importlib.import_module("sitecustomize")
except ImportError:
    if _THIS is not None:
        sys.modules["sitecustomize"] = _THIS
