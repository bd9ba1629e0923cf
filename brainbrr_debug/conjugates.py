"""What a dispatch mode must put back, so that an operation computes what it computes without one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def lazy_conjugates() -> Iterator[None]:
    """For the call of an operation from `__torch_dispatch__`.

    Below autograd torch leaves lazy conjugates and negatives out, and an operation that is made of others (a complex
    pinv) comes out wrong under every dispatch mode that does not put them back (seen in 2.13).
    """
    excluded = torch._C._dispatch_tls_local_exclude_set()
    excluded = excluded.remove(torch._C.DispatchKey.Conjugate).remove(torch._C.DispatchKey.Negative)
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded):
        yield
