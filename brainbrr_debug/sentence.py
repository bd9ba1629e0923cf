"""A verdict in words. Imports no torch.

Where answers disagree the sentence says so; it never smooths over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainbrr_debug.records import Origin, Verdict

CAUSES = {
    "batch": "the batch",
    "weights": "the weights",
    "optimizer": "the optimizer's state",
    "schedule": "the learning-rate schedule",
    "rng": "the random numbers",
    "accumulation": "a drift over many steps",
    "hardware": "something outside the program: repeats of the same step differ",
}


NAMED = 3
"""So many changes that only hide a failure are named in a sentence."""


def nearby(location: str) -> str:
    """ "path:line" relative to the working directory where it lies below it: shorter, and nobody's home is told."""
    path = Path(location)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else location


def tell(verdict: Verdict) -> str:
    """The verdict in a few sentences for a person."""
    details = verdict.details
    outcome, replay = details["outcome"], details.get("replay", {})
    if outcome == "healthy":
        return f"Step {verdict.step} is healthy: {verdict.replay['of']} of {verdict.replay['of']} repeats are finite."
    if outcome == "did-not-reproduce":
        changed = "; ".join(replay.get("differences", ())) or "the environment is the captured one"
        return (
            f"Step {verdict.step} did not reproduce: it failed when it was captured, and {verdict.replay['of']} of "
            f"{verdict.replay['of']} repeats are healthy here ({changed}). The code has changed, or the failure hangs "
            "on something that no capture holds."
        )
    parts = [
        _began(verdict),
        _where(verdict),
        _cause(verdict),
        _precision(verdict),
        _proof(verdict),
        _reproduced(verdict),
        _repair(verdict),
    ]
    parts += [f"{_capital(line)}." for line in details.get("disagreements", ())]
    for reason, questions in _by_reason(details.get("unanswered", {})).items():
        parts.append(f"Not answered: {listed(questions)} ({reason}).")
    return " ".join(part for part in parts if part)


