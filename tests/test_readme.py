"""What the README promises a reader who types it in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brainbrr.cli import cli as detector
from brainbrr_debug.cli import cli as debugger

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_quick_start_is_two_lines() -> None:
    section = README.split("## Quick start")[1].split("## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    assert block.splitlines() == ["make demo", "make test"]


@pytest.mark.parametrize(("program", "group"), [("brainbrr", detector), ("brainbrr-debug", debugger)])
def test_the_table_lists_the_commands_that_there_are(program: str, group) -> None:
    listed = set(re.findall(rf"^\| `{program} ([a-z-]+)", README, flags=re.MULTILINE))
    assert listed == set(group.commands)


def test_every_configuration_and_variable_is_named() -> None:
    from brainbrr.environment import OVERRIDES

    for name in OVERRIDES:
        assert name in README
    for path in ROOT.glob("configs/local/*.yaml"):
        assert f"configs/local/{path.name}" in README


def test_pictures_and_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
