"""A verdict on the terminal: plain lines for pipes and logs, the same in colour on a terminal. Imports no torch.

Works on the verdict's JSON form, so that it makes no difference whether it was just reached or read from a file.
Nothing is cut at 80 columns: names and paths are there to be copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brainbrr_debug.report.material import Material
from brainbrr_debug.sentence import component_name, electrodes, nearby, place, proof_words, sample_name, yes_no

LABEL = 11  # width of the first column


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """The whole verdict in plain lines; each fact stands on a line of its own behind its name."""
    lines = [row("verdict", verdict["sentence"])]
    if not verdict["origin"]["healthy"]:
        lines += list(_facts(verdict))
    lines += _section("weights × batch", _cells(verdict)) + _section("switches", _switches(verdict))
    lines += _section("repairs", _repairs(verdict))
    lines.append("")
    lines.append(f"{verdict['trials']} trials in {verdict['seconds']:.1f} s")
    return "\n".join(lines)


def verdict_rich(verdict: Mapping[str, Any], *, width: int) -> str:
    """The same for a terminal of `width` columns: prose folds, names do not."""
    import io

    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    healthy = verdict["origin"]["healthy"] and verdict["component"] is None
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, highlight=False, soft_wrap=True)
    panel = Panel(Text(verdict["sentence"]), title="verdict", border_style="green" if healthy else "red", width=width)
    console.print(panel, soft_wrap=False)
    for line in verdict_text(verdict).splitlines()[1:]:
        label, rest = line[:LABEL], line[LABEL:]
        text = Text(label, style="bold") if label.strip() and not label.startswith(" ") else Text(label)
        console.print(text + _coloured(rest))
    return out.getvalue().rstrip("\n")


def origin_text(origin: Mapping[str, Any]) -> str:
    """The origin of a failure, a line each."""
    if origin["healthy"]:
        return "healthy: nothing harmful was born"
    lines = [
        row("origin", place(origin)),
        row("step", str(origin["step"])),
        row("phase", str(origin["phase"]), str(origin["node"] or "")),
        row("kind", str(origin["kind"])),
        row("mechanism", str(origin["mechanism"]), str(origin["explanation"] or "")),
        row("proof", str(origin["proof"]), f"{origin['replays']} replays"),
    ]
    return "\n".join(lines)


def run_text(material: Material) -> str:
    """A run in lines: its latest verdict, its findings."""
    lines = [row("run", material.name, f"{material.steps} steps observed")]
    if material.damaged:
        lines.append(row("damaged", f"{material.damaged} lines could not be read"))
    lines += [row(f.severity.name, f.check, f.message) for f in material.findings]
    lines += [row("capture", capture) for capture in material.captures]
    if material.verdicts:
        lines += ["", verdict_text(material.verdicts[-1])]
    return "\n".join(lines)


def environment_text(environment: Mapping[str, Any]) -> str:
    """One line an entry, nested ones with their keys; what is not there in one line at the end."""
    lines, absent = [], []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            lines += [f"{key + '.' + str(inner):<28} {item}" for inner, item in value.items()]
        elif value is None or value == "":
            absent.append(key)
        else:
            lines.append(f"{key:<28} {' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")
    return "\n".join([*lines, *([f"{'absent':<28} {', '.join(absent)}"] if absent else [])])


def row(name: str, *parts: str) -> str:
    """One line: a name, then its parts two spaces apart."""
    return f"{name:<{LABEL}}" + "  ".join(part for part in parts if part)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned columns, the last one free."""
    widths = [max(len(cells[place]) for cells in rows) for place in range(len(rows[0]) - 1)] if rows else []
    return [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False)), cells[-1]]).rstrip()
        for cells in rows
    ]


def _facts(verdict: Mapping[str, Any]) -> Iterable[str]:
    origin, replay, details = verdict["origin"], verdict["replay"], verdict.get("details", {})
    yield row("step", str(verdict["step"]))
    yield row("component", component_name(verdict["component"]))
    yield row("operation", str(origin["op"]), str(origin["phase"]), nearby(str(origin["location"] or "")))
    yield row("mechanism", str(verdict["mechanism"] or "–"))
    yield row("cause", str(verdict["cause"] or "–"), details.get("cause", {}).get("evidence", ""))
    for sample in verdict["samples"]:
        yield row("sample", sample_name(sample).removeprefix("sample "), electrodes(sample))
    manner = "bit for bit" if details.get("replay", {}).get("bit_exact") else "within a tolerance"
    yield row("replay", f"reproduced {replay['reproduced']}/{replay['of']}", manner)
    yield row("necessary", yes_no(verdict["necessary"]))
    yield row("sufficient", yes_no(verdict["sufficient"]))
    stable = verdict["stable"]
    yield row("stable", f"{stable['k']}/{stable['n']}", details.get("stable", {}).get("how", ""))


def _cells(verdict: Mapping[str, Any]) -> list[list[str]]:
    cells = verdict.get("details", {}).get("cause", {}).get("cells", {})
    return [[name, cell["outcome"], cell["reason"]] for name, cell in cells.items()]


def _switches(verdict: Mapping[str, Any]) -> list[list[str]]:
    switches = verdict.get("details", {}).get("component", {}).get("switches", ())
    return [
        [f"{s['name']}={s['value']}", s["outcome"], s["weights"] or "–", "; ".join([s["reason"], *s["notes"]])]
        for s in switches
    ]


def _repairs(verdict: Mapping[str, Any]) -> list[list[str]]:
    return [
        [", ".join(f"{key}={value}" for key, value in repair["changes"].items()), repair_words(repair)]
        for repair in verdict["repairs"]
    ]


def repair_words(repair: Mapping[str, Any]) -> str:
    """What a repair does to the captured step, and its proof, or why it is refused."""
    words = "heals the captured step" if repair["heals"] else "does not heal"
    if repair["proved"]:
        return f"{words}, {proof_words(repair)}"
    return f"{words}; {repair['refused']}" if repair.get("refused") else words


def _section(title: str, rows: list[list[str]]) -> list[str]:
    return ["", title, *(f"  {line}" for line in columns(rows))] if rows else []


def _coloured(text: str) -> Any:
    from rich.text import Text

    coloured = Text(text)
    coloured.highlight_words(["good", "yes", "heals"], style="green")
    coloured.highlight_words(["bad", " no", "hides"], style="red")
    coloured.highlight_words(["skip"], style="dim")
    return coloured
