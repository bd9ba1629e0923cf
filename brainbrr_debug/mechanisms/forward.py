"""Mechanisms of operations that give something non-finite when they run: one rule per family of operations."""

from __future__ import annotations

from collections.abc import Callable

import torch

from brainbrr_debug.mechanisms.numbers import Explanation, dtype_of, extremes, how_many, largest, real
from brainbrr_debug.tracing.events import Event
from brainbrr_debug.tracing.evidence import Evidence
from brainbrr_debug.tracing.finiteness import INF, NAN, kinds

Rule = Callable[[Event, Evidence], Explanation | None]

_NORMS = ("vector_norm", "norm", "cdist")
_SPREADS = ("std", "var", "var_mean", "std_mean")


def _division(event: Event, evidence: Evidence) -> Explanation | None:
    above, below = evidence.tensor(0), evidence.tensor(1)
    if above is None or below is None or not bool((real(below) == 0).any()):
        return _infinities(event, evidence)
    a, b = torch.broadcast_tensors(real(above), real(below))  # type: ignore[no-untyped-call]
    zero = b == 0
    seen = f"{int(zero.sum())} of {zero.numel()} quotients divide by exactly 0"
    empty = int((zero & (a == 0)).sum())
    seen += f" ({empty} of them 0/0)" if empty else ""
    made = evidence.producer(1)
    counts = bool((b == b.round()).all()) and bool((a[zero] == 0).all())
    return Explanation(mechanism=_kind_of_divisor(made, evidence.producer(0), counts), seen=f"{seen}{_made_by(made)}")


def _kind_of_divisor(made: str, above: str, counts: bool) -> str:
    norms = sum(made.count(name) for name in _NORMS)
    if made.startswith("mul(") and norms >= 2:
        return "cosine-at-zero"
    if norms or made.startswith(("sqrt(sum", "sqrt(mean", "sqrt(add(sum")):
        return "norm-at-zero"
    if any(name in made for name in _SPREADS):
        return "variance-of-constant"
    sums = made.startswith(("sum", "_to_copy(sum"))
    if sums and above.startswith(("sum", "nansum", "bmm", "mm")) and counts:
        return "mean-of-nothing"
    return "division-by-zero"


def _made_by(made: str) -> str:
    return f"; the divisor comes from {made}" if made else ""


def _reciprocal(event: Event, evidence: Evidence) -> Explanation | None:
    x = real(evidence.tensors[0])
    negative = int((x < 0).sum()) if evidence.short == "rsqrt" else 0
    if negative:
        return Explanation(mechanism="sqrt-of-negative", seen=f"{negative} inputs are negative, down to {x.min():.4g}")
    return Explanation(mechanism="division-by-zero", seen=f"{int((x == 0).sum())} of {x.numel()} inputs are exactly 0")


def _logarithm(event: Event, evidence: Evidence) -> Explanation | None:
    x = real(evidence.tensors[-1]) + (1 if evidence.short == "log1p" else 0)
    zero, negative = int((x == 0).sum()), int((x < 0).sum())
    if negative:
        return Explanation(mechanism="log-of-negative", seen=f"{negative} of {x.numel()} arguments are below 0")
    return Explanation(mechanism="log-of-zero", seen=f"{zero} of {x.numel()} arguments are exactly 0") if zero else None


def _exponential(event: Event, evidence: Evidence) -> Explanation | None:
    x = evidence.tensors[0]
    return Explanation(
        mechanism="exp-overflow",
        seen=f"the argument goes up to {largest(x):.4g}, and the result has to fit {dtype_of(x)}",
    )


def _root(event: Event, evidence: Evidence) -> Explanation | None:
    x = torch.cat([real(tensor).flatten() for tensor in evidence.tensors[:1]])
    return Explanation(
        mechanism="sqrt-of-negative",
        seen=f"{int((x < 0).sum())} of {x.numel()} radicands are negative, down to {x.min():.4g}",
    )


def _power(event: Event, evidence: Evidence) -> Explanation | None:
    base, exponent = evidence.tensor(0), evidence.tensor(1)
    if base is None or exponent is None:
        return None
    b, e = torch.broadcast_tensors(real(base), real(exponent))  # type: ignore[no-untyped-call]
    if int(((b < 0) & (e != e.round())).sum()):
        return Explanation(mechanism="pow-domain", seen=f"a negative base ({b.min():.4g}) with a fractional exponent")
    if int(((b == 0) & (e < 0)).sum()):
        return Explanation(mechanism="pow-domain", seen=f"base 0 with the negative exponent {e.min():.4g}")
    return _overflow(event, evidence)


