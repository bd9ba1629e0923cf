from __future__ import annotations

import subprocess
import sys

import pytest

from brainbrr.config import Config, ConfigError
from brainbrr.environment import OVERRIDES, apply_overrides


@pytest.mark.parametrize("name", sorted(OVERRIDES))
def test_every_override_changes_the_configuration_and_is_recorded(name: str) -> None:
    value = "2" if name == "BGB_LIMIT_FILES" else "1"
    config, applied = apply_overrides(Config(), {name: value})
    assert config != Config()
    assert applied[name]["value"] == value
    assert applied[name]["changes"]


@pytest.mark.parametrize("name", sorted(set(OVERRIDES) - {"BGB_LIMIT_FILES"}))
def test_an_override_that_is_off_changes_nothing(name: str) -> None:
    assert apply_overrides(Config(), {name: "0"})[0] == Config()


def test_clamp_bounds_are_read_with_the_clamp() -> None:
    config, _ = apply_overrides(
        Config(), {"BGB_SAFE_CLAMP": "1", "BGB_SAFE_CLAMP_MIN": "-3", "BGB_SAFE_CLAMP_MAX": "4"}
    )
    assert config.model.clamp == (-3.0, 4.0)


@pytest.mark.parametrize(
    ("name", "value"), [("BGB_SMOKE_TEST", "maybe"), ("BGB_LIMIT_FILES", "0"), ("BGB_LIMIT_FILES", "many")]
)
def test_a_value_that_cannot_be_read_is_an_error_naming_it(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}='{value}'"):
        apply_overrides(Config(), {name: value})


def test_overrides_are_read_when_used_not_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGB_LIMIT_FILES", "5")
    assert apply_overrides(Config())[0].data.limit_files == 5
    code = "import os, brainbrr.environment as e, brainbrr.config as c; os.environ['BGB_LIMIT_FILES'] = '9';"
    code += "print(e.apply_overrides(c.Config())[0].data.limit_files)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "9\n"
