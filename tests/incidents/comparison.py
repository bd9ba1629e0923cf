"""What a verdict has to say about an incident, and where it does not. Knows nothing of how an incident was planted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

Verdict = Mapping[str, Any]


def objections(expected: Mapping[str, Any], verdict: Verdict) -> list[str]:
    """Where `verdict` (the document of `bisect --format json`) is not as expected, one line each; empty when right.

    A field holds a value or a list of equally right ones; text may be a pattern such as `graph.*`. What an expectation
    does not name is not known and not asked. Raises KeyError for a field that no rule reads.
    """
    return [line for name, wanted in expected.items() for line in _RULES[name](name, wanted, verdict)]


def told(fields: Mapping[str, Any]) -> str:
    """An expectation or a `summary` in a few words."""
    if fields.get("outcome") != "verdict":
        return str(fields.get("outcome"))
    origin = fields.get("origin") or {}
    values = [fields.get(name) for name in ("cause", "component")]
    values += [fields.get("mechanism", origin.get("mechanism"))]
    values += [", ".join(_stem(sample["recording"]) for sample in fields.get("samples") or () if "recording" in sample)]
    return " · ".join("|".join(map(str, value)) if isinstance(value, list) else str(value) for value in values if value)


def summary(verdict: Verdict) -> dict[str, Any]:
    """The fields of a verdict that `told` tells."""
    return {**verdict, "outcome": verdict["details"]["outcome"]}


def _equal(name: str, wanted: Any, verdict: Verdict) -> Iterable[str]:
    if not _fits(wanted, verdict.get(name)):
        yield f"{name} is {verdict.get(name)!r}; expected {_listed(wanted)}"


def _outcome(name: str, wanted: Any, verdict: Verdict) -> Iterable[str]:
    yield from _equal(name, wanted, verdict["details"])


def _origin(name: str, wanted: Mapping[str, Any], verdict: Verdict) -> Iterable[str]:
    for field, value in wanted.items():
        if not _fits(value, verdict["origin"].get(field)):
            yield f"origin.{field} is {verdict['origin'].get(field)!r}; expected {_listed(value)}"


def _samples(name: str, wanted: list[Mapping[str, Any]], verdict: Verdict) -> Iterable[str]:
    """Every planted stretch is named by a sample, and every named sample holds a planted stretch."""
    found = verdict["samples"]
    for place in wanted:
        if not any(_holds(sample, place) for sample in found):
            yield f"no sample is named for {place['recording']} {place['start_s']:g} to {place['stop_s']:g} s"
    for sample in found:
        here = [place for place in wanted if _holds(sample, place)]
        if not here:
            place_of = sample.get("recording", "of nowhere")
            yield f"sample {sample['index']} is named ({place_of}) and holds nothing planted"
        yield from (line for place in here for line in _detail(sample, place))


def _detail(sample: Mapping[str, Any], place: Mapping[str, Any]) -> Iterable[str]:
    """The electrodes and the seconds within a sample, where they are known."""
    if "electrodes" in place and sorted(sample.get("electrodes", ())) != sorted(place["electrodes"]):
        yield f"sample {sample['index']}: electrodes are {sample.get('electrodes')}; expected {place['electrodes']}"
    span = sample.get("span", {})
    if "start_s" in span and not _overlap(span, place):
        yield (
            f"sample {sample['index']}: seconds {span['start_s']:g} to {span['stop_s']:g}; expected some of "
            f"{place['start_s']:g} to {place['stop_s']:g}"
        )


def _repairs(name: str, wanted: Mapping[str, Any], verdict: Verdict) -> Iterable[str]:
    """`accepted`: heals, does not hide, is not evidently wrong; of a list in it one is enough. `healing`: heals."""
    healing = [r["changes"] for r in verdict["repairs"] if r["heals"] and not r["hides"]]
    accepted = [r["changes"] for r in verdict["repairs"] if r["changes"] in healing and not r.get("evident")]
    for field, found in (("accepted", accepted), ("healing", healing)):
        for changes in wanted.get(field, ()):
            if not any(one in found for one in (changes if isinstance(changes, list) else [changes])):
                yield f"{_listed(changes)} is not among the {field} repairs"
    for changes in wanted.get("refused", ()):
        if changes in accepted:
            yield f"{changes} is accepted as a repair"


_RULES: dict[str, Callable[[str, Any, Verdict], Iterable[str]]] = {
    "outcome": _outcome,
    **dict.fromkeys(("step", "cause", "component", "mechanism", "necessary", "sufficient"), _equal),
    "origin": _origin,
    "samples": _samples,
    "repairs": _repairs,
}


def _fits(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, list):
        return any(_fits(one, found) for one in wanted)
    if isinstance(wanted, str) and isinstance(found, str):
        return fnmatchcase(found, wanted)
    return bool(wanted == found and type(wanted) is type(found))


def _holds(sample: Mapping[str, Any], place: Mapping[str, Any]) -> bool:
    same = _stem(str(sample.get("recording"))) == _stem(place["recording"])
    return same and "start_s" in sample and _overlap(sample, place)


def _overlap(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return bool(min(a["stop_s"], b["stop_s"]) > max(a["start_s"], b["start_s"]))


def _stem(recording: str) -> str:
    return recording.rpartition("/")[2].removesuffix(".edf")


def _listed(wanted: Any) -> str:
    return " or ".join(map(repr, wanted)) if isinstance(wanted, list) else repr(wanted)
