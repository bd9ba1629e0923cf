"""The synthetic corpus: what the demo, the tests and the smoke configurations train on."""

from __future__ import annotations

from brainbrr.data.synthesis.artefacts import KINDS, Artefact
from brainbrr.data.synthesis.corpus import CorpusReport, write_corpus
from brainbrr.data.synthesis.plan import RecordingPlan, SynthesisError, plan_corpus
from brainbrr.data.synthesis.render import render_electrodes

__all__ = [
    "KINDS",
    "Artefact",
    "CorpusReport",
    "RecordingPlan",
    "SynthesisError",
    "plan_corpus",
    "render_electrodes",
    "write_corpus",
]
