"""What the static checks are worth on public repositories, from findings that were read and labelled by hand.

`precision.csv`: repository, commit, check, file, line, verdict, reason; none of their code. Of `config.unread`,
`docs.cli` and `source.tempfiles` every finding on the repositories that were read is in it, of the others a sample.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import pytest

from brainbrr_debug.checks.registry import load

ROWS = list(csv.DictReader((Path(__file__).parent / "precision.csv").read_text(encoding="utf-8").splitlines()))
README = Path(__file__).parents[2] / "README.md"
STATIC = sorted(check.id for check in load().values() if ("source",) in [look.needs for look in check.looks])
DYNAMIC_OR_OWN = {"triage.ignore"}
"""Looks at the ignores of this tool itself, which no other repository has."""


def labelled() -> dict[str, tuple[int, int]]:
    """(true, all) for each check."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for row in ROWS:
        counts[row["check"]].append(row["verdict"] == "true")
    return {check: (sum(verdicts), len(verdicts)) for check, verdicts in counts.items()}


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
    true, total = labelled().get(check, (0, 0))
    right = total > 0 and true / total >= 0.95
    assert look.advises or check in DYNAMIC_OR_OWN or right, f"{check}: {true} of {total}; mend it, or let it advise"


def test_the_readme_gives_the_figures_of_the_table() -> None:
    section = README.read_text(encoding="utf-8").partition("**Static checks of triage**")[2].partition("\n\n")[0]
    given = re.findall(r"`([\w.]+)`\s+(\d+)\s+of\s+(\d+)", section.partition("At first sight")[0])
    assert len(given) == 6
    assert {name: (int(true), int(total)) for name, true, total in given}.items() <= labelled().items()
    assert f"on {len({row['repository'] for row in ROWS})} public repositories" in section
