"""Where the electrodes sit, for pictures: on a head seen from above, nose up, within the unit circle."""

from __future__ import annotations

import math

from brainbrr.config import ELECTRODES

RING = 0.8
"""Of the outer electrodes: the circle through Fpz, T3, Oz and T4, a tenth of the way around the head above its rim."""

_OUTER = {"Fp1": 108, "F7": 144, "T3": 180, "T5": 216, "O1": 252, "O2": 288, "T6": 324, "T4": 0, "F8": 36, "Fp2": 72}
_MIDDLE = {
    "Cz": (0.0, 0.0),
    "Fz": (0.0, RING / 2),
    "Pz": (0.0, -RING / 2),
    "C3": (-RING / 2, 0.0),
    "C4": (RING / 2, 0.0),
}
_BETWEEN = {"F3": ("F7", "Fz"), "F4": ("Fz", "F8"), "P3": ("T5", "Pz"), "P4": ("Pz", "T6")}


def _places() -> dict[str, tuple[float, float]]:
    """The 10-20 scheme: ten electrodes on the ring, 36 degrees apart, five on the two lines across, four between."""
    found = {name: (RING * math.cos(math.radians(a)), RING * math.sin(math.radians(a))) for name, a in _OUTER.items()}
    found |= _MIDDLE
    for name, (one, other) in _BETWEEN.items():
        found[name] = ((found[one][0] + found[other][0]) / 2, (found[one][1] + found[other][1]) / 2)
    return {name: (round(found[name][0], 3), round(found[name][1], 3)) for name in ELECTRODES}


PLACES = _places()
