"""A verdict as HTML: the sentence, the proof, the trials, the repairs. Imports no torch.

Works on the verdict's JSON form; one of an older version lacks details, and what is not there is not shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from brainbrr_debug.report.elements import code, dim, flag, folded, outcome, section, table
from brainbrr_debug.report.text import repair_words
from brainbrr_debug.sentence import component_name, electrodes, nearby, sample_name

Document = Mapping[str, Any]


def answer(verdict: Document) -> list[str]:
    """What was found and how sure it is."""
    fine = verdict["origin"]["healthy"] and verdict["component"] is None
    parts = [f'<p class="verdict{" fine" if fine else ""}">{escape(verdict["sentence"])}</p>']
    return parts if fine else [*parts, _proof(verdict), table((), _facts(verdict))]


def experiments(verdict: Document) -> list[str]:
    """What was tried, and what came of it."""
    details = verdict.get("details", {})
    parts = []
    cells = details.get("cause", {}).get("cells", {})
    if cells:
        parts.append(section("Is it the data or the weights?", _matrix(cells)))
    runs = (details.get("sequence") or {}).get("runs", ())
    if runs:
        columns = ("from the seed", "outcome", "first step that fails", "why")
        parts.append(section("Does it always happen there?", table(columns, map(_run, runs))))
    switches = details.get("component", {}).get("switches", ())
    if switches:
        parts.append(
            section("Which component?", table(("switch", "outcome", "weights", "why"), map(_switch, switches)))
        )
    precision = details.get("precision") or {}
    if precision:
        tried = [(escape(row["name"]), outcome(row["outcome"]), escape(row["reason"])) for row in precision["rows"]]
        told = f"<p>{escape(precision['told'])}</p>"
        parts.append(section("Is it a matter of precision?", told, table(("in", "outcome", "why"), tried)))
    rows = details.get("rows", ())
    if rows:
        heads = ("#", "question", "changed", "outcome", "why")
        told = f"{len(rows)} answers from {verdict['trials']} trials in {verdict['seconds']:.1f} s"
        trials = table(heads, (_trial(number, row) for number, row in enumerate(rows)))
        parts.append(section("Trials", folded(told, trials)))
    return parts


def repairs(verdict: Document) -> list[str]:
    """What heals, what only hides, and what a training said to it."""
    if not verdict["repairs"]:
        return []
    rows = [_repair(repair) for repair in verdict["repairs"]]
    kept = [repair["certificate"] for repair in verdict["repairs"] if isinstance(repair.get("certificate"), Mapping)]
    return [
        section("Repairs", table(("change", "heals", "hides", "proved", "what it does"), rows), *map(certificate, kept))
    ]


def certificate(found: Document) -> str:
    """What a training was held to, criterion by criterion."""
    granted = bool(found.get("granted"))
    changes = _changes(found.get("changes", {})) or "as it is"
    rows = [
        (flag(each.get("passed")), escape(str(each.get("name", ""))), escape(str(each.get("measured", ""))),
         escape(str(each.get("required", ""))))
        for each in found.get("criteria", ())
    ]  # fmt: skip
    told = f"{'Certificate' if granted else 'Refused'} for {changes}: {found.get('reason', '')}"
    return folded(told, table(("", "criterion", "measured", "required"), rows), shown=granted)


def _proof(verdict: Document) -> str:
    """The four answers that say how far a verdict can be trusted."""
    stable, replay, details = verdict["stable"], verdict["replay"], verdict.get("details", {})
    manner = "bit for bit" if details.get("replay", {}).get("bit_exact") else "within a tolerance"
    cells = [
        ("necessary", flag(verdict["necessary"]), "without it the step is healthy"),
        ("sufficient", flag(verdict["sufficient"]), "it alone makes a step fail"),
        ("stable", _share(stable["k"], stable["n"]), details.get("stable", {}).get("how", "repeats")),
        ("reproduced", _share(replay["reproduced"], replay["of"]), manner),
    ]
    boxes = (f"<div><dt>{name}</dt><dd>{value} {dim(how)}</dd></div>" for name, value, how in cells)
    return f'<dl class="proof">{"".join(boxes)}</dl>'


def _share(k: int, n: int) -> str:
    return outcome("skip" if not n else "good" if k == n else "bad", f"{k} of {n}" if n else "not asked")


def _facts(verdict: Document) -> Iterable[Sequence[str]]:
    origin, details = verdict["origin"], verdict.get("details", {})
    yield "component", code(component_name(verdict["component"]))
    if not origin["healthy"]:
        where = code(nearby(str(origin["location"]))) if origin["location"] else dim("no line of the program")
        yield "operation", f"{code(origin['op'])} in phase {escape(str(origin['phase']))}, {where}"
    began = details.get("beginning") or {}
    if began.get("abnormal") or began.get("told"):
        yield "began", f"{escape(str(began.get('abnormal') or ''))} {dim(str(began.get('told') or ''))}"
    yield "mechanism", escape(str(verdict["mechanism"] or "–"))
    yield "cause", f"{escape(str(verdict['cause'] or '–'))} {dim(details.get('cause', {}).get('evidence', ''))}"
    for sample in verdict["samples"]:
        yield "sample", escape("; ".join(part for part in (sample_name(sample), electrodes(sample)) if part))
    yield from _gradients(details.get("finding", {}).get("evidence", {}))
    for line in details.get("disagreements", ()):
        yield "disagreement", escape(line)
    for question, why in _unanswered(details.get("unanswered", ())):
        yield "not answered", f"{escape(question)} {dim(why)}"


def _unanswered(found: Any) -> Iterable[tuple[str, str]]:
    return found.items() if isinstance(found, Mapping) else ((question, "") for question in found)


def _gradients(evidence: Document) -> Iterable[tuple[str, str]]:
    """Which parts of the model had finite gradients before the clip: what lies behind the culprit has, it has not."""
    bad = Counter(name.partition(".")[0] for name in evidence.get("gradient_nonfinite", ()))
    good = Counter(name.partition(".")[0] for name in evidence.get("gradient_finite", ()))
    if bad:
        told = ", ".join(f"{name} {bad[name]} of {bad[name] + good[name]}" for name in bad)
        yield "gradients", escape(f"not finite, of the parameters of: {told}")
        fine = [name for name in good if name not in bad]
        if fine:
            yield "", dim(f"finite: {', '.join(fine)}")


def _matrix(cells: Document) -> str:
    """Weights down, batches across; what does not fit into the grid follows as rows."""
    names = [("before", "fresh", "after"), ("this", "healthy")]
    grid = [
        [escape(f"{weights} weights"), *(_cell(cells.get(f"{weights} weights, {batch} batch")) for batch in names[1])]
        for weights in names[0]
    ]
    placed = {f"{weights} weights, {batch} batch" for weights in names[0] for batch in names[1]}
    rest = [[escape(name), _cell(cell), ""] for name, cell in cells.items() if name not in placed]
    return table(("", "this batch", "healthy batch"), grid + rest)


def _cell(cell: Document | None) -> str:
    return "–" if cell is None else f"{outcome(cell['outcome'])} {escape(cell['reason'])}"


def _switch(switch: Document) -> Sequence[str]:
    why = "; ".join([switch["reason"], *switch["notes"]])
    name = f"{switch['name']}={switch['value']}"
    return code(name), outcome(switch["outcome"]), escape(switch["weights"] or "–"), escape(why)


def _run(run: Document) -> Sequence[str]:
    word = "skip" if run["skipped"] is not None else "good" if run["failed"] is None else "bad"
    step = "–" if run["failed"] is None else str(run["failed"])
    return escape(run["name"]), outcome(word), step, escape(run["skipped"] or run["reason"])


def _repair(repair: Document) -> Sequence[str]:
    said = [str(repair.get("description") or ""), _moved(repair.get("effect") or {})]
    told = escape(repair_words(repair)) + "".join("<br/>" + dim(part) for part in said if part)
    hides = outcome("bad", "yes") if repair["hides"] else "no"
    return code(_changes(repair["changes"])), flag(repair["heals"]), hides, flag(repair["proved"] or None), told


def _moved(effect: Document) -> str:
    """What a repair does to a healthy batch."""
    moved = [f"{part} by {float(effect[part]):.2g}" for part in ("output", "gradient") if effect.get(part) is not None]
    return f"moves a healthy {' and '.join(moved)} of its size" if moved else ""


def _trial(number: int, row: Document) -> Sequence[str]:
    changed = _changes(row["changes"]) or "as captured"
    return str(number), escape(row["question"]), code(changed), outcome(row["outcome"]), escape(row["reason"])


def _changes(changes: Document) -> str:
    """ "key=value, key=value"; of switches and the like only what is in them."""
    parts = [_changes(value) if isinstance(value, Mapping) else f"{key}={value}" for key, value in changes.items()]
    return ", ".join(parts)
