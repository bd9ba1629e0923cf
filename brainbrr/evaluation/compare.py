"""Two label files of one recording, scored by every rule in use: the choice of rule moves figures severalfold."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainbrr.data.formats import read_label_file
from brainbrr.data.labels import Event, LabelFile
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.nedc import Confusion, epoch, ovlp, taes
from brainbrr.evaluation.szcore import RULES, Hits, szcore

TOLERANCE_S = 0.001  # by which NEDC lets the ends of two annotations differ


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The scores of a hypothesis against a reference. Counts are of seizures; of 0.25 s epochs for `epoch`."""

    duration_s: float
    epoch: Confusion
    ovlp: Confusion
    taes: Confusion
    szcore: dict[str, Hits]

    def to_dict(self) -> dict[str, Any]:
        """By program and rule, with the names of fields that the programs use."""
        nedc = {"epoch": self.epoch, "ovlp": self.ovlp, "taes": self.taes}
        return {
            "nedc_v6.0.0": {rule: confusion.to_dict() for rule, confusion in nedc.items()},
            "szcore_evaluation_path_1Hz": {rule: hits.to_dict() for rule, hits in self.szcore.items()},
        }

    def rows(self) -> list[list[str]]:
        """The table for a person."""
        rows = [["rule", "targets", "hits", "false", "sensitivity", "precision", "F1", "FA/24 h"]]
        for name, confusion in (("NEDC epoch", self.epoch), ("NEDC OVLP", self.ovlp), ("NEDC TAES", self.taes)):
            nedc = confusion.to_dict()
            shares = [nedc["sens_pct"] / 100, nedc["prec_pct"] / 100, nedc["f1"]]
            rows.append(_row(name, [nedc["targets"], nedc["tp"], nedc["fp"]], shares, nedc["fa24"]))
        for name, hits in self.szcore.items():
            score = hits.to_dict()
            ratios = [score["sensitivity"], score["precision"], score["f1"]]
            counts = [score["ref_true"], score["tp"], score["fp"]]
            rows.append(_row(f"SzCORE {name}", counts, ratios, score["fp_per_24h"]))
        return rows


def compare(reference: str | Path, hypothesis: str | Path) -> Comparison:
    """Score the label file `hypothesis` against `reference`.

    Raises LabelError for a file that cannot be read, EvaluationError for files of recordings of different length.
    """
    truth, said = read_label_file(reference), read_label_file(hypothesis)
    duration_s = _common_duration(truth, said)
    return compare_events(truth.events, said.events, duration_s)


def compare_events(reference: Sequence[Event], hypothesis: Sequence[Event], duration_s: float) -> Comparison:
    """Score the events of a recording of `duration_s` against its seizures; neither may overlap among themselves."""
    events = reference, hypothesis
    return Comparison(
        duration_s=duration_s,
        epoch=epoch(*events, duration_s),
        ovlp=ovlp(*events, duration_s),
        taes=taes(*events, duration_s),
        szcore=szcore(*events, duration_s),
    )


def pooled(comparisons: Sequence[Comparison]) -> Comparison:
    """The sum over recordings, at least one: counts add up, and rates are of all the time."""
    duration_s = sum(each.duration_s for each in comparisons)

    def confusion(rule: str) -> Confusion:
        parts = [getattr(each, rule) for each in comparisons]
        counts = {name: sum(getattr(part, name) for part in parts) for name in ("targets", "tp", "tn", "fp", "fn")}
        alarms = sum(part.fa24 * each.duration_s for part, each in zip(parts, comparisons, strict=True))
        return Confusion(**counts, fa24=alarms / duration_s)

    return Comparison(
        duration_s=duration_s,
        epoch=confusion("epoch"),
        ovlp=confusion("ovlp"),
        taes=confusion("taes"),
        szcore={rule: functools.reduce(operator.add, (each.szcore[rule] for each in comparisons)) for rule in RULES},
    )


def _common_duration(truth: LabelFile, said: LabelFile) -> float:
    duration_s = truth.duration_s if truth.duration_s is not None else said.duration_s
    if not duration_s:
        raise EvaluationError(f"{truth.path}: does not say how long the recording is; expected a format that does")
    if said.duration_s is not None and abs(duration_s - said.duration_s) > TOLERANCE_S:
        raise EvaluationError(
            f"{said.path}: is of a recording of {said.duration_s:g} s, {truth.path} of one of {duration_s:g} s; "
            "expected two label files of one recording"
        )
    for file in (truth, said):
        beyond = [event for event in file.events if event.stop_s > duration_s + TOLERANCE_S]
        if beyond:
            raise EvaluationError(
                f"{file.path}: a seizure ends at {beyond[0].stop_s:g} s, past the recording's {duration_s:g} s"
            )
    return duration_s


def _row(name: str, counts: list[Any], ratios: list[Any], rate: Any) -> list[str]:
    shown = ["–" if ratio is None else f"{ratio:.3f}" for ratio in ratios]
    return [
        name,
        *(f"{count:.2f}".removesuffix(".00") for count in counts),
        *shown,
        "–" if rate is None else f"{rate:.2f}",
    ]
