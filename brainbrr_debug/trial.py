"""One trial: a repeat of a captured step with weights, samples, time spans, switches or precision changed.

Every trial builds its run anew, so that none sees what another left behind.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch.utils._pytree import tree_map

from brainbrr_debug.capture import CaptureContent, require_signal, restore
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.lead import Passing, set_options
from brainbrr_debug.observation import Observation
from brainbrr_debug.precision import algorithms, autocasting, cast, lift
from brainbrr_debug.recorder import Recorder
from brainbrr_debug.samples import Sample, Span, batch_size, keep_samples, replace_spans
from brainbrr_debug.subject import Batch, Run, Subject, SubjectError, load_subject, step_of
from brainbrr_debug.training_state import Restored

Weights = Literal["before", "fresh", "after", "perturbed"]
PERTURBATION = 1e-4
"""Standard deviation of a perturbation of a weight, relative to the weight's own magnitude."""

_NOT_FINITE = re.compile(r"\bnan\b|\binf(inity)?\b|not finite|non-?finite|infinite|singular", re.IGNORECASE)
_SOLVER_FAILED = (torch.linalg.LinAlgError, FloatingPointError)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One repeat of the captured step; the defaults repeat it as it was.

    `weights`: the captured ones (before), those of `seed` (fresh; None: the run's own seed), those that the captured
    step itself leaves behind (after), or the captured ones with noise of `seed` (perturbed). `healthy_batch` puts the
    healthy batch in place of the captured one. Samples outside `keep` (None: all are kept) and `spans` are replaced by
    healthy material; with `alone` such samples are left out instead. `generator` reseeds the step's random numbers;
    otherwise they are the captured ones. `fresh_optimizer` leaves the captured state of the optimizer out,
    `fresh_rates` its captured learning rates: they are as the program builds them. `float64_modules` and everything in
    them compute in float64, with casts at their borders; `autocast` lets torch choose between a dtype and float32;
    `deterministic` allows no other algorithms, `tf32` products of shortened float32.
    """

    weights: Weights = "before"
    seed: int | None = None
    healthy_batch: bool = False
    keep: tuple[Sample, ...] | None = None
    alone: bool = False
    spans: tuple[Span, ...] = ()
    switches: tuple[tuple[str, Any], ...] = ()
    generator: int | None = None
    fresh_optimizer: bool = False
    fresh_rates: bool = False
    dtype: str | None = None
    float64_modules: tuple[str, ...] = ()
    autocast: str | None = None
    deterministic: bool = False
    tf32: bool = False
    device: str | None = None
    repeat: int = 0

    def changes(self) -> dict[str, Any]:
        """Only what differs from the captured step, as plain JSON types."""
        changed = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                changed[field.name] = [list(dataclasses.astuple(s)) for s in value] if field.name == "spans" else value
        if "switches" in changed:
            changed["switches"] = dict(self.switches)
        return changed

    def key(self) -> str:
        """The same text for the same trial."""
        return json.dumps(self.changes(), sort_keys=True, default=str)


def load_captured_subject(content: CaptureContent) -> Subject:
    """The Subject that a capture names, in the captured configuration.

    A class with `from_config` gets the configuration; any other Subject is loaded as it is. Raises CannotRunHere when
    it cannot be loaded, and for a copy without its signal.
    """
    require_signal(content)
    try:
        module, _, attribute = content.subject.partition(":")
        build = (
            getattr(getattr(importlib.import_module(module), attribute, None), "from_config", None) if module else None
        )
        subject: Subject = build(content.config) if callable(build) else load_subject(content.subject)
    except (SubjectError, ImportError, ValueError, OSError) as error:
        raise CannotRunHere(
            f"the captured subject {content.subject!r} cannot be loaded here: {error}; install its "
            "package or put its folder on PYTHONPATH"
        ) from error
    return subject


@contextlib.contextmanager
def captured_threads(content: CaptureContent) -> Iterator[None]:
    """As many threads as the captured run had, because other numbers of threads sum in another order."""
    here, threads = torch.get_num_threads(), content.environment.get("threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(here)


def observe(content: CaptureContent, subject: Subject, trial: Trial) -> Observation:
    """Build the run, set it up as the trial says, do the step, and return what it showed.

    An exception that a non-finite value caused is part of the observation; any other propagates.
    """
    with algorithms(deterministic=trial.deterministic, tf32=trial.tf32):
        return _observe(content, subject, trial)


def _observe(content: CaptureContent, subject: Subject, trial: Trial) -> Observation:
    run, batches, notes = prepare(content, subject, trial)
    if trial.weights == "after":
        step_of(run)(batches_of(content, Trial(device=trial.device, dtype=trial.dtype)), Passing())
    damaged = content.finding.evidence.get("state_nonfinite", ()) if trial.weights != "fresh" else ()
    with Recorder(run, [batch_size(batch) for batch in batches], damaged=damaged) as recorder:
        try:
            with autocasting(run, trial.autocast):
                step_of(run)(batches, recorder)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            if not caused_by_nonfinite(error):
                raise
            return recorder.observation(error=one_line(error), notes=notes)
        return recorder.observation(notes=notes)


def prepare(content: CaptureContent, subject: Subject, trial: Trial) -> tuple[Run, tuple[Batch, ...], tuple[str, ...]]:
    """The trial's run at the start of its step, its micro-batches on the run's device, and what did not fit.

    A switch may remove or replace modules: then the captured weights of all the others are kept, and said so.
    """
    seed = content.seed if trial.seed is None or trial.weights != "fresh" else trial.seed
    run = subject.build(seed, dict(trial.switches))
    if trial.weights == "fresh":
        content.rng.restore()
        notes: tuple[str, ...] = ()
    else:
        built = copy.deepcopy(run.optimizer.state_dict())
        notes = _misfits(restore(content, run, strict=not trial.switches))
    if trial.weights == "perturbed":
        perturb(run.model, trial.seed or 0)
    if trial.device is not None:
        run.model.to(trial.device)
    if trial.dtype is not None:
        cast(run, getattr(torch, trial.dtype))
    if trial.float64_modules:
        lift(run, trial.float64_modules)
    device = next((p.device for p in run.model.parameters()), torch.device("cpu"))
    if content.lead_in and trial.weights != "fresh":
        for past in content.lead_in:
            past.play(run, Passing(updated=past.updated), moved(_cast(past.micro_batches, trial.dtype), device))
        set_options(run.optimizer, content.optimizer_state["param_groups"])
        content.rng.restore()
    if trial.weights != "fresh":
        _renew(run.optimizer, built, state=trial.fresh_optimizer, rates=trial.fresh_rates)
    batches = moved(batches_of(content, trial), device)
    if trial.generator is not None:
        torch.manual_seed(trial.generator)
    return run, batches, notes


def batches_of(content: CaptureContent, trial: Trial) -> tuple[Batch, ...]:
    """The trial's micro-batches: the captured or the healthy ones, altered as the trial says."""
    healthy = content.healthy_micro_batches
    batches = tuple(content.micro_batches)
    if trial.healthy_batch:
        if not healthy:
            raise ValueError("the capture holds no healthy batch")
        batches = tuple(healthy)
    if trial.keep is not None:
        batches = keep_samples(batches, None if trial.alone else healthy, trial.keep)
    if trial.spans and healthy:
        batches = replace_spans(batches, healthy, trial.spans)
    return _cast(batches, trial.dtype)


def _cast(batches: tuple[Batch, ...], name: str | None) -> tuple[Batch, ...]:
    if name is None:
        return batches
    dtype = getattr(torch, name)
    cast: tuple[Batch, ...] = tree_map(
        lambda x: x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x, batches
    )
    return cast


def moved(batches: tuple[Batch, ...], device: torch.device) -> tuple[Batch, ...]:
    """The micro-batches with every tensor on `device`."""
    there: tuple[Batch, ...] = tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, batches)
    return there


