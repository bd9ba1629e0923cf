"""Where the 19 electrodes lie on the head, on a unit sphere: x to the right ear, y to the nose, z to the crown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brainbrr.config import ELECTRODES

# Idealised 10-20 system: (inclination from the crown, azimuth from the right ear towards the nose), degrees.
_ANGLES = {
    "Fp1": (90, 108), "Fp2": (90, 72), "F7": (90, 144), "F8": (90, 36), "T3": (90, 180), "T4": (90, 0),
    "T5": (90, 216), "T6": (90, 324), "O1": (90, 252), "O2": (90, 288), "Fz": (45, 90), "Cz": (0, 0), "Pz": (45, 270),
    "C3": (45, 180), "C4": (45, 0), "F3": (60, 129), "F4": (60, 51), "P3": (60, 231), "P4": (60, 309),
}  # fmt: skip


def _positions() -> NDArray[np.float64]:
    inclination, azimuth = np.radians(np.array([_ANGLES[name] for name in ELECTRODES], dtype=np.float64)).T
    ring = np.sin(inclination)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), np.cos(inclination)], axis=1)


POSITIONS = _positions()
"""(19, 3) unit vectors in the order of `config.ELECTRODES`."""

SIDES = np.sign(np.round(POSITIONS[:, 0], 6))
"""(19,) -1 left, 0 midline, +1 right."""


def angles_to(point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle distance of every electrode to unit vector(s) `point` (3,) or (P, 3): (19,) or (19, P), radians."""
    return np.arccos(np.clip(POSITIONS @ point.T, -1.0, 1.0))


def pattern(point: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """How strongly every electrode sees a source below `point`: a Gaussian of the distance, `width` in radians."""
    return np.exp(-0.5 * (angles_to(point) / width) ** 2)


def at(*names: str) -> list[int]:
    """Rows of the named electrodes."""
    return [ELECTRODES.index(name) for name in names]


def neighbours(electrode: int, count: int) -> list[int]:
    """The `count` electrodes nearest to row `electrode`, nearest first, itself left out."""
    return [int(row) for row in np.argsort(angles_to(POSITIONS[electrode]), kind="stable")[1 : count + 1]]
