"""A Dask cluster as an executor; needs the extra `dask`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor

from brainbrr_debug.errors import CannotRunHere, UsageError

PATIENCE = "10s"


@contextlib.contextmanager
def on_cluster(address: str | None) -> Iterator[Executor | None]:
    """An executor of the cluster whose scheduler listens at `address` (tcp://host:8786); None for None.

    Raises UsageError where Dask is not installed or the address is none, CannotRunHere where nobody answers.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(f"--cluster needs Dask ({error}); pip install 'brainbrr[dask]'") from error
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UsageError(f"--cluster is {address!r} ({error}); expected an address such as tcp://host:8786") from error
    except OSError as error:
        raise CannotRunHere(f"--cluster {address}: no scheduler answers within {PATIENCE}: {error}") from error
    with client:
        yield client.get_executor()  # type: ignore[no-untyped-call]
