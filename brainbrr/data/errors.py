"""What can be wrong with data. Each message says what was found, what was expected and what to do."""

from __future__ import annotations


class RecordingError(ValueError):
    """A recording that cannot be read, or that lacks what the detector needs."""


class LabelError(ValueError):
    """A label file with a line that cannot be understood."""


class CacheError(ValueError):
    """A cache, or a folder of recordings to build one from, that cannot be used."""
