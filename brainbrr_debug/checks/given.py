"""What one triage was given to look at, and the material in it, each read at most once. Imports no torch."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from brainbrr_debug.checkpoint import CheckpointFacts
    from brainbrr_debug.checks.source.index import Source
    from brainbrr_debug.facts import (
        CacheFacts,
        ChannelFault,
        ConfigFacts,
        Corner,
        Memory,
        RehearsalFacts,
        Schedule,
        SmokeFacts,
    )
    from brainbrr_debug.machine import Machine, Parity
    from brainbrr_debug.records import Finding

Need = Literal["environment", "config", "cache", "checkpoint", "model", "run", "source", "smoke"]


class NotApplicable(Exception):
    """Raised by a check that cannot judge what it was given: the reason, in one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """Paths and settings of one triage; everything heavier is read when a check first asks for it.

    `subject` ("package.module:attribute") builds the model; without one, a configuration is the detector's. `settings`
    are the thresholds of the checklist, by check. `known` holds material that is at hand already, by the name of its
    property. `notes` collects what a check passed over, one line each.
    """

    config: Path | None = None
    cache: Path | None = None
    checkpoint: Path | None = None
    run: Path | None = None
    source: Path | None = None
    smoke: str | None = None
    subject: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    known: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def only_source(self) -> bool:
        """Whether a repository was given and nothing else: then nothing is run, and the machine does not matter."""
        others = (self.config, self.cache, self.checkpoint, self.run, self.smoke, self.subject)
        return self.source is not None and not any(others)

    def lacks(self, need: Need) -> str | None:
        """Why a check with this need cannot run; None when it can."""
        if need == "environment":
            return "only --source was given" if self.only_source else None
        if need == "model":
            return None if self.config is not None or self.subject is not None else "no --config or --subject was given"
        return f"no --{need} was given" if getattr(self, need) is None else None

    def setting(self, check: str, name: str) -> Any:
        """A threshold of the checklist."""
        return self.settings[check][name]

    def note(self, line: str) -> None:
        """Say what was passed over, replaced or only sampled; once."""
        if line not in self.notes:
            self.notes.append(line)

    @functools.cached_property
    def machine(self) -> Machine:
        """This machine and installation."""
        from brainbrr_debug.machine import describe_machine

        return self.known["machine"] if "machine" in self.known else describe_machine()

    @functools.cached_property
    def parities(self) -> tuple[Parity, ...]:
        """Each fused kernel that can run here, used and compared with its reference."""
        from brainbrr_debug.subjects.kernels import parities

        return self.known["parities"] if "parities" in self.known else parities()

    @functools.cached_property
    def precision(self) -> Mapping[str, object]:
        """The flags that let float32 be computed with fewer bits, once everything is imported that training imports."""
        import brainbrr_debug.subjects.kernels  # noqa: F401
        from brainbrr_debug.machine import float32_flags

        return self.known["precision"] if "precision" in self.known else float32_flags()

    @functools.cached_property
    def config_facts(self) -> ConfigFacts:
        """What the configuration says, as neutral facts."""
        from brainbrr_debug.subjects.configuration import facts_of

        return self.known["config_facts"] if "config_facts" in self.known else facts_of(_required(self.config))

    @functools.cached_property
    def schedule(self) -> Schedule:
        """The learning rate over the run, by the code that training runs."""
        from brainbrr_debug.subjects.schedule import schedule_of

        return self.known["schedule"] if "schedule" in self.known else schedule_of(_required(self.config), self.cache)

    @functools.cached_property
    def corners(self) -> tuple[Corner, ...]:
        """The loss at the extremes of its options."""
        from brainbrr_debug.subjects.schedule import corners_of

        return self.known["corners"] if "corners" in self.known else tuple(corners_of(_required(self.config)))

    @functools.cached_property
    def step_seconds(self) -> float | None:
        """The median length of a step of the run, s; None without a run that shows it."""
        import statistics

        from brainbrr_debug.rundir import RunDir

        if self.run is None:
            return None
        times = RunDir.open(self.run).lines("readings.jsonl", lambda line: float(line["time"])).items
        return statistics.median(b - a for a, b in itertools.pairwise(times)) if len(times) > 1 else None

    @functools.cached_property
    def cache_facts(self) -> CacheFacts:
        """What lies in the cache; with a configuration, what it is to be held against."""
        from brainbrr_debug.subjects.cache import cache_facts

        config = self.config if self.config is not None and not self.config_facts.refused else None
        facts = cache_facts(_required(self.cache), config, self.setting("cache.corrupt", "verify"))
        self.notes.extend(facts.notes)
        return facts

    @functools.cached_property
    def channel_faults(self) -> tuple[ChannelFault, ...]:
        """Stretches of the cache's recordings without a signal, of a few recordings of each split."""
        from brainbrr_debug.subjects.cache import channel_faults

        count, seconds = self.setting("cache.flat", "recordings"), self.setting("cache.flat", "seconds")
        self.note(f"cache.flat: at most {count} recordings of each split were looked at")
        return tuple(channel_faults(_required(self.cache), count, seconds))

    @functools.cached_property
    def checkpoint_facts(self) -> CheckpointFacts:
        """What the checkpoint holds, nothing of it run."""
        from brainbrr_debug.checkpoint import read_checkpoint

        return read_checkpoint(_required(self.checkpoint))

    @functools.cached_property
    def rehearsal(self) -> RehearsalFacts:
        """What the model showed in a few watched steps and through hostile inputs."""
        if "rehearsal" in self.known:
            found: RehearsalFacts = self.known["rehearsal"]
            return found
        from brainbrr_debug.rehearsal import rehearse, stage_of
        from brainbrr_debug.subject import load_subject

        if self.subject is not None:
            subject = load_subject(self.subject)
            return rehearse(lambda: stage_of(lambda: subject.build(0, {})))
        from brainbrr_debug.subjects.rehearsal import detector_stage

        return rehearse(functools.partial(detector_stage, self.accepted.path))

    @functools.cached_property
    def memory(self) -> Memory:
        """What a training step of the configuration needs."""
        from brainbrr_debug.subjects.rehearsal import detector_memory

        return self.known["memory"] if "memory" in self.known else detector_memory(self.accepted.path)

    @functools.cached_property
    def smoke_facts(self) -> SmokeFacts:
        """What the user's own command did under observation."""
        from brainbrr_debug.smoke.run import observe

        if "smoke_facts" in self.known:
            found: SmokeFacts = self.known["smoke_facts"]
            return found
        assert self.smoke is not None
        return observe(self.smoke, limit_s=self.setting("memory.eval_growth", "limit_s"))

    @functools.cached_property
    def backends_here(self) -> Mapping[str, str]:
        """What would run here of what the checkpoint's configuration asks for."""
        from brainbrr_debug.subjects.checkpoint import backends_here

        if "backends_here" in self.known:
            found: Mapping[str, str] = self.known["backends_here"]
            return found
        config = self.checkpoint_facts.config
        return backends_here(config) if isinstance(config, Mapping) else {}

    @functools.cached_property
    def run_findings(self) -> Mapping[str, Sequence[Finding]]:
        """What the run's readings show, by check."""
        from brainbrr_debug.checks.finished import findings_of
        from brainbrr_debug.rundir import RunDir

        return findings_of(RunDir.open(_required(self.run)), self.setting("run.eigengap", "relative"))

    @functools.cached_property
    def selection_metric(self) -> str | None:
        """The metric by which the run takes its best and stops; None where its configuration names none."""
        from brainbrr_debug.rundir import RunDir
        from brainbrr_debug.subjects.schedule import selection_metric

        return selection_metric(RunDir.open(_required(self.run)).config())

    @property
    def accepted(self) -> ConfigFacts:
        """The facts of a configuration that a run would take. Raises NotApplicable for another."""
        if self.config_facts.refused:
            raise NotApplicable("the configuration is refused: see config.refused")
        return self.config_facts

    @property
    def for_here(self) -> ConfigFacts:
        """The facts of a configuration that is meant to run on this machine. Raises NotApplicable for another."""
        facts = self.accepted
        if facts.device == "cuda" and not self.machine.gpus:
            raise NotApplicable("the configuration is for a CUDA device, and there is none here")
        return facts

    @functools.cached_property
    def sources(self) -> Source:
        """The repository under --source, without what `[tool.triage] exclude` in its pyproject.toml names."""
        from brainbrr_debug.checks.source.index import read_source

        return read_source(_required(self.source), _excluded(_required(self.source)))


def _required(path: Path | None) -> Path:
    assert path is not None  # the runner asks a check only for what was given
    return path


def _excluded(root: Path) -> list[str]:
    """The patterns of `[tool.triage] exclude`; none where there is no such table, or the file cannot be read."""
    try:
        table: Any = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []
    for name in ("tool", "triage", "exclude"):
        table = table.get(name) if isinstance(table, dict) else None
    return [str(pattern) for pattern in table] if isinstance(table, list) else []
