"""One self-contained HTML file about a run: no network, no script, the same bytes for the same run. Imports no torch.

Holds no signal unless it is asked for: reports are mailed, and patients are people.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from html import escape

from brainbrr_debug.differences import differences
from brainbrr_debug.quantities import EIGENGAP, GRADIENT_NORM, LOSS
from brainbrr_debug.report.chart import chart
from brainbrr_debug.report.elements import code, dim, document, folded, plain, section, table
from brainbrr_debug.report.headline import best_repair, headline
from brainbrr_debug.report.heat import strip
from brainbrr_debug.report.material import Material
from brainbrr_debug.report.matrix_html import degenerate
from brainbrr_debug.report.spectrum_plot import STYLE
from brainbrr_debug.report.verdict_html import answer, certificate, experiments, repairs

TITLES = {LOSS: "Loss", GRADIENT_NORM: "Gradient norm before clipping", EIGENGAP: "Smallest relative eigengap"}


def page(material: Material) -> str:
    """The whole report: the latest verdict, when and where it began, what was tried, what repairs it."""
    latest = material.verdicts[-1] if material.verdicts else None
    title = headline(latest) if latest else _without_verdict(material)
    body = [f"<header><p>{escape(material.name)}</p><h1>{escape(title)}</h1>"]
    body.append(f'<p class="dim">{escape(_summary(material))}</p></header>')
    if latest is not None:
        body += answer(latest)
    body += _readings(material)
    body += _signals(material)
    if latest is not None:
        body += degenerate(latest) + experiments(latest) + repairs(latest)
    if material.certificate:
        body.append(section("Certificate of this run", certificate(material.certificate)))
    body += _earlier(material) + _findings(material) + _environment(material) + _commands(material)
    return document(f"{material.name}: {title}", body, style=STYLE)


def _without_verdict(material: Material) -> str:
    if material.first_abnormal is None and not material.findings:
        return "Nothing abnormal was read, and no check objected."
    return "No verdict yet: bisect a capture of this run to get one."


def _summary(material: Material) -> str:
    parts = [_counted(material.steps, "step") + " observed", _counted(len(material.findings), "finding")]
    parts.append(_counted(len(material.verdicts), "verdict"))
    if material.damaged:
        parts.append(_counted(material.damaged, "damaged line") + " skipped")
    first = material.first_abnormal
    if first is not None:
        parts.append(f"first abnormal reading: {first.quantity} at {first.site or 'the model'}, step {first.step}")
    return " · ".join(parts)


def _counted(number: int, one: str) -> str:
    return f"{number} {one}{'' if number == 1 else 's'}"


def _readings(material: Material) -> list[str]:
    if material.heat is None:
        return []
    left = material.heat.left_out
    told = "A shade: by how many powers of ten a reading lies off the median of its row. A cross: not finite, or a gap "
    told += "too small to divide by. (n): the most unusual of n modules."
    if left:
        told += f" {_counted(left, 'place')} less unusual than these left out; all are in readings.jsonl."
    drawn = [chart(TITLES[quantity], quantity, points) for quantity, points in material.curves.items()]
    figure = f'<div class="wide">{strip(material.heat, material.first_abnormal)}</div>'
    return [
        section(
            "When and where",
            figure,
            f'<p class="dim">{escape(told)}</p>',
            f'<div class="figures">{"".join(drawn)}</div>',
        )
    ]


def _signals(material: Material) -> list[str]:
    if not material.signals:
        return []
    from brainbrr_debug.report.signal_plot import signal_plot  # needs NumPy and h5py, which nothing else here does

    return [section("The signal", *(f'<div class="wide">{signal_plot(signal)}</div>' for signal in material.signals))]


def _earlier(material: Material) -> list[str]:
    """All verdicts but the latest, the later ones first."""
    parts = [
        folded(
            f"{number}: {headline(verdict)}",
            *answer(verdict),
            *degenerate(verdict),
            *experiments(verdict),
            *repairs(verdict),
            old=True,
        )
        for number, verdict in reversed(list(enumerate(material.verdicts[:-1])))
    ]
    return [section("Earlier verdicts", *parts)] if parts else []


def _findings(material: Material) -> list[str]:
    if not material.findings:
        return []
    ordered = sorted(material.findings, key=lambda f: (f.severity, f.step if f.step is not None else -1))
    rows = [[f"{f.severity.name} {code(f.check)}", escape(f.message), escape(f.remedy)] for f in ordered]
    return [section("Findings", table(("check", "what", "remedy"), rows))]


def _environment(material: Material) -> list[str]:
    if not material.environment:
        return []
    rows = [[escape(str(key)), code(plain(value))] for key, value in material.environment.items()]
    apart = list(_elsewhere(material))
    parts = [table(("verdict", "what", "of the run", "there"), apart)] if apart else []
    return [section("Environment", *parts, folded(f"{len(rows)} entries", table((), rows)))]


def _elsewhere(material: Material) -> Iterator[Sequence[str]]:
    """Where the verdicts' captures were made, and where they were bisected, as far as that is not where the run was."""
    for number, verdict in enumerate(material.verdicts):
        details = verdict.get("details", {})
        for apart in differences(material.environment, details.get("environment", {})):
            there = f"{code(plain(apart.here))} {dim('at the capture')}"
            yield str(number), escape(apart.key), code(plain(apart.captured)), there
        for line in details.get("replay", {}).get("differences", ()):
            yield str(number), dim("bisected elsewhere"), "", escape(str(line))


def _commands(material: Material) -> list[str]:
    """What to type in the run's folder; the training where it was typed."""
    command = material.environment.get("command")
    lines = [f"# the run itself: {shlex.join(map(str, command))}"] if command else []
    lines += [f"brainbrr-debug {verb} {shlex.quote(path)}" for path in material.captures for verb in VERBS]
    repair = best_repair(material.verdicts[-1]) if material.verdicts else None
    if repair is not None:
        turned = " ".join(f"--switch {shlex.quote(f'{name}={value}')}" for name, value in repair["changes"].items())
        lines += [f"brainbrr-debug prove {shlex.quote(path)} {turned}" for path in material.captures[-1:]]
    text = "\n".join([*lines, "brainbrr-debug report ."])
    return [section("To repeat, in the run's folder", f"<pre>{escape(text)}</pre>")]


VERBS = ("replay", "spectrum", "bisect")
