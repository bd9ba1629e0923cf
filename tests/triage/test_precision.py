"""What the static checks are worth on public repositories, from findings that were read and labelled by hand.

`precision.csv`: repository, commit, check, file, line, verdict, reason; none of their code. Every finding of a check
that can fail a CI is in it, of the others a sample.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import pytest

from brainbrr_debug.checks.registry import load

ROWS = list(csv.DictReader((Path(__file__).parent / "precision.csv").read_text(encoding="utf-8").splitlines()))
STATIC = sorted(check.id for check in load().values() if ("source",) in [look.needs for look in check.looks])
DYNAMIC_OR_OWN = {"triage.ignore"}
"""Looks at the ignores of this tool itself, which no other repository has."""


def labelled() -> dict[str, tuple[int, int]]:
    """(true, all) for each check."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for row in ROWS:
        counts[row["check"]].append(row["verdict"] == "true")
    return {check: (sum(verdicts), len(verdicts)) for check, verdicts in counts.items()}


def wilson(true: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    z, p = 1.96, true / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return middle - half, middle + half


def test_every_row_is_a_judged_finding_of_a_known_check() -> None:
    assert {row["verdict"] for row in ROWS} == {"true", "false"}
    assert {row["check"] for row in ROWS} <= set(STATIC)
    assert all(row["reason"] and int(row["line"]) > 0 and len(row["commit"]) == 12 for row in ROWS)
    keys = [tuple(row.values()) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_there_are_ten_repositories() -> None:
    assert len({row["repository"] for row in ROWS}) >= 10


@pytest.mark.parametrize("check", STATIC)
def test_a_check_that_can_fail_a_ci_is_right_nineteen_times_in_twenty(check: str) -> None:
    [look] = [look for look in load()[check].looks if look.needs == ("source",)]
    if look.advises or check in DYNAMIC_OR_OWN:
        return
    true, total = labelled()[check]
    assert true / total >= 0.95, f"{check}: {true} of {total} true; mend it, or let it only advise"


def test_the_interval_is_that_of_wilson() -> None:
    low, high = wilson(19, 20)
    assert (round(low, 3), round(high, 3)) == (0.764, 0.991)
