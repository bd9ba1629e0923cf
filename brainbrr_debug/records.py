"""What crosses file boundaries: readings, findings, origins, verdicts; to and from JSON. Imports no torch.

Indices of steps, batches and samples are 0-based. Numbers that JSON cannot hold (NaN, infinities) become the strings
"nan", "inf" and "-inf" on the way out and numbers again on the way in.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

SCHEMA = 1

Record = TypeVar("Record")
Phase = Literal["data", "forward", "backward", "optimizer"]
Cause = Literal["batch", "weights", "optimizer", "schedule", "rng", "accumulation", "hardware"]


class Severity(enum.IntEnum):
    """How bad a finding is; P0 stops a run."""

    P0 = 0
    P1 = 1
    P2 = 2
    P3 = 3


class Outcome(enum.StrEnum):
    """What came of a trial."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"
    DID_NOT_REPRODUCE = "did-not-reproduce"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One measured number: `quantity` at `site` in `phase` of `step`; `order` counts within the step."""

    step: int
    phase: str
    site: str
    quantity: str
    value: float
    order: int = 0
    sample: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check objected to: where, why (evidence), and what to do about it (remedy, commands).

    `where` names a thing (a module, an electrode, a key); `file` and `line`, 1-based, the text that a person edits.
    """

    check: str
    severity: Severity
    message: str
    where: str = ""
    file: str | None = None
    line: int | None = None
    step: int | None = None
    evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    why: str = ""
    remedy: str = ""
    commands: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The operation in which a failure was born, or `healthy=True` with every other field None.

    Fields as frozen in the interface: `phase`, `module` (qualified name, "<loss>", "<optimizer>", "<input>",
    "<target>", "" for the root), `op` (forward operation as dispatched), `node` (autograd node in phase "backward"),
    `kind` ("nan" or "inf"), `location` ("path:line"), `mechanism`, `explanation`, `proof` ("healed" or "first event")
    with the number of `replays` it took.
    """

    healthy: bool
    step: int | None = None
    phase: Phase | None = None
    module: str | None = None
    op: str | None = None
    node: str | None = None
    kind: Literal["nan", "inf"] | None = None
    location: str | None = None
    mechanism: str | None = None
    explanation: str | None = None
    proof: Literal["healed", "first event"] | None = None
    replays: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Every field, safe for JSON."""
        return {f.name: to_json(getattr(self, f.name)) for f in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer of a bisection, as frozen in the interface (`schema` is added on the way out)."""

    question: str
    step: int | None
    component: str | None
    origin: Origin
    samples: tuple[Mapping[str, Any], ...]
    cause: Cause | None
    necessary: bool | None
    sufficient: bool | None
    stable: Mapping[str, int]
    replay: Mapping[str, int]
    mechanism: str | None
    repairs: tuple[Mapping[str, Any], ...]
    trials: int
    seconds: float
    sentence: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The document of the interface, safe for JSON."""
        return {"schema": SCHEMA, **to_json(self)}


def to_json(value: Any) -> Any:
    """`value` as plain JSON types: records become objects, enums their names, non-finite numbers strings.

    Raises TypeError for anything else that JSON cannot hold.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Severity):
        return value.name
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    raise TypeError(f"{type(value).__name__} has no JSON form here: {value!r:.80}")


def from_json(kind: type[Record], document: Mapping[str, Any]) -> Record:
    """The record of class `kind` that `to_json` made `document` of; its fields must say their types."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _field(hints[name], value) for name, value in document.items()})


def _field(hint: Any, value: Any) -> Any:
    """A field of type `hint` from its JSON form; what JSON holds as it is stays so."""
    inner = typing.get_args(hint)
    if hint is float:
        return number(value)
    if typing.get_origin(hint) is tuple:
        return tuple(_field(inner[0], item) for item in value)
    if value is not None and isinstance(hint, types.UnionType):
        return _field(next(option for option in inner if option is not types.NoneType), value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and value is not None:
        return from_json(hint, value)
    return value


def number(value: Any) -> float:
    """A number that `to_json` may have written as a string."""
    return float(value)


def dumps(value: Any, *, indent: int | None = None) -> str:
    """`value` as one JSON document without NaN or Infinity literals."""
    return json.dumps(to_json(value), indent=indent, allow_nan=False, ensure_ascii=False)
