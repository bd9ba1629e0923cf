"""Electrode potentials estimated from a bipolar montage, for those who must answer whatever comes in.

A derivation `F7-T7` is the difference of two potentials. Differences along a chain give the potentials of all its
electrodes but for one constant, and nothing tells the constants of separate chains (the midline, mostly): here each
chain is referred to its own mean, the solution of least norm. A detector trained on recordings against one reference
sees an estimate, and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES
from brainbrr.data.electrodes import derivation_of


def potentials_from(labels: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """(19, len(labels)): each electrode's potential, in the order of `config.ELECTRODES`, as a sum of derivations.

    None where an electrode is in no derivation. Other labels than derivations count for nothing.
    """
    pairs = [derivation_of(label) for label in labels]
    sites = list(dict.fromkeys(site for pair in pairs if pair is not None for site in pair))
    if not set(ELECTRODES) <= set(sites):
        return None
    differences = np.zeros((len(labels), len(sites)))
    for row, pair in enumerate(pairs):
        if pair is not None:
            differences[row, sites.index(pair[0])] = 1.0
            differences[row, sites.index(pair[1])] = -1.0
    potentials = np.linalg.pinv(differences).astype(np.float64, copy=False)
    return potentials[[sites.index(name) for name in ELECTRODES]]


def chains(labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The sites that derivations join, each group against a reference of its own, in the order of the labels."""
    groups: list[list[str]] = []
    for first, second in filter(None, map(derivation_of, labels)):
        joined = [group for group in groups if first in group or second in group]
        sites = dict.fromkeys([*(site for group in joined for site in group), first, second])
        groups = [*(group for group in groups if group not in joined), list(sites)]
    return tuple(map(tuple, groups))
