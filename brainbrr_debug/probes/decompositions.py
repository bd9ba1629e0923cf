"""Eigenvalue and singular-value gaps of every decomposition a step computes, with the place that asked for it.

While a recorder is active, `eigh`, `eigvalsh` and `svd` of `torch.linalg` are recording wrappers; without one they are
torch's own functions again, so nothing is paid elsewhere. A wrapper stores a few small tensors on the device and reads
nothing back. A program that bound the functions before (`from torch.linalg import eigh`) escapes it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brainbrr_debug.probes.ledger import Guard, Ledger
from brainbrr_debug.quantities import EIGENGAP, EIGENGAP_DETACHED, OUTSIDE_SITE
from brainbrr_debug.records import Reading
from brainbrr_debug.spectral import eigengap, exact_eigengap, sample_of

# Name in torch.linalg → which of its results are the values (ascending or descending); the rest are vectors.
_VALUES = {"eigh": 0, "svd": 1, "eigvalsh": None}


@dataclasses.dataclass(slots=True, eq=False)
class Call:
    """One decomposition: where from, the matrices, their gaps, and whether a gradient reached the vectors."""

    op: str
    site: str
    location: str
    matrices: Tensor  # (…, n, n), shared with the program, not copied
    version: int
    upper: bool
    gaps: Tensor  # (…)
    micro_batch: int = 0
    differentiated: bool = False

    def exact_gaps(self, flat: Tensor) -> Tensor | None:
        """Gaps (len(flat),) of the matrices with those flat indices, in float64; None if they changed since."""
        if self.matrices._version != self.version:
            return None
        chosen = (
            self.matrices.detach().flatten(0, -3)[flat] if self.matrices.dim() > 2 else self.matrices.detach()[None]
        )
        if not bool(torch.isfinite(chosen).all()):
            return None
        return exact_eigengap(
            chosen.mH if self.upper else chosen, "singular" if self.op.endswith("svd") else "hermitian"
        )


class Decompositions:
    """Records the calls of one step. `names` maps id(module) to the module's qualified name."""

    def __init__(self, ledger: Ledger, names: Mapping[int, str]) -> None:
        self._ledger, self._names = ledger, names
        self.step: int | None = None
        self.samples: int | None = None
        self.micro_batch = 0  # whose forward pass runs
        self.calls: list[Call] = []
        self._see: Callable[..., None] = self._record
        self.unseen = 0  # calls under a function transform, whose values exist only inside it

    def attach(self, guard: Guard) -> None:
        """Start to record; nested and overlapping recorders are fine."""
        self._see = guard(self._record)
        _active.append(self)
        _install()

    def detach(self) -> None:
        """Stop; with the last recorder torch's own functions come back."""
        if self in _active:
            _active.remove(self)
        if not _active:
            _uninstall()
        self.clear()

    def clear(self) -> None:
        """Forget the step."""
        self.step, self.calls = None, []

    def record(self, op: str, result: Any, matrices: Tensor, upper: bool) -> None:
        """Take one call's result."""
        if self.step is not None and matrices.numel():
            self._see(op, result, matrices, upper)

    def _record(self, op: str, result: Any, matrices: Tensor, upper: bool) -> None:
        if torch._C._functorch.is_functorch_wrapped_tensor(matrices):
            self.unseen += 1
            return
        index = _VALUES[op]
        values = result if index is None else result[index]
        site, location = _caller(self._names)
        call = Call(
            op=f"torch.linalg.{op}",
            site=site,
            location=location,
            matrices=matrices.detach(),
            version=matrices._version,
            upper=upper,
            gaps=eigengap(values),
            # a checkpoint's second forward runs in the backward pass of the micro-batch before
            micro_batch=max(0, self.micro_batch - (torch._C._current_graph_task_id() != -1)),
        )
        self.calls.append(call)
        if index is not None:
            for vectors in (x for i, x in enumerate(result) if i != index and x.requires_grad):
                vectors.register_hook(functools.partial(_mark, call))

    def finish(self) -> None:
        """At the end of the step: defer each site's smallest gap, apart for vectors with and without a gradient."""
        groups: dict[tuple[str, str, bool, torch.device], list[Call]] = {}
        for call in self.calls:
            groups.setdefault((call.site, call.op, call.differentiated, call.gaps.device), []).append(call)
        for (site, _, differentiated, _), calls in groups.items():
            flats = [call.gaps.reshape(-1) for call in calls]
            gaps = flats[0] if len(flats) == 1 else torch.cat(flats)
            smallest, index = gaps.min(dim=0)
            self._ledger.defer([smallest, index], self._build(site, differentiated, calls))

    def _build(self, site: str, differentiated: bool, calls: list[Call]) -> Callable[[Any], list[Reading]]:
        step, samples = self.step if self.step is not None else -1, self.samples
        quantity = EIGENGAP if differentiated else EIGENGAP_DETACHED
        phase = "backward" if differentiated else "forward"

        def build(v: Any) -> list[Reading]:
            call, flat = locate(calls, int(v[1]))
            sample = sample_of(flat, tuple(call.gaps.shape), samples)
            return [Reading(step=step, phase=phase, site=site, quantity=quantity, value=v[0], sample=sample)]

        return build