def _by_reason(unanswered: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for question, reason in unanswered.items():
        found.setdefault(reason, []).append(question)
    return found


def disagreements(details: Mapping[str, Any]) -> list[str]:
    """Where the answers contradict each other, a phrase each."""
    lines: list[str] = []
    component, samples = details.get("component", {}), details.get("samples", {})
    if component.get("disagreement"):
        lines.append(component["disagreement"])
    if samples.get("inconsistent"):
        lines.append(f"the search over samples is inconsistent: {samples['inconsistent']}")
    if samples.get("necessary") is False:
        lines.append("the step fails without the named samples, too")
    if samples.get("sufficient") is False and not details.get("cause", {}).get("only_these_weights"):
        lines.append("the named samples alone, with fresh weights, do not fail")
    if component.get("necessary") is False:
        lines.append("no switch of the subject heals the step")
    alone = details.get("alone", {})
    if alone.get("fails") is False:
        lines.append(f"the component alone does not fail: {alone['reason']}")
    proofs, evidence = (details.get(name) or {} for name in ("sequence", "cause"))
    if len(proofs.get("proofs", ())) > 1 and proofs["evidence"] != evidence.get("evidence"):
        lines.append(f"of the cause, {proofs['evidence']}")
    modules, named = (details.get("precision") or {}).get("modules", ()), component.get("component")
    if modules and named is not None and not any(_related(module, named) for module in modules):
        lines.append(f"float64 in {listed(modules)} heals it, but the component is {component_name(named)}")
    replay = details.get("replay", {})
    if replay.get("mismatches") and replay.get("failed"):
        lines.append(f"the repeats fail otherwise than captured: {replay['mismatches'][0]}")
    return lines


def _related(one: str, other: str) -> bool:
    """Whether one of two module names lies within the other."""
    return not one or not other or f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def yes_no(value: bool | None) -> str:
    """yes, no, or a dash for not asked."""
    return "–" if value is None else ("yes" if value else "no")


def place(origin: Origin | Mapping[str, Any]) -> str:
    """The operation and where it stands: "aten::_linalg_eigh in graph.pe (models/laplacian.py:88)"."""
    found = origin.to_dict() if isinstance(origin, Origin) else origin
    module = found["module"] if found["module"] else "the root module"
    location = f" ({nearby(found['location'])})" if found["location"] else ""
    return f"{found['op']} in {module}{location}"


def component_name(component: str | None) -> str:
    """A component in words: "" is the root module."""
    return "–" if component is None else component or "the root module"


def sample_name(sample: Mapping[str, Any]) -> str:
    """A sample in words: "sample 2 (rec_t001, 120–180 s)"."""
    name = f"sample {sample['index']}"
    if "micro_batch" in sample:
        name += f" of micro-batch {sample['micro_batch']}"
    known = str(sample["recording"]) if "recording" in sample else ""
    if "start_s" in sample and "stop_s" in sample:
        known += f"{', ' if known else ''}{sample['start_s']:g}–{sample['stop_s']:g} s"
    span = sample.get("span", {})
    if "start_s" in span and span["stop"] - span["start"] < span["of"]:
        known += f"; {span['start_s']:g}–{span['stop_s']:g} s of it suffice"
    return f"{name} ({known})" if known else name


def electrodes(sample: Mapping[str, Any]) -> str:
    """The electrodes to blame and why: "constant in that stretch: Fz Cz"; "" when none is known."""
    names = sample.get("electrodes", ())
    if not names:
        return ""
    count = f"all {len(names)} electrodes" if len(names) == sample.get("electrodes_of") else " ".join(names)
    told = f"{sample['electrodes_are']}: {count}"
    if sample.get("electrodes_suffice"):
        told += f"; {' '.join(sample['electrodes_suffice'])} suffice"
    return told + (f" ({sample['electrodes_note']})" if sample.get("electrodes_note") else "")


def changes_of(repair: Mapping[str, Any]) -> str:
    """ "model.graph.pe_gradient=safe"; several with commas."""
    return ", ".join(f"{key}={value}" for key, value in repair["changes"].items())


def proof_words(repair: Mapping[str, Any]) -> str:
    """ "proved over 500 steps", for a repair that is."""
    certificate = repair.get("certificate") or {}
    return f"proved over {certificate['steps']} steps" if "steps" in certificate else "proved"


def electrodes_apart(sample: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The electrodes to blame where they are fewer than all `count` of them: what is worth a mark in a picture."""
    names = tuple(str(name) for name in sample.get("electrodes", ()))
    return names if len(names) < count else ()


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def _precision(verdict: Verdict) -> str:
    precision = verdict.details.get("precision") or {}
    return f"{_capital(precision['told'])}." if precision else ""


def _began(verdict: Verdict) -> str:
    beginning = verdict.details.get("beginning") or {}
    if not beginning.get("abnormal"):
        return ""
    return f"Before the captured step, {beginning['abnormal']}: {beginning['told']}."


def _where(verdict: Verdict) -> str:
    origin = verdict.origin
    step = verdict.step if origin.healthy else origin.step
    if origin.healthy:
        named = f" in {verdict.component}" if verdict.component else ""
        return f"Step {step} fails{named}; no operation could be made responsible."
    kind = {"nan": "NaN", "inf": "infinite"}.get(origin.kind or "", "not finite")
    if origin.explanation:
        cut = verdict.details.get("operation", {}).get("cut_down")
        note = " (traced on the culprit samples alone)" if cut else ""
        told = origin.explanation.rstrip(".")
        told = told.replace(origin.location, nearby(origin.location)) if origin.location else told
        return f"Step {step}, phase {origin.phase}: {told}{note}."
    if origin.phase == "data":
        return f"Step {step}: the data ({origin.module}) came in {kind}."
    what = {"backward": "the gradient of ", "optimizer": "the update by "}.get(origin.phase or "", "")
    return f"Step {step}: {what}{place(origin)} turns {kind}."


def _cause(verdict: Verdict) -> str:
    evidence = verdict.details.get("cause", {}).get("evidence", "")
    runs = verdict.details.get("sequence") or {}
    told = f" {_capital(runs['told'])}." if runs.get("told") else ""
    if verdict.cause is None:
        return f"The cause could not be told apart: {evidence}.{told}" if evidence else ""
    word = CAUSES[verdict.cause]
    if verdict.samples:
        word = listed([sample_name(sample) for sample in verdict.samples]) + " of the batch"
    return f"The cause is {word}{f' ({evidence})' if evidence else ''}.{told}"


def _capital(line: str) -> str:
    return line[:1].upper() + line[1:]


def _proof(verdict: Verdict) -> str:
    stable, how = verdict.stable, verdict.details.get("stable", {}).get("how", "")
    return (
        f"Necessary: {yes_no(verdict.necessary)}. Sufficient: {yes_no(verdict.sufficient)}. "
        + (f"Stable in {stable['k']} of {stable['n']} {how}." if stable["n"] else "")
    ).strip()


def _reproduced(verdict: Verdict) -> str:
    replay = verdict.details.get("replay", {})
    manner = "bit for bit" if replay.get("bit_exact") else "within a tolerance, because the environment differs"
    return f"Reproduced {verdict.replay['reproduced']} of {verdict.replay['of']} times, compared {manner}."


def _repair(verdict: Verdict) -> str:
    healing = [repair for repair in verdict.repairs if repair["heals"] and not repair["hides"]]
    hiding = [changes_of(repair) for repair in verdict.repairs if repair["hides"]]
    told = []
    if healing and healing[0]["proved"]:
        told.append(f"Repair: {changes_of(healing[0])}, {proof_words(healing[0])}.")
    elif healing:
        refused = healing[0].get("refused") or "not proved"
        told.append(f"Repair: {changes_of(healing[0])} heals the captured step; {refused.rstrip('.')}.")
    if hiding:
        named = hiding if len(hiding) <= NAMED else [*hiding[:NAMED], f"{len(hiding) - NAMED} more"]
        told.append(f"Refused, because it hides the failure at best: {listed(named)}.")
    return " ".join(told)
