"""Numbers of a batch that are not in tensors: NumPy arrays and Python's own, which no operation can be seen to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils._pytree import tree_leaves, tree_map

from brainbrr_debug.records import Origin
from brainbrr_debug.subject import Batch
from brainbrr_debug.tracing.finiteness import is_finite_number

_STAND_IN = 0.5


def made_finite(part: Any) -> Any:
    """A copy of the nest with the bad foreign numbers replaced; tensors are the same objects."""
    return tree_map(lambda leaf: _clean(leaf) if _bad(leaf) else leaf, part)


def bad_parts(batch: Batch) -> Sequence[str]:
    """Which of "<input>" and "<target>" hold foreign numbers that are not finite."""
    return [name for part, name in zip(batch, ("<input>", "<target>"), strict=True) if _bad_leaves(part)]


def arrival(batch: Batch, module: str, step: int) -> Origin:
    """The verdict on such a number in the part `module` of the batch, after a replay without it was healthy."""
    part, what = (batch[0], "input") if module == "<input>" else (batch[1], "target")
    place, leaf = _bad_leaves(part)[0]
    values = np.asarray(leaf)
    bad = ~np.isfinite(values)
    index = tuple(int(i) for i in np.argwhere(bad)[0]) if values.ndim else ()
    where = f" of shape {values.shape}, the first at {index}" if index else ""
    return Origin(
        healthy=False,
        step=step,
        phase="data",
        module=module,
        op="data",
        kind="nan" if bool(np.isnan(values).any()) else "inf",
        mechanism=f"bad-{what}",
        explanation=f"The {what} was not finite on arrival: {what} {place}: {int(bad.sum())} of {values.size} numbers"
        f"{where}, in a {type(leaf).__name__}.",
        proof="healed",
        replays=1,
    )


def _bad_leaves(part: Any) -> list[tuple[int, Any]]:
    return [(place, leaf) for place, leaf in enumerate(tree_leaves(part)) if _bad(leaf)]


def _bad(leaf: Any) -> bool:
    if isinstance(leaf, (float, complex)):
        return not is_finite_number(leaf)
    is_float = isinstance(leaf, (np.ndarray, np.generic)) and np.issubdtype(leaf.dtype, np.inexact)
    return is_float and not bool(np.isfinite(leaf).all())


def _clean(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return np.where(np.isfinite(leaf), leaf, _STAND_IN).astype(leaf.dtype)
    return type(leaf)(_STAND_IN)
