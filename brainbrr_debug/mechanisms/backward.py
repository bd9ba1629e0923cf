"""Mechanisms of backward nodes: the forward pass was fine, its derivative is not."""

from __future__ import annotations

import torch

from brainbrr_debug.mechanisms.numbers import Explanation, bad_in, dtype_of, how_many, largest, real
from brainbrr_debug.tracing.events import Event
from brainbrr_debug.tracing.evidence import Evidence
from brainbrr_debug.tracing.finiteness import INF, kinds

_FACTORISATIONS = frozenset({
    "qr", "cholesky_ex", "inv_ex", "solve_ex", "solve_triangular", "lu_solve", "lu_factor_ex", "lu", "det", "slogdet",
    "pinv", "lstsq", "eig",
})  # fmt: skip
_SLOPES = {  # where the slope is infinite or undefined, in words
    "sqrt": ("sqrt-at-zero", "the slope of the square root at 0 is infinite"),
    "rsqrt": ("division-by-zero", "1/√x has no slope at 0"),
    "norm": ("norm-at-zero", "a norm has no direction at 0"),
    "vector_norm": ("norm-at-zero", "a norm has no direction at 0"),
    "hypot": ("norm-at-zero", "a norm has no direction at 0"),
    "cdist_forward": ("norm-at-zero", "the distance of a point to itself has no direction"),
    "acos": ("acos-domain", "the slope at ±1 is infinite"),
    "asin": ("acos-domain", "the slope at ±1 is infinite"),
    "acosh": ("acos-domain", "the slope at 1 is infinite"),
    "atan2": ("atan2-at-origin", "the angle of the point (0, 0) has no slope"),
    "pow": ("pow-domain", "the power has no finite slope at base 0"),
    "div": ("division-by-zero", "the divisor is 0"),
    "reciprocal": ("division-by-zero", "the divisor is 0"),
    "log": ("log-of-zero", "the slope of the logarithm at 0 is infinite"),
    "log2": ("log-of-zero", "the slope of the logarithm at 0 is infinite"),
    "log10": ("log-of-zero", "the slope of the logarithm at 0 is infinite"),
    "log1p": ("log-of-zero", "the slope of log(1+x) at −1 is infinite"),
    "entr": ("log-of-zero", "the slope of the entropy at 0 is infinite"),
    "logaddexp": ("infinity-minus-infinity", "−∞ is subtracted from −∞ in the slope"),
    "xlogy": ("log-of-zero", "the slope of the logarithm at 0 is infinite"),
    "atanh": ("inverse-domain", "the slope at ±1 is infinite"),
    "erfinv": ("inverse-domain", "the slope at ±1 is infinite"),
    "logit": ("inverse-domain", "the slope at 0 and 1 is infinite"),
    "std": ("variance-of-constant", "the deviation of equal values has no slope"),
    "var": ("variance-of-one", "the variance of one value has no slope"),
    "exp": ("exp-overflow", "the exponential itself has overflowed"),
    "softmax": ("fully-masked-softmax", "a row has nothing to choose from"),
    "log_softmax": ("fully-masked-softmax", "a row has nothing to choose from"),
    "logsumexp": ("fully-masked-softmax", "a row has nothing to sum"),
}


def explain_backward(event: Event, evidence: Evidence | None) -> Explanation:
    """The mechanism of a backward node whose gradient is bad."""
    if evidence is None or not event.op.startswith("aten::"):
        return Explanation(
            mechanism="custom-backward", seen=f"its own backward gave {how_many(event)} that are not finite"
        )
    if evidence.short in ("eigh", "symeig", "eigvalsh"):
        return _repeated(evidence.results[0], "eigenvalue")
    if evidence.short == "svd":
        return _repeated(evidence.results[1], "singular value")
    if evidence.short == "eig" and not bool(evidence.results[0].imag.any()):
        return _repeated(evidence.results[0].real, "eigenvalue")
    if evidence.short in _FACTORISATIONS:
        return Explanation(mechanism="singular-matrix", seen=_singularity(evidence.tensors[0]))
    if _arrives_as_zero(evidence):
        return _zero_meets_slope(event, evidence)
    if (slope := _SLOPES.get(evidence.short)) is not None and _singular_somewhere(evidence):
        return Explanation(mechanism=slope[0], seen=slope[1])
    return _by_size(event, evidence)


