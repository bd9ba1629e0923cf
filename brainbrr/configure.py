"""From a YAML file and `--set` options to a validated configuration, and what to say when they do not fit."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from brainbrr.config import Config, ConfigError, Section

ALIASES = {"device": "experiment.device"}
"""Keys of `--set` that stand for another; the same names in a file are understood by the tree itself."""

NOT_YAML = (yaml.YAMLError, ValueError, TypeError, IndexError, AttributeError, RecursionError, OverflowError)
"""What PyYAML raises over a text: besides its own errors those of Python at the 99th of a month, at `!!int ""`, …"""


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """The configuration in the YAML file at `path` with `overrides` of the form "section.key=value" applied.

    Raises ConfigError for a missing or unreadable file, YAML that is no mapping, an unknown key (naming the nearest
    known one) and a value of the wrong type or out of bounds.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: {reason}; expected a YAML file such as configs/local/smoke.yaml") from error
    try:
        values = yaml.safe_load(text)
    except NOT_YAML as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; expected a mapping of sections")
    for override in overrides:
        set_value(values, *parse_override(override))
    return build_config(values, source=str(path))


def parse_override(override: str) -> tuple[str, Any]:
    """The dotted key (an alias resolved) and the YAML value of "section.key=value". Raises ConfigError."""
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override!r}: expected section.key=value")
    try:
        return ALIASES.get(key.strip(), key.strip()), yaml.safe_load(value)
    except NOT_YAML as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML") from error


def set_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Put `value` at the dotted `key` of the nested mapping `values`, making sections on the way.

    Raises ConfigError where something else stands in the place of a section.
    """
    *sections, last = key.split(".")
    for section in sections:
        inner = {} if values.get(section) is None else values[section]
        if not isinstance(inner, Mapping):
            raise ConfigError(f"--set {key}: {section} is {inner!r:.80}; expected a section that can hold a key")
        values[section] = dict(inner)
        values = values[section]
    values[last] = value


def build_config(values: Mapping[str, Any], *, source: str = "configuration") -> Config:
    """Validate plain values; raises ConfigError with one line per objection, each naming the key in full."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {line}" for line in objections(error))) from error


def with_values(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with dotted keys changed and everything validated again."""
    values = config.model_dump(mode="json")
    for key, value in changes.items():
        set_value(values, key, value)
    return build_config(values)


def differences(a: Config, b: Config) -> list[str]:
    """Every key whose value differs, as "key: value of a, now value of b"."""
    left, right = _flat(a.model_dump(mode="json")), _flat(b.model_dump(mode="json"))
    return [
        f"{key}: {left.get(key)}, now {right.get(key)}"
        for key in sorted(left | right)
        if left.get(key) != right.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """One thing that is wrong with plain values: the dotted key ("" for the whole) and what was found and expected."""

    key: str
    message: str
    unknown: bool

    def __str__(self) -> str:
        if self.unknown:
            return f"unknown key {self.key}{self.message}"
        return f"{self.key}: {self.message}" if self.key else self.message


def objections(error: ValidationError) -> list[Objection]:
    """Every objection of a validation; the message of an unknown key is the hint at the nearest known one."""
    found = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            found.append(Objection(key=key, message=_nearest(item["loc"]), unknown=True))
        else:
            met = f" (found {item['input']!r:.80})" if key else ""
            message = str(item["msg"]).removeprefix("Value error, ") + met
            found.append(Objection(key=key, message=message, unknown=False))
    return found


def _nearest(location: tuple[int | str, ...]) -> str:
    """The hint behind an unknown key: the nearest key of its section, else of the whole tree."""
    known = known_keys()
    section = ".".join(str(part) for part in location[:-1])
    wanted = str(location[-1])
    beside = [key for key in known if key.rpartition(".")[0] == section]
    names = {key.rpartition(".")[2]: key for key in [*known, *beside]}
    for pool in ({key.rpartition(".")[2]: key for key in beside}, names):
        match = difflib.get_close_matches(wanted, list(pool), n=1, cutoff=0.6)
        if match:
            return f"; did you mean {pool[match[0]]}?"
    return f"; {section or 'the file'} knows {', '.join(sorted(key.rpartition('.')[2] for key in beside))}"


def known_keys(section: type[Section] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the tree, sections included."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(f"{prefix}{name}")
        inner = _section_of(field.annotation)
        if inner is not None:
            keys.extend(known_keys(inner, f"{prefix}{name}."))
    return keys


def _section_of(annotation: Any) -> type[Section] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None
