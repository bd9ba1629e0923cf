"""One self-contained HTML file about a run: no network, no script, the same bytes for the same run. Imports no torch.

Holds no signal: reports are mailed, and patients are people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from brainbrr_debug.quantities import EIGENGAP, GRADIENT_NORM, LOSS
from brainbrr_debug.report.chart import chart
from brainbrr_debug.report.material import Material
from brainbrr_debug.report.style import CSS
from brainbrr_debug.report.text import repair_words
from brainbrr_debug.sentence import component_name, electrodes, nearby, sample_name, yes_no

TITLES = {LOSS: "Loss", GRADIENT_NORM: "Gradient norm before clipping", EIGENGAP: "Smallest relative eigengap"}


def page(material: Material) -> str:
    """The whole report, latest verdict first."""
    body = [f"<h1>{escape(material.name)}</h1>", f'<p class="dim">{escape(_summary(material))}</p>']
    for number, verdict in reversed(list(enumerate(material.verdicts))):
        body += _verdict(verdict, number, len(material.verdicts))
    if not material.verdicts:
        body.append('<p class="verdict fine">No verdict yet. Bisect a capture of this run to get one.</p>')
    body += _curves(material) + _findings(material) + _environment(material) + _commands(material)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(material.name)}</title><style>{escape(CSS, quote=False)}</style></head>\n"
        "<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _summary(material: Material) -> str:
    parts = [f"{material.steps} steps observed", f"{len(material.findings)} findings"]
    parts.append(f"{len(material.verdicts)} verdict{'' if len(material.verdicts) == 1 else 's'}")
    if material.damaged:
        parts.append(f"{material.damaged} damaged lines skipped")
    first = material.first_abnormal
    if first is not None:
        parts.append(
            f"first abnormal reading: {first.quantity} at {first.site or 'the root module'}, step {first.step}"
        )
    return " · ".join(parts)


def _verdict(verdict: Mapping[str, Any], number: int, count: int) -> list[str]:
    fine = " fine" if verdict["origin"]["healthy"] and verdict["component"] is None else ""
    heading = "Verdict" if count == 1 else f"Verdict {number}"
    parts = [f"<section><h2>{heading}</h2>", f'<p class="verdict{fine}">{escape(verdict["sentence"])}</p>']
    if not verdict["origin"]["healthy"]:
        parts.append(_table((), _facts(verdict)))
    details = verdict.get("details", {})
    cells = details.get("cause", {}).get("cells", {})
    if cells:
        parts += ["<h2>Weights × batch</h2>", _matrix(cells)]
    switches = details.get("component", {}).get("switches", ())
    if switches:
        parts += ["<h2>Switches</h2>", _table(("switch", "outcome", "weights", "why"), map(_switch, switches))]
    if verdict["repairs"]:
        parts += ["<h2>Repairs</h2>", _table(("change", "what it does"), map(_repair, verdict["repairs"]))]
    rows = details.get("rows", ())
    if rows:
        table = _table(("#", "question", "changed", "outcome", "why"), (_trial(i, r) for i, r in enumerate(rows)))
        told = f"{len(rows)} answers from {verdict['trials']} trials in {verdict['seconds']:.1f} s"
        parts.append(f"<details><summary>{told}</summary>{table}</details>")
    return [*parts, "</section>"]


def _facts(verdict: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    origin, details = verdict["origin"], verdict.get("details", {})
    stable, replay = verdict["stable"], verdict["replay"]
    manner = "bit for bit" if details.get("replay", {}).get("bit_exact") else "within a tolerance"
    yield "component", _code(component_name(verdict["component"]))
    yield (
        "operation",
        f"{_code(origin['op'])} in phase {escape(str(origin['phase']))}, {_code(nearby(str(origin['location'])))}",
    )
    yield "mechanism", escape(str(verdict["mechanism"] or "–"))
    evidence = details.get("cause", {}).get("evidence", "")
    yield "cause", f"{escape(str(verdict['cause'] or '–'))} <span class='dim'>{escape(evidence)}</span>"
    for sample in verdict["samples"]:
        yield "sample", escape("; ".join(part for part in (sample_name(sample), electrodes(sample)) if part))
    yield "necessary", _flag(verdict["necessary"])
    yield "sufficient", _flag(verdict["sufficient"])
    yield "stable", escape(f"{stable['k']} of {stable['n']} {details.get('stable', {}).get('how', '')}")
    yield "replay", f"reproduced {replay['reproduced']} of {replay['of']}, {manner}"


def _matrix(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Weights down, batches across; what does not fit into the grid follows as rows."""
    names = [("before", "fresh", "after"), ("this", "healthy")]
    grid = [
        [escape(f"{weights} weights"), *(_cell(cells.get(f"{weights} weights, {batch} batch")) for batch in names[1])]
        for weights in names[0]
    ]
    placed = {f"{weights} weights, {batch} batch" for weights in names[0] for batch in names[1]}
    rest = [[escape(name), _cell(cell), ""] for name, cell in cells.items() if name not in placed]
    return _table(("", "this batch", "healthy batch"), grid + rest)


