"""Every operation of a forward pass as torch dispatches it, for whoever wants to look at operands and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from brainbrr_debug.conjugates import lazy_conjugates
from brainbrr_debug.probes.sanitisers import operand

See = Callable[[Any, tuple[Any, ...], Mapping[str, Any], Tensor | None, Any], None]
"""Takes operation, arguments, arguments by name, the operand of a sanitiser as it was before, and the result."""


class Operations(TorchDispatchMode):
    """Calls `see` after each operation, unless in `unseen()`. It must not raise."""

    supports_higher_order_operators = True

    def __init__(self, see: See) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._see: See | None = see

    def start(self) -> None:
        """From here on, until `stop`; the two nest with other modes like the brackets of a block."""
        self.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Look no longer."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """A compiled region stays compiled, though nothing is seen in it."""
        return True

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Do not look at the operations of this block: they are the observer's own."""
        see, self._see = self._see, None
        try:
            yield
        finally:
            self._see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._see is None or not isinstance(func, torch._ops.OpOverload):
            with lazy_conjugates():
                return func(*args, **kwargs)
        x = operand(func, args, kwargs)
        with lazy_conjugates():
            out = func(*args, **kwargs)
        self._see(func, args, kwargs, x, out)
        return out