def locate(calls: list[Call], index: int) -> tuple[Call, int]:
    """The call and the flat index in it, from an index into all their gaps one behind the other."""
    for call in calls:
        if index < call.gaps.numel():
            return call, index
        index -= call.gaps.numel()
    raise IndexError(f"{index} matrices too many")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Degenerate:
    """One matrix whose relative gap is small, as observed and (where the matrix is still there) in float64."""

    op: str
    site: str
    location: str
    micro_batch: int
    sample: int | None
    matrix: int
    gap: float
    exact_gap: float | None


def degenerate(calls: list[Call], threshold: float, samples: int | None, *, at_most: int = 256) -> list[Degenerate]:
    """The matrices of differentiated calls with a gap at or below `threshold`, smallest first. Reads back.

    A gap that float32 found small but not zero must also be small in float64.
    """
    found: list[Degenerate] = []
    for call in (call for call in calls if call.differentiated):
        gaps = call.gaps.reshape(-1)
        flat = (~(gaps > threshold)).nonzero().reshape(-1)
        if not len(flat):
            continue
        exact = call.exact_gaps(flat)
        exacts = [None] * len(flat) if exact is None else exact.tolist()
        for index, gap, exact_gap in zip(flat.tolist(), gaps[flat].tolist(), exacts, strict=True):
            if exact_gap is None or gap == 0 or exact_gap <= threshold:
                sample = sample_of(index, tuple(call.gaps.shape), samples)
                found.append(
                    Degenerate(
                        op=call.op,
                        site=call.site,
                        location=call.location,
                        micro_batch=call.micro_batch,
                        sample=sample,
                        matrix=index,
                        gap=gap,
                        exact_gap=exact_gap,
                    )
                )
    return sorted(found, key=lambda d: (not math.isnan(d.gap), d.gap))[:at_most]


def _mark(call: Call, gradient: Tensor | None) -> None:
    if gradient is not None:  # None: only the values carried a gradient
        call.differentiated = True


# The replacement of torch's functions -------------------------------------------------------------------------------

_active: list[Decompositions] = []
_originals: dict[str, Callable[..., Any]] = {}


def _install() -> None:
    if not _originals:
        for op in _VALUES:
            _originals[op] = getattr(torch.linalg, op)
            setattr(torch.linalg, op, _recording(op, _originals[op]))


def _uninstall() -> None:
    for op, original in _originals.items():
        setattr(torch.linalg, op, original)
    _originals.clear()


def _recording(op: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if not torch.compiler.is_compiling():
            matrices: Any = args[0] if args else kwargs.get("A", kwargs.get("input"))
            uplo = args[1] if len(args) > 1 and op != "svd" else kwargs.get("UPLO", "L")
            for recorder in _active:
                recorder.record(op, result, matrices, uplo in ("U", "u"))
        return result

    return wrapper


_FOREIGN = tuple(
    {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    | {str(Path(torch.__file__).parent), str(Path(__file__).parent.parent)}
)


def _caller(names: Mapping[int, str]) -> tuple[str, str]:
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
