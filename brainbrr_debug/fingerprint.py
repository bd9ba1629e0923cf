"""What a step computed, down to the bits: enough to say whether a repeat of it is the same step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from brainbrr_debug.statistics import finiteness
from brainbrr_debug.tensors import to_bytes


def digest(x: Tensor) -> str:
    """A short hash of dtype, shape and bits of any tensor; sparse ones by their coalesced indices and values."""
    state = hashlib.blake2b(f"{x.dtype}{tuple(x.shape)}".encode(), digest_size=16)
    for part in _dense_parts(x):
        state.update(to_bytes(part).data)
    return state.hexdigest()


def gradient_digest(gradients: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes: equal for equal bits, NaN payloads included."""
    total = hashlib.sha256()
    for name in sorted(gradients):
        gradient = gradients[name]
        total.update(f"{name} {tuple(gradient.shape)} {gradient.dtype}\n".encode())
        for part in _dense_parts(gradient):
            total.update(to_bytes(part).data)
    return total.hexdigest()


def fingerprint(
    losses: Sequence[Tensor], gradient_norm: Tensor | float, parameters: Iterable[tuple[str, Tensor]]
) -> dict[str, Any]:
    """What a step computed before the gate, as plain JSON types.

    `losses` of the micro-batches and their mean `loss`, `gradient_norm`, `gradient_digest` over all gradients, and
    under `gradients` for each named parameter None (no gradient) or its digest and its counts of NaN and infinities.
    """
    named = [(name, parameter.grad) for name, parameter in parameters]
    gradients: dict[str, Any] = {name: None for name, _ in named}
    present = {name: gradient for name, gradient in named if gradient is not None}
    for name, gradient in present.items():
        found = finiteness(gradient)
        gradients[name] = {"digest": digest(gradient), "nan": found.nan, "inf": found.inf}
    values = [float(loss) for loss in losses]
    return {
        "loss": sum(values) / len(values) if values else None,
        "losses": values,
        "gradient_norm": float(gradient_norm),
        "gradient_digest": gradient_digest(present),
        "gradients": gradients,
    }


def mismatches(expected: Mapping[str, Any], found: Mapping[str, Any], *, tolerance: float | None = None) -> list[str]:
    """In what two fingerprints differ, a sentence each; none means the same step.

    Without `tolerance` every bit counts. With it, finite losses and norms may differ by that relative amount, and
    gradients need only be missing, finite or non-finite in the same places.
    """
    out = []
    for key in ("losses", "gradient_norm"):
        wanted, got = _floats(expected[key]), _floats(found[key])
        if len(wanted) != len(got) or not all(_equal(a, b, tolerance) for a, b in zip(wanted, got, strict=True)):
            out.append(f"{key.replace('_', ' ')} was {_shown(wanted)}, here {_shown(got)}")
    names = [*expected["gradients"], *(n for n in found["gradients"] if n not in expected["gradients"])]
    other = [name for name in names if not _same_gradient(expected, found, name, exact=tolerance is None)]
    if other:
        out.append(f"gradient of {len(other)} of {len(names)} parameters differs, first {other[0]}")
    return out


def _dense_parts(x: Tensor) -> tuple[Tensor, ...]:
    """Contiguous tensors that together are `x`, whatever its layout in memory."""
    x = x.detach()
    if x.layout == torch.sparse_coo:
        x = x.coalesce()
        return x.indices().contiguous(), x.values().contiguous()
    return (x.contiguous(),)


def _same_gradient(expected: Mapping[str, Any], found: Mapping[str, Any], name: str, *, exact: bool) -> bool:
    wanted, got = expected["gradients"].get(name), found["gradients"].get(name)
    if wanted is None or got is None:
        return wanted is got
    if exact and wanted["digest"] is not None:  # None: the gradient was gone when the capture was written
        return bool(wanted == got)
    return bool(_bad(wanted) == _bad(got))


def _bad(gradient: Mapping[str, Any]) -> bool:
    return bool(gradient["nan"] or gradient["inf"])


def _floats(value: Any) -> list[float]:
    return [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)]


def _equal(a: float, b: float, tolerance: float | None) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if tolerance is None or math.isinf(a) or math.isinf(b):
        return a == b
    return math.isclose(a, b, rel_tol=tolerance)


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.9g}" for value in values)