def caused_by_nonfinite(error: BaseException) -> bool:
    """Whether a non-finite value made torch give up: a failing step rather than a broken program."""
    return isinstance(error, _SOLVER_FAILED) or bool(_NOT_FINITE.search(str(error)))


def perturb(model: torch.nn.Module, seed: int) -> None:
    """Multiply every weight by 1 + noise of a standard deviation of `PERTURBATION`; draws from no global generator."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.mul_((1 + PERTURBATION * noise).to(parameter.device, parameter.dtype))


def _renew(optimizer: torch.optim.Optimizer, built: dict[str, Any], *, state: bool, rates: bool) -> None:
    """Put state or learning rates back to what the program built."""
    if state:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": built["state"]})
    for group, old in zip(optimizer.param_groups, built["param_groups"], strict=True):
        if rates and "lr" in old:
            group["lr"] = old["lr"]


def _misfits(restored: Restored) -> tuple[str, ...]:
    notes = []
    if restored.missing:
        notes.append(f"{len(restored.missing)} weights fresh from the run's seed, first {restored.missing[0]}")
    if restored.unexpected:
        notes.append(f"{len(restored.unexpected)} captured weights without a place, first {restored.unexpected[0]}")
    return tuple(notes)


def one_line(error: BaseException) -> str:
    """An exception's kind and text without line breaks, at most 200 characters."""
    return f"{type(error).__name__.lstrip('_')}: {' '.join(str(error).split())}"[:200]
