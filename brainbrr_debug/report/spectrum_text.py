"""The matrices of a step in lines, the worst first. Imports no torch."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainbrr_debug.report.text import columns, row
from brainbrr_debug.sentence import nearby, sample_name

if TYPE_CHECKING:
    from brainbrr_debug.matrices import Call, Matrix
    from brainbrr_debug.spectrum import Spectrum

ROWS = 40
"""So many rows are printed; what is beyond it is counted."""
APART = 16
"""Up to so many matrices that belong to no sample get a row each."""
DECADES = 16
HEADS = (
    "operation",
    "site",
    "sample",
    "matrices",
    "gap",
    "equal",
    "amplified",
    "condition",
    "residual",
    "orthogonality",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The matrices of one sample in one call, or those of a call that cannot be divided among samples."""

    call: Call
    matrices: tuple[Matrix, ...]

    @property
    def worst(self) -> Matrix:
        """The one that the row shows."""
        return max(self.matrices, key=lambda matrix: matrix.badness)

    @property
    def beyond(self) -> int:
        """How many of them are degenerate."""
        return sum(bool(matrix.degenerate) for matrix in self.matrices)


def rows_of(spectrum: Spectrum) -> list[Row]:
    """All rows, the worst first."""
    found = [Row(call=call, matrices=group) for call in spectrum.calls for group in _groups(call)]
    return sorted(found, key=lambda each: each.worst.badness, reverse=True)


def spectrum_text(spectrum: Spectrum) -> str:
    """A table of all calls and samples, then what is degenerate, then the summary."""
    rows = rows_of(spectrum)
    table = [[*HEADS, f"1e-{DECADES}{'┊'.center(DECADES - 5)}1", "gradient", "verdict"], *map(cells, rows[:ROWS])]
    lines = columns(table) if rows else []
    if len(rows) > ROWS:
        lines.append(f"… and {len(rows) - ROWS} rows that are no worse; all are in --format json")
    if rows:
        lines += ["", *_limits(spectrum), *_named(spectrum)]
    if spectrum.error is not None:
        lines.append(row("error", spectrum.error))
    for reason, count in spectrum.unseen.items():
        lines.append(row("unseen", f"{counted(count, 'call')} on a tensor that holds no plain numbers: {reason}"))
    if spectrum.inner:
        lines.append(row("inside", f"{counted(spectrum.inner, 'call')} in the backward formulas of others, not listed"))
    return "\n".join([*lines, row("summary", summary(spectrum))])


def summary(spectrum: Spectrum) -> str:
    """The whole in one sentence."""
    if not spectrum.calls:
        return f"step {spectrum.step} computes no decomposition, inverse or solution of a system"
    matrices = [matrix for call in spectrum.calls for matrix in call.matrices]
    bad, idle = sum(bool(m.degenerate) for m in matrices), sum(bool(m.harmless) for m in matrices)
    told = f"step {spectrum.step}: {counted(len(matrices), 'matrix', 'matrices')} in "
    told += counted(len(spectrum.calls), "call")
    told += f", {bad} degenerate" if bad else ", none degenerate"
    return told + (f"; {idle} beyond a limit that nothing depends on" if idle else "")


def verdict(matrix: Matrix) -> str:
    """What is wrong with a matrix, in words."""
    if matrix.degenerate:
        return f"DEGENERATE: {', '.join(matrix.degenerate)}"
    return f"harmless: {', '.join(matrix.harmless)}" if matrix.harmless else "ok"


def gradient(call: Call) -> str:
    """Through which results a gradient came back."""
    through = ", ".join(call.gradient) or "none"
    return f"{through} (inside of {call.function})" if call.function else through


def shown(value: float | None) -> str:
    """A number in three digits; a dash for what has no meaning."""
    return "–" if value is None else f"{value:.3g}"


def closeness(matrix: Matrix) -> float:
    """Relative gap, or where there is none the inverse of the condition number: small is bad."""
    if matrix.gap is not None:
        return matrix.gap
    return 1 / (matrix.scaled or matrix.condition or math.nan)