def _inverse_cosine(event: Event, evidence: Evidence) -> Explanation | None:
    x = real(evidence.tensors[0])
    return Explanation(
        mechanism="acos-domain", seen=f"arguments {extremes(x)}, the domain ends at ±1 (acosh: begins at 1)"
    )


def _inverse(event: Event, evidence: Evidence) -> Explanation | None:
    return Explanation(
        mechanism="inverse-domain", seen=f"arguments {extremes(evidence.tensors[0])} reach the border of the domain"
    )


def _softmax(event: Event, evidence: Evidence) -> Explanation | None:
    x = evidence.tensors[0]
    dim = evidence.args[1] if len(evidence.args) > 1 and isinstance(evidence.args[1], int) else -1
    masked = (real(x) == float("-inf")).all(dim)
    if bool(masked.any()):
        return Explanation(
            mechanism="fully-masked-softmax",
            seen=f"{int(masked.sum())} of {masked.numel()} rows are −inf throughout: nothing is left to choose from",
        )
    return Explanation(mechanism="infinity-minus-infinity", seen="a logit is +inf") if kinds(x) & INF else None


def _attention(event: Event, evidence: Evidence) -> Explanation | None:
    for mask in evidence.tensors[3:]:
        if mask.is_floating_point() and bool((mask == float("-inf")).all(-1).any()):
            return Explanation(mechanism="fully-masked-softmax", seen="the mask leaves some query no key")
    return _overflow(event, evidence)


def _mean(event: Event, evidence: Evidence) -> Explanation | None:
    x = evidence.tensors[0]
    if x.numel() == 0 or any(result.numel() and not x.numel() for result in evidence.results):
        return Explanation(
            mechanism="mean-of-nothing", seen=f"a tensor of shape {tuple(x.shape)} has nothing to average"
        )
    return _overflow(event, evidence)


def _spread(event: Event, evidence: Evidence) -> Explanation | None:
    x = evidence.tensors[0]
    result = evidence.results[0]
    samples = x.numel() // max(result.numel(), 1)
    if samples <= 1:
        return Explanation(mechanism="variance-of-one", seen=f"{samples} value(s) per variance, shape {tuple(x.shape)}")
    return _overflow(event, evidence)


def _normalisation(event: Event, evidence: Evidence) -> Explanation | None:
    running = evidence.args[4] if "batch_norm" in evidence.short and len(evidence.args) > 4 else None
    if isinstance(running, torch.Tensor) and bool((running < 0).any()):
        return Explanation(mechanism="sqrt-of-negative", seen=f"a running variance is negative ({running.min():.4g})")
    x = evidence.tensors[0]
    if largest(x) > torch.finfo(x.dtype).max ** 0.5 / 64:
        return _overflow(event, evidence)
    return Explanation(mechanism="variance-of-constant", seen="a group has no spread and ε is 0")


def _cast(event: Event, evidence: Evidence) -> Explanation | None:
    x, result = evidence.tensors[0], evidence.results[0]
    return Explanation(mechanism="cast-overflow", seen=f"numbers up to {largest(x):.4g} are cast to {dtype_of(result)}")


def _solver(event: Event, evidence: Evidence) -> Explanation | None:
    matrix = evidence.tensors[0]
    smallest = torch.linalg.svdvals(torch.nan_to_num(matrix.detach().to(torch.float64)))[..., -1]
    worst = int(smallest.flatten().argmin())
    return Explanation(
        mechanism="singular-matrix",
        seen=f"matrix {worst} of {smallest.numel()} has the smallest singular value {float(smallest.min()):.4g}",
    )


def _negative_log_likelihood(event: Event, evidence: Evidence) -> Explanation | None:
    target = evidence.tensors[1]
    ignored = evidence.args[4] if len(evidence.args) > 4 else -100
    used = int((target != ignored).sum())
    if used == 0:
        return Explanation(
            mechanism="target-index-out-of-use",
            seen=f"all {target.numel()} labels are the ignored index {ignored}: the mean is over nothing",
        )
    return Explanation(mechanism="target-index-out-of-use", seen=f"{used} labels are used, their classes weigh 0")


def _alignment(event: Event, evidence: Evidence) -> Explanation | None:
    return Explanation(
        mechanism="impossible-alignment",
        seen=f"frames {tuple(evidence.tensors[0].shape)} do not fit targets {tuple(evidence.tensors[1].shape)}",
    )


def _product(event: Event, evidence: Evidence) -> Explanation | None:
    found = [real(tensor) for tensor in evidence.tensors]
    scalars = [value for value in evidence.args if isinstance(value, (int, float)) and not isinstance(value, bool)]
    infinite = any(bool(torch.isinf(x).any()) for x in found) or any(abs(s) == float("inf") for s in scalars)
    if infinite and any(bool((x == 0).any()) for x in found):
        return Explanation(mechanism="zero-times-infinity", seen="a 0 meets an infinity")
    return _overflow(event, evidence)


