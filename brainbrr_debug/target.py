"""What a command was pointed at: a capture, a run directory, a configuration or a Subject.."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brainbrr_debug.capture import CaptureContent, read_capture, write_capture
from brainbrr_debug.errors import UsageError
from brainbrr_debug.forward import forwarded
from brainbrr_debug.questions.components import captured_value
from brainbrr_debug.recipe import CONFIG_SUBJECT, assignments, breakdowns, changed, config_subject, read_config
from brainbrr_debug.records import SCHEMA, Origin, Verdict
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.rundir import RunDir, RunDirError
from brainbrr_debug.subject import Subject, load_subject
from brainbrr_debug.trial import Trial, captured_threads, load_captured_subject, prepare

RUNS = Path("runs")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A captured step with its subject, its file and the run it lies in; no content: `steps` healthy steps."""

    content: CaptureContent | None
    subject: Subject
    path: Path | None = None
    run: RunDir | None = None
    steps: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """The origin of a step; `failed` says whether the step did harm at all."""

    origin: Origin
    failed: bool

    @property
    def explained(self) -> bool:
        """Healthy, or failed with an origin."""
        return not (self.failed and self.origin.healthy)

    def to_dict(self) -> dict[str, Any]:
        """The origin's document."""
        return {"schema": SCHEMA, **self.origin.to_dict()}


def resolve(
    target: str,
    *,
    subject_name: str | None = None,
    seed: int | None = None,
    max_steps: int | None = None,
    sets: tuple[str, ...] = (),
    keep: bool = True,
    narrate: Callable[[str], None] = lambda line: None,
) -> Target:
    """The captured step that `target` stands for; a configuration or subject is run until it does harm.

    With `keep` such a run leaves its capture in a new directory under `runs`. Raises UsageError for a target that is
    none of the four, CannotRunHere for a subject that breaks down for other reasons than numbers.
    """
    path = Path(target)
    if path.is_dir():
        path = first_capture(path, narrate)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return _run_config(path, sets, seed, max_steps, keep, narrate)
    if sets:
        raise UsageError(f"--set needs a configuration, and {target} is none")
    if path.exists() or ":" not in target:
        if not path.exists():
            raise UsageError(
                f"{target}: no such file; expected a capture (.h5), a run directory, a configuration (.yaml) or "
                "package.module:attribute"
            )
        content = named(read_capture(path), subject_name)
        subject = load_captured_subject(content)
        return Target(content=forwarded(content, subject), subject=subject, path=path, run=_run_of(path))
    return _run_subject(load_subject(target), target, {}, seed or 0, max_steps, keep, narrate)


def named(content: CaptureContent, subject: str | None) -> CaptureContent:
    """The content with the subject that a person named, else with its own."""
    return dataclasses.replace(content, subject=subject) if subject else content


def trace(target: Target) -> Traced:
    """The origin of the target's step."""
    from brainbrr_debug.origin import trace_step

    if target.content is None:
        return Traced(origin=Origin(healthy=True), failed=False)
    with captured_threads(target.content):
        run, batches, _ = prepare(target.content, target.subject, Trial())
        return Traced(origin=trace_step(run, batches, number=target.content.step), failed=True)


def healthy_verdict(target: Target) -> Verdict:
    """The verdict on a run that did no harm."""
    return Verdict(
        question="why does the run fail?",
        step=None,
        component=None,
        origin=Origin(healthy=True),
        samples=(),
        cause=None,
        necessary=None,
        sufficient=None,
        stable={"k": 0, "n": 0},
        replay={"reproduced": 0, "of": 0},
        mechanism=None,
        repairs=(),
        trials=0,
        seconds=0.0,
        sentence=f"The run is healthy: {target.steps} steps, and none left anything non-finite behind.",
        details={"outcome": "healthy"},
    )


def seconds(option: str, time: str | None) -> float | None:
    """`90`, `90s`, `10m`, `1.5h` in seconds, None for None. Raises UsageError for anything else."""
    if time is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", time.strip())
    if found is None:
        raise UsageError(f"{option} is {time!r}; expected a time such as 90s, 10m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _run_config(
    path: Path,
    sets: tuple[str, ...],
    seed: int | None,
    max_steps: int | None,
    keep: bool,
    narrate: Callable[[str], None],
) -> Target:
    values = changed(read_config(path), assignments("--set", sets))
    subject = config_subject(values, path)
    chosen = captured_value(values, "experiment.seed", 0) if seed is None else seed
    return _run_subject(subject, CONFIG_SUBJECT, values, int(chosen), max_steps, keep, narrate)


def _run_subject(
    subject: Subject,
    name: str,
    config: Mapping[str, Any],
    seed: int,
    max_steps: int | None,
    keep: bool,
    narrate: Callable[[str], None],
) -> Target:
    with breakdowns(name):
        rerun = run_until_harm(subject, name, seed=seed, max_steps=max_steps, config=config, progress=narrate)
    path, run = None, None
    if keep and rerun.content is not None:
        run = RunDir.create(RUNS, name.rpartition(":")[2])
        run.write_environment(rerun.content.environment)
        path = write_capture(run.capture_path(rerun.content.step), rerun.content)
        for step in range(rerun.steps):
            run.append_readings(step, [r for r in rerun.content.readings if r.step == step])
        run.append_finding(rerun.content.finding)
    return Target(content=rerun.content, subject=subject, path=path, run=run, steps=rerun.steps)


def first_capture(path: Path, narrate: Callable[[str], None]) -> Path:
    """Of a run that went on, the capture nearest to the cause; of a run of many ranks, that of the first with one."""
    folders = [path, *sorted(path.glob("rank-[0-9]*"))]
    captures = [capture for folder in folders for capture in RunDir.open(folder).list_captures()]
    if not captures:
        raise UsageError(f"{path}: holds no capture; expected a run that was stopped by a finding")
    if len(captures) > 1:
        narrate(f"{captures[0]}: the first of {len(captures)} captures; name another by its path")
    return captures[0]


def _run_of(path: Path) -> RunDir | None:
    """The run directory that a capture lies in; None for one that was carried elsewhere."""
    if path.resolve().parent.name != "captures":
        return None
    try:
        return RunDir.open(path.resolve().parent.parent)
    except RunDirError:
        return None
