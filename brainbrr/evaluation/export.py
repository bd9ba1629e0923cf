"""Everything that is known of one recording's prediction, in every form that somebody opens."""

from __future__ import annotations

import json
from pathlib import Path

from brainbrr.data.formats import write_label_file
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.predict import Prediction, write_probabilities
from brainbrr.files import atomic_write

_LABELS = {"csv_bi": "{}.csv_bi", "bids": "{}_events.tsv", "edf+": "{}_annotations.edf"}


def export_paths(folder: Path, recording: Path) -> dict[str, Path]:
    """Where each form of the prediction of `recording` goes: csv_bi, bids, edf+, json, npy.

    Raises EvaluationError for the folder of the recording itself.
    """
    if folder.resolve() == recording.resolve().parent:
        raise EvaluationError(
            f"{folder}: holds the recording itself, beside which a {recording.stem}.csv_bi is its labels; "
            "expected another folder"
        )
    name = recording.stem.removesuffix("_eeg")
    return {form: folder / pattern.format(name) for form, pattern in _LABELS.items()} | {
        "json": folder / f"{name}.json",
        "npy": folder / f"{name}_probabilities.npy",
    }


def export(prediction: Prediction, paths: dict[str, Path]) -> None:
    """Write all forms; `paths` are those of `export_paths`."""
    for form in _LABELS:
        write_label_file(paths[form], prediction.labels, prediction.labels.path.stem, form)
    with atomic_write(paths["json"]) as file:
        file.write((json.dumps(prediction.to_dict(), indent=2, allow_nan=False) + "\n").encode())
    write_probabilities(paths["npy"], prediction.probabilities)