def _infinities(event: Event, evidence: Evidence) -> Explanation | None:
    if event.found & NAN and any(kinds(tensor) & INF for tensor in evidence.tensors):
        return Explanation(mechanism="infinity-minus-infinity", seen="infinities among the arguments cancel")
    return _overflow(event, evidence)


def _overflow(event: Event, evidence: Evidence) -> Explanation | None:
    floats = [tensor for tensor in evidence.tensors if tensor.is_floating_point() or tensor.is_complex()]
    if not floats or (
        not event.found & INF
        and not any(kinds(tensor) & INF for tensor in evidence.results)
        and not _near_the_end(floats)
    ):
        return None
    out = next((tensor for tensor in evidence.results if tensor.is_floating_point()), floats[0])
    return Explanation(
        mechanism="overflow",
        seen=f"numbers up to {largest(*floats):.4g} go in, the result does not fit {dtype_of(out)}",
    )


def _near_the_end(tensors: list[torch.Tensor]) -> bool:
    return any(largest(tensor) > torch.finfo(tensor.dtype).max ** 0.5 / 64 for tensor in tensors)


def _zero_norm(event: Event, evidence: Evidence) -> Explanation | None:
    norms = real(evidence.results[-1]).flatten()
    if not bool((norms == 0).any()):
        return _overflow(event, evidence)
    return Explanation(
        mechanism="norm-at-zero", seen=f"{int((norms == 0).sum())} of {norms.numel()} norms are exactly 0"
    )


def _poles(event: Event, evidence: Evidence) -> Explanation | None:
    return Explanation(mechanism="inverse-domain", seen=f"arguments {extremes(evidence.tensors[0])} hit a pole")


_RULES: dict[str, Rule] = {
    "div": _division, "true_divide": _division, "remainder": _division, "fmod": _division,
    "reciprocal": _reciprocal, "rsqrt": _reciprocal,
    "log": _logarithm, "log2": _logarithm, "log10": _logarithm, "log1p": _logarithm, "xlogy": _logarithm,
    "exp": _exponential, "exp2": _exponential, "expm1": _exponential, "sinh": _exponential, "cosh": _exponential,
    "softplus": _exponential, "matrix_exp": _exponential, "sqrt": _root, "pow": _power,
    "acos": _inverse_cosine, "asin": _inverse_cosine, "acosh": _inverse_cosine,
    "atanh": _inverse, "erfinv": _inverse, "logit": _inverse, "ndtri": _inverse, "tan": _inverse,
    "lgamma": _poles, "digamma": _poles, "polygamma": _poles, "mvlgamma": _poles, "zeta": _poles,
    "softmax": _softmax, "log_softmax": _softmax, "safe_softmax": _softmax,
    "mean": _mean, "nanmean": _mean, "std": _spread, "var": _spread, "var_mean": _spread, "std_mean": _spread,
    "native_layer_norm": _normalisation, "native_group_norm": _normalisation, "native_batch_norm": _normalisation,
    "native_batch_norm_legit": _normalisation, "batch_norm_with_update": _normalisation,
    "fused_rms_norm": _normalisation,
    "to_copy": _cast, "copy": _cast, "inv_ex": _solver, "solve_ex": _solver, "cholesky_ex": _solver,
    "solve_triangular": _solver, "lu_solve": _solver, "lu_factor_ex": _solver, "pinv": _solver, "lstsq": _solver,
    "slogdet": _solver, "det": _solver, "eig": _solver,
    "nll_loss_forward": _negative_log_likelihood, "nll_loss2d_forward": _negative_log_likelihood,
    "ctc_loss": _alignment, "mul": _product, "add": _infinities, "sub": _infinities, "sum": _infinities,
    "addcdiv": _division, "weight_norm_interface": _zero_norm,
}  # fmt: skip


def explain_forward(event: Event, evidence: Evidence) -> Explanation:
    """The mechanism of an operation whose result is bad."""
    if "scaled_dot_product" in evidence.short:
        found = _attention(event, evidence)
    else:
        found = _RULES.get(evidence.short, _product)(event, evidence)
    if found is None and any(kinds(tensor) & INF for tensor in evidence.tensors):
        found = Explanation(
            mechanism="infinity-minus-infinity", seen="infinities among the arguments do not cancel out"
        )
    return found or Explanation(
        mechanism="undefined-result", seen=f"{how_many(event)} of its result are undefined for these arguments"
    )
