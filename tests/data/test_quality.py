"""Faults of a recording: each planted one is found where it is, and healthy recordings are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from brainbrr.cli import cli
from brainbrr.config import ELECTRODES
from brainbrr.data.edf import read_recording
from brainbrr.data.montage import to_electrodes
from brainbrr.data.quality import Fault, find_faults
from brainbrr.data.synthesis.artefacts import KINDS
from brainbrr.data.synthetic import plan_corpus, render_electrodes, write_corpus

RATE = 256
SEEN_AS = {"flat": "flat", "bridged": "bridged", "saturation": "saturated", "pop": "pop", "mains": "mains"}


def kinds(faults: tuple[Fault, ...]) -> set[str]:
    return {fault.kind for fault in faults}


@pytest.fixture(scope="module")
def background() -> np.ndarray:
    (plan,) = plan_corpus(patients=1, minutes=2, seizures=0, lookalikes=0, seed=5, splits=("train",))
    return render_electrodes(plan)


@pytest.mark.parametrize("kind", sorted(SEEN_AS))
def test_every_planted_artefact_is_found(kind: str) -> None:
    for seed in range(3):
        plans = plan_corpus(
            patients=1, minutes=5, seizures=1, lookalikes=0, seed=seed, splits=("train",), artefacts=(kind,)
        )
        for plan in plans:
            for planted in (artefact for artefact in plan.artefacts if artefact.kind == kind):
                middle = (planted.start_s + planted.stop_s) / 2
                found = [
                    fault
                    for fault in find_faults(render_electrodes(plan), RATE)
                    if fault.kind == SEEN_AS[kind] and fault.start_s - 1 <= middle <= fault.stop_s + 1
                ]
                assert found, planted
                seen = {name for fault in found for name in fault.electrodes}
                assert seen >= set(planted.electrodes)
                if kind != "mains":
                    assert seen == set(planted.electrodes)


def test_healthy_recordings_are_left_alone() -> None:
    for seed in range(4):
        plans = plan_corpus(patients=1, minutes=4, seizures=1, lookalikes=2, seed=seed, splits=("train", "dev"))
        for plan in plans:
            assert find_faults(render_electrodes(plan), RATE) == ()


@pytest.mark.parametrize("name", ["real_eeg/adult_rest_250Hz.edf", "iiic/SZ_sample1.edf", "iiic/GPD_sample4.edf"])
def test_real_recordings_have_no_dead_or_doubled_electrode(shared: Path, name: str) -> None:
    recording = read_recording(shared / name)
    found = find_faults(to_electrodes(recording).signal, recording.rate)
    assert not kinds(found) & {"flat", "saturated", "duplicated"}


def test_an_inverted_copy(background: np.ndarray) -> None:
    signal = background.copy()
    signal[ELECTRODES.index("C3")] = -signal[ELECTRODES.index("C4")]
    (fault,) = find_faults(signal, RATE)
    assert (fault.kind, fault.electrodes, fault.detail) == ("duplicated", ("C3", "C4"), "inverted")


def test_an_identical_copy_is_not_called_bridged_as_well(background: np.ndarray) -> None:
    signal = background.copy()
    signal[3] = signal[4]
    (fault,) = find_faults(signal, RATE)
    assert (fault.kind, fault.detail) == ("duplicated", "identical")


def test_times_and_electrodes_of_a_flat_stretch(background: np.ndarray) -> None:
    signal = background.copy()
    signal[[2, 5], 10 * RATE : 20 * RATE] = 7.0
    (fault,) = find_faults(signal, RATE)
    assert fault == Fault(kind="flat", electrodes=(ELECTRODES[2], ELECTRODES[5]), start_s=10, stop_s=20)


def test_mains_are_named_by_their_frequency(background: np.ndarray) -> None:
    t = np.arange(background.shape[1]) / RATE
    signal = background + 30 * np.sin(2 * np.pi * 50 * t)
    assert {fault.detail for fault in find_faults(signal, RATE)} == {"50 Hz"}


def test_less_than_a_second_is_not_judged() -> None:
    assert find_faults(np.zeros((19, 100)), RATE) == ()


def test_calibration_is_no_saturation() -> None:
    assert set(KINDS) - set(SEEN_AS) == {"calibration"}


def test_command_names_what_it_found(tmp_path: Path) -> None:
    options = {"patients": 1, "minutes": 3, "seizures": 1, "lookalikes": 0, "seed": 1}
    write_corpus(tmp_path / "c", splits=("train",), artefacts=("saturation",), **options)
    (path,) = (tmp_path / "c").rglob("*.edf")
    result = CliRunner().invoke(cli, ["inspect", str(path)], standalone_mode=False)
    assert result.return_value == 1
    head, fault, *_ = result.stdout.splitlines()
    assert head == f"{path.name}  180 s at 256 Hz"
    assert fault.startswith("saturated")
    assert "1 seizures in " in result.stdout
    document = json.loads(CliRunner().invoke(cli, ["inspect", str(path), "--format", "json"]).stdout)
    assert document["faults"][0]["kind"] == "saturated" and len(document["seizures"]) == 1


def test_a_healthy_recording_is_said_to_be_so(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", patients=1, minutes=1, seizures=0, lookalikes=0, seed=1, splits=("dev",))
    (path,) = (tmp_path / "c").rglob("*.edf")
    path.with_suffix(".csv_bi").unlink()
    result = CliRunner().invoke(cli, ["inspect", str(path)], standalone_mode=False)
    assert result.return_value == 0 and result.stdout.splitlines()[1:] == ["no fault", "unlabelled"]