def _cell(cell: Mapping[str, Any] | None) -> str:
    return "–" if cell is None else f"{_outcome(cell['outcome'])} {escape(cell['reason'])}"


def _switch(switch: Mapping[str, Any]) -> Sequence[str]:
    why = "; ".join([switch["reason"], *switch["notes"]])
    name = f"{switch['name']}={switch['value']}"
    return _code(name), _outcome(switch["outcome"]), escape(switch["weights"] or "–"), escape(why)


def _repair(repair: Mapping[str, Any]) -> Sequence[str]:
    changes = ", ".join(f"{key}={value}" for key, value in repair["changes"].items())
    return _code(changes), f"{escape(repair_words(repair))} <span class='dim'>{escape(repair['description'])}</span>"


def _trial(number: int, row: Mapping[str, Any]) -> Sequence[str]:
    changed = ", ".join(f"{key}={value}" for key, value in row["changes"].items()) or "as captured"
    return str(number), escape(row["question"]), _code(changed), _outcome(row["outcome"]), escape(row["reason"])


def _curves(material: Material) -> list[str]:
    drawn = [chart(TITLES[quantity], quantity, points) for quantity, points in material.curves.items()]
    return ["<section><h2>Readings</h2>", *drawn, "</section>"] if drawn else []


def _findings(material: Material) -> list[str]:
    if not material.findings:
        return []
    ordered = sorted(material.findings, key=lambda f: (f.severity, f.step if f.step is not None else -1))
    rows = [[escape(f.severity.name), _code(f.check), escape(f.message), escape(f.remedy)] for f in ordered]
    return ["<section><h2>Findings</h2>", _table(("", "check", "what", "remedy"), rows), "</section>"]


def _environment(material: Material) -> list[str]:
    if not material.environment:
        return []
    rows = [[escape(str(key)), _code(_plain(value))] for key, value in material.environment.items()]
    replays = [verdict.get("details", {}).get("replay", {}) for verdict in material.verdicts]
    changed = dict.fromkeys(line for replay in replays for line in replay.get("differences", ()))
    note = f"<p>Bisected elsewhere: {escape('; '.join(changed))}.</p>" if changed else ""
    table = f"<details><summary>{len(rows)} entries</summary>{_table((), rows)}</details>"
    return [f"<section><h2>Environment</h2>{note}{table}</section>"]


def _commands(material: Material) -> list[str]:
    if not material.captures:
        return []
    lines = [f"brainbrr-debug {verb} {path}" for path in material.captures for verb in ("replay", "bisect")]
    text = escape("\n".join([*lines, "brainbrr-debug report ."]))
    return [f"<section><h2>To repeat, in the run's folder</h2><pre>{text}</pre></section>"]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of ready HTML; without heads the first cell of each row is its head."""
    top = f"<thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>" if heads else ""
    first = "td" if heads else "th"
    body = "".join(
        f"<tr><{first}>{cells[0]}</{first}>{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>" for cells in rows
    )
    kind = ' class="rows"' if heads else ""
    return f'<div class="wide"><table{kind}>{top}<tbody>{body}</tbody></table></div>'


def _outcome(word: str) -> str:
    return f'<span class="{escape(word)}">{escape(word)}</span>'


def _flag(value: bool | None) -> str:
    kind = {True: "good", False: "bad"}.get(value, "skip") if value is not None else "skip"
    return f'<span class="{kind}">{yes_no(value)}</span>'


def _code(value: Any) -> str:
    return f"<code>{escape(str(value if value is not None else '–'))}</code>"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "–"
    return str(value)