def counted(number: int, one: str, many: str = "") -> str:
    """ "1 call", "2 calls"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def place(call: Call) -> str:
    """Site and line of a call."""
    return f"{call.site or 'the root module'}{f' ({nearby(call.location)})' if call.location else ''}"


def _groups(call: Call) -> list[tuple[Matrix, ...]]:
    if all(matrix.sample is not None for matrix in call.matrices):
        ordered = sorted(call.matrices, key=lambda matrix: matrix.sample or 0)
        return [tuple(group) for _, group in itertools.groupby(ordered, key=lambda matrix: matrix.sample)]
    return [(matrix,) for matrix in call.matrices] if len(call.matrices) <= APART else [call.matrices]


def label(each: Row) -> str:
    """The sample, "micro-batch:sample" after the first micro-batch; "#matrix" where samples cannot be told."""
    if each.worst.sample is None:
        return f"#{each.worst.index}"
    return f"{each.call.micro_batch}:{each.worst.sample}" if each.call.micro_batch else str(each.worst.sample)


def cells(each: Row) -> Sequence[str]:
    """A row of the table: HEADS, a bar, gradient, verdict."""
    call, worst = each.call, each.worst
    largest = max(worst.multiplicities, default=None)
    many = len(each.matrices) > 1
    return [
        call.name + (" again" if call.recomputed else ""),
        call.site or "the root module",
        label(each),
        f"{each.beyond} of {len(each.matrices)}" if many else "1",
        shown(worst.gap),
        "–" if largest is None else str(largest),
        shown(worst.amplification),
        shown(worst.condition),
        shown(worst.residual),
        shown(worst.orthogonality),
        _bar(closeness(worst)),
        gradient(call),
        verdict(worst),
    ]


def _bar(value: float) -> str:
    """A closeness on a logarithmic scale from 1e-16 to 1, with a mark at 1e-6."""
    filled = 0 if not value > 0 else min(DECADES, max(0, round(DECADES + math.log10(value))))
    bar = "█" * filled + "·" * (DECADES - filled)
    return bar if filled > DECADES - 6 else f"{bar[: DECADES - 6]}┊{bar[DECADES - 5 :]}"


def _limits(spectrum: Spectrum) -> list[str]:
    gap = spectrum.calls[0].limits.gap
    return [
        row(
            "limits",
            f"gap {gap:g} (relative), condition 1/(n·eps), residual and orthogonality 100·n·eps; "
            "the matrix shown is the worst of its sample",
        )
    ]


def _named(spectrum: Spectrum) -> list[str]:
    """The degenerate ones with place and origin of the sample, one line for a call and sample."""
    lines: list[str] = []
    for each in rows_of(spectrum):
        if not each.beyond:
            continue
        if len(lines) == ROWS:
            return [*lines, "… and more; all are in --format json"]
        matrix = each.worst
        where = f"{each.call.name} in {place(each.call)}"
        sample = (
            ""
            if matrix.sample is None
            else sample_name({"index": matrix.sample, **spectrum.identity(each.call, matrix)})
        )
        lines.append(row("degenerate", where, sample, reason(each.call, matrix)))
    return lines


def reason(call: Call, matrix: Matrix) -> str:
    """The first quantity beyond its limit, with that limit."""
    limits = call.limits
    match matrix.degenerate[0]:
        case "input":
            return "the matrix is not finite"
        case "failed":
            return "there is no such decomposition of this matrix"
        case "gap":
            return f"relative gap {shown(matrix.gap)} ≤ {limits.gap:g}, and a gradient came back through the vectors"
        case "condition":
            after = "" if matrix.scaled is None else f", {shown(matrix.scaled)} after scaling,"
            return (
                f"condition number {shown(matrix.condition)}{after} ≥ {limits.condition:.2g}: singular in {call.dtype}"
            )
        case name:
            return f"{name} {shown(getattr(matrix, name))} > {limits.error:.2g}: the result is not what it should be"
