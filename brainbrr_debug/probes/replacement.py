"""The functions of torch that take a matrix apart or divide by one, replaced while a recorder is active.

`torch.linalg.eigh` and its like, their aliases in `torch` and the methods of tensors become wrappers that show their
result to every recorder; with the last recorder torch's own functions come back. What was bound before (`from
torch.linalg import eigh`), and calls from inside of torch, escape: `brainbrr-debug spectrum` sees those.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from brainbrr_debug.quantities import OUTSIDE_SITE
from brainbrr_debug.spectral import Values


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of torch by its full `name`, and what its result tells.

    Either a gap between `values`, of which the results hold those at `index` (None: the result is nothing else) and
    vectors otherwise; or how near to singular is what it divides by, from the inverse or from a solution.
    """

    name: str
    values: Values | None = None
    index: int | None = None
    divides: Literal["inverse", "solution"] | None = None

    @property
    def place(self) -> tuple[Any, str]:
        """Object and attribute."""
        owner, _, attribute = self.name.rpartition(".")
        return {"torch": torch, "torch.linalg": torch.linalg, "torch.Tensor": Tensor}[owner], attribute


class Recorder(Protocol):
    """What the wrappers show their results to."""

    def record(self, function: Function, result: Any, matrices: Tensor, rest: Mapping[str, Any]) -> None:
        """Take one call's result; `rest` are the other arguments by name."""


def activate(recorder: Recorder) -> None:
    """Show every call to `recorder`, too."""
    _active.append(recorder)
    if not _originals:
        for function in FUNCTIONS:
            owner, name = function.place
            _originals.append((owner, name, vars(owner).get(name)))
            setattr(owner, name, _showing(function, getattr(owner, name)))


def deactivate(recorder: Recorder) -> None:
    """No longer; fine when it never was."""
    if recorder in _active:
        _active.remove(recorder)
    if not _active:
        for owner, name, original in _originals:
            if original is None:  # inherited: a method of torch's own base class of tensors
                delattr(owner, name)
            else:
                setattr(owner, name, original)
        _originals.clear()


def _showing(function: Function, original: Callable[..., Any]) -> Callable[..., Any]:
    named = ("UPLO",) if function.values == "hermitian" else ("B",)  # the one argument behind the matrices that is read

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if not torch.compiler.is_compiling():
            matrices: Any = args[0] if args else kwargs.get("A", kwargs.get("input"))
            rest = {**dict(zip(named, args[1:], strict=False)), **kwargs}
            for recorder in _active:
                recorder.record(function, result, matrices, rest)
        return result

    return wrapper


FUNCTIONS = (
    Function(name="torch.linalg.eigh", values="hermitian", index=0),
    Function(name="torch.linalg.eigvalsh", values="hermitian"),
    *(Function(name=f"{owner}.svd", values="singular", index=1) for owner in ("torch.linalg", "torch", "torch.Tensor")),
    Function(name="torch.linalg.svdvals", values="singular"),
    Function(name="torch.linalg.eig", values="eigen", index=0),
    Function(name="torch.linalg.eigvals", values="eigen"),
    Function(name="torch.linalg.inv", divides="inverse"),
    Function(name="torch.linalg.inv_ex", divides="inverse"),
    Function(name="torch.inverse", divides="inverse"),
    Function(name="torch.Tensor.inverse", divides="inverse"),
    Function(name="torch.linalg.solve", divides="solution"),
    Function(name="torch.linalg.solve_ex", divides="solution"),
)
"""Where a cheap number tells. The others are left to `brainbrr-debug spectrum`: det, slogdet, qr, lstsq and pinv have
none, and cholesky gives up by itself before its matrix is singular to its precision."""

_active: list[Recorder] = []
_originals: list[tuple[Any, str, Any]] = []

_FOREIGN = tuple(
    {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    | {str(Path(torch.__file__).parent), str(Path(__file__).parent.parent)}
)


def caller(names: Mapping[int, str]) -> tuple[str, str]:
    """The innermost known module whose method is running, and file:line of the innermost frame of the user's code."""
    frame = sys._getframe(1)
    site, location = OUTSIDE_SITE, ""
    while frame is not None:
        code = frame.f_code
        if not location and not code.co_filename.startswith(_FOREIGN):
            location = f"{code.co_filename}:{frame.f_lineno}"
        if code.co_argcount:
            name = names.get(id(frame.f_locals.get(code.co_varnames[0])))
            if name is not None:
                return name, location
        frame = frame.f_back  # type: ignore[assignment]
    return site, location
