"""What can go wrong between a person and a command, each with its exit code. Imports no torch.

    DebugError
    ├── UsageError        2    the arguments: a path, a file of another kind, an output that exists
    └── CannotRunHere     125  the capture is fine, this machine or installation cannot repeat it

`main` is the only place that turns these into an exit.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_GOOD = 0
EXIT_BAD = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 3
EXIT_CANNOT_TELL = 125
EXIT_INTERRUPTED = 130


class DebugError(Exception):
    """What was found, what was expected, what to do; in one line."""

    exit_code: ClassVar[int] = EXIT_INTERNAL


class UsageError(DebugError):
    """The arguments are wrong, and the person who typed them can put them right."""

    exit_code = EXIT_USAGE


class CannotRunHere(DebugError):
    """The step cannot be repeated here: a missing package or device, another schema, no memory."""

    exit_code = EXIT_CANNOT_TELL