def _zero_meets_slope(event: Event, evidence: Evidence) -> Explanation:
    seen = f"the gradient that arrives at the {how_many(event)} is exactly 0"
    if evidence.chosen_among:
        return Explanation(
            mechanism="where-nan-gradient",
            seen=f"{seen} (a branch that was not taken), the slope there is infinite or undefined, and 0·∞ is NaN",
        )
    mechanism, slope = _SLOPES.get(evidence.short, ("zero-times-infinity", "the slope there is infinite or undefined"))
    return Explanation(mechanism=mechanism, seen=f"{slope}, {seen}, and 0·∞ is NaN")


def _repeated(spectrum: torch.Tensor, what: str) -> Explanation:
    """Closest pair: relative gap, multiplicity, which matrix of the batch. `spectrum` (…, n)."""
    levels = real(spectrum).sort(-1).values.reshape(-1, spectrum.shape[-1])
    scale = levels.abs().amax(-1).clamp_min(torch.finfo(torch.float64).tiny)
    gaps = levels.diff(dim=-1).abs() / scale[:, None]
    if not gaps.numel():
        return Explanation(mechanism=f"repeated-{what.replace(' ', '-')}", seen=f"the {what} is {levels[0, 0]:.6g}")
    worst = int(gaps.amin(-1).argmin())
    place = int(gaps[worst].argmin())
    close = levels[worst]
    many = int(((close - close[place]).abs() <= 1e-6 * scale[worst]).sum())
    return Explanation(
        mechanism=f"repeated-{what.replace(' ', '-')}",
        seen=f"matrix {worst} of {levels.shape[0]} has the {what} {close[place]:.6g} {max(many, 2)} times "
        f"(relative gap {gaps[worst, place]:.3g}), and the gradient of the vectors divides by that gap",
    )


def _singularity(matrix: torch.Tensor) -> str:
    levels = torch.linalg.svdvals(torch.nan_to_num(matrix.detach().to(torch.float64)))
    smallest = levels[..., -1].flatten()
    worst = int(smallest.argmin())
    return f"matrix {worst} of {smallest.numel()} has the smallest singular value {float(smallest[worst]):.4g}"


def _arrives_as_zero(evidence: Evidence) -> bool:
    """Whether the incoming gradient is 0 wherever the outgoing one is bad (same shape only)."""
    mask = bad_in(evidence.produced)
    return mask is not None and any(
        received.shape == mask.shape and bool((real(received)[mask] == 0).all()) for received in evidence.received
    )


def _singular_somewhere(evidence: Evidence) -> bool:
    """Whether numbers are small enough for a slope to blow up; a half-precision product overflows elsewhere."""
    mask = bad_in(evidence.produced)
    for tensor in evidence.tensors:
        x = real(tensor)
        at_fault = x[mask] if mask is not None and x.shape == mask.shape else x
        if bool(((at_fault.abs() < 1e-6) | (at_fault.abs() == 1) | ~torch.isfinite(at_fault)).any()):
            return True
    return False


def _by_size(event: Event, evidence: Evidence) -> Explanation:
    floats = [tensor for tensor in (*evidence.received, *evidence.tensors) if tensor.is_floating_point()]
    if evidence.short == "to_copy" and event.found & INF:
        low = str(evidence.tensors[0].dtype).removeprefix("torch.")
        return Explanation(
            mechanism="cast-overflow",
            seen=f"gradients up to {largest(*floats[:1]):.4g} do not fit {low} on the way back",
        )
    if any(kinds(tensor) for tensor in evidence.tensors):
        return Explanation(mechanism="zero-times-infinity", seen="a number saved in the forward pass is not finite")
    if event.found & INF and floats:
        return Explanation(
            mechanism="overflow", seen=f"numbers up to {largest(*floats):.4g} meet in {dtype_of(floats[0])}"
        )
    return Explanation(mechanism="undefined-result", seen=f"{how_many(event)} of its gradient are undefined")
