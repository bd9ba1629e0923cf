"""Whatever stands in a file: a finding or a usage error, never a traceback and never a crashed check."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from brainbrr.data.errors import LabelError, RecordingError
from brainbrr.data.formats import read_label_file
from brainbrr.data.header import read_header
from brainbrr_debug.checks.given import Given
from brainbrr_debug.errors import DebugError
from brainbrr_debug.main import exit_code
from brainbrr_debug.triage.baseline import Baseline
from brainbrr_debug.triage.checklist import ChecklistError, default_checklist, read_checklist
from brainbrr_debug.triage.run import Triage, chosen, triage

WITHIN = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
BYTES = st.binary(max_size=400)


def judged(given: Given, *select: str) -> Triage:
    checklist = default_checklist()
    found = triage(given, checklist, chosen(checklist, select, ()), Baseline(entries={}))
    assert found.crashed == (), found.crashed[0].traceback
    return found


KEYS = st.sampled_from(["data", "model", "training", "experiment", "batch_size", "window_size", "mamba", "clamp", "x"])
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers()))
TREES = st.recursive(VALUES, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)


@WITHIN
@given(st.one_of(st.text(max_size=200), TREES.map(lambda tree: json.dumps(tree))))
@example("a: 2001-99-99")
@example("a: !!int ''")
@example("a: &a [*a]")
@example("{" * 600)
@example('data: {cache_dir: "a\\0b"}')
@example("experiment: {purpose: incident, expects: [no.such]}")
def test_any_text_as_a_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = judged(Given(config=path), "config.*", "env.disk_space", "env.filesystem", "triage.*")
    refused = [finding for finding in found.findings if finding.check == "config.refused"]
    assert refused or "config.refused" in found.ran
    with contextlib.suppress(ChecklistError):
        read_checklist(path)


@WITHIN
@given(BYTES)
@example(pickle.dumps({"a": 1}))
@example(b"\x80\x04\x8c\x02os\x8c\x06system\x93.")
@example(b"PK\x05\x06" + b"\0" * 18)
def test_any_bytes_as_a_checkpoint(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(data)
    judged(Given(checkpoint=path), "checkpoint.*")


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


WHOLE = saved({"model": {"w": torch.ones(4)}, "step": 3, "config": {"a": 1}})


@WITHIN
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_byte_of_a_checkpoint_may_be_another(tmp_path: Path, position: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[position] ^= change
    (tmp_path / "c.pt").write_bytes(data)
    judged(Given(checkpoint=tmp_path / "c.pt"), "checkpoint.*")


ITEMS = st.recursive(
    VALUES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner))
)
NAMES = ["name", "patient", "n_samples", "events", "clipped", "gaps", "nonfinite", "clip_sigma", "source"]
RECORD = {
    "name": "a", "patient": "a", "n_samples": 256, "events": [], "interpolated": [], "clipped": [0.0] * 19,
    "amplitudes_uv": [1.0] * 19, "nonfinite": [], "gaps": [], "notes": [], "clip_sigma": 10.0, "source": "a.edf",
    "source_rate": 256.0, "source_hash": "x", "source_state": [1, 1, 1, 1], "preprocessing_hash": "h", "crc32": 1,
}  # fmt: skip


@WITHIN
@given(st.dictionaries(st.sampled_from(NAMES), ITEMS, max_size=2), BYTES)
@example({"n_samples": "many"}, b"")
@example({"name": "../../etc/passwd"}, b"")
@example({"events": [{"start_s": "a", "stop_s": None}]}, b"")
@example({"nonfinite": [{"electrode": "Fz", "first_s": 0, "count": "x"}]}, b"")
def test_any_values_in_the_index_of_a_cache(tmp_path: Path, changes: dict[str, object], data: bytes) -> None:
    from brainbrr.data.fingerprint import SCHEMA

    folder = tmp_path / "train"
    folder.mkdir(exist_ok=True)
    (folder / "a.npy").write_bytes(data)
    document = {"schema": SCHEMA, "preprocessing_hash": "h", "failures": [], "pending": []}
    text = json.dumps({**document, "recordings": [{**RECORD, **changes}]})
    (tmp_path / "train.json").write_text(text, encoding="utf-8")
    assert judged(Given(cache=tmp_path), "cache.*").findings


@WITHIN
@given(st.one_of(BYTES, ITEMS.map(lambda item: json.dumps(item).encode())))
def test_any_bytes_as_the_index_of_a_cache(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "train.json").write_bytes(data)
    assert judged(Given(cache=tmp_path), "cache.*").findings


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def array(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


@WITHIN
@given(st.one_of(BYTES, BYTES.map(lambda data: archive(windows=data))))
@example(archive(windows=array(np.array([{"a": 1}], dtype=object))))
@example(archive(windows=array(np.ones((2, 3), dtype=np.float32)), labels=array(np.array("x"))))
@example(archive(windows=array(np.ones((0, 3), dtype=np.float32))))
def test_any_bytes_as_a_foreign_cache(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a_s001.npz").write_bytes(data)
    judged(Given(cache=tmp_path), "cache.*")


@WITHIN
@given(st.one_of(BYTES, st.binary(min_size=256, max_size=700)))
def test_any_bytes_as_an_edf_header(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.edf"
    path.write_bytes(data)
    with contextlib.suppress(RecordingError):
        read_header(path)


CSV = b"# version = csv_v1.0.0\n# bname = a\n# duration = 9.0 secs\nchannel,start_time,stop_time,label,confidence\n"


@WITHIN
@given(st.one_of(BYTES, BYTES.map(lambda data: CSV + data)), st.sampled_from(["csv_bi", "csv", "tse", "tse_bi"]))
@example(CSV + b"TERM,1e999,nan,seiz,1\n", "csv_bi")
def test_any_bytes_as_labels(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data)
    with contextlib.suppress(LabelError):
        read_label_file(path)


@WITHIN
@given(BYTES)
def test_any_bytes_as_a_capture(tmp_path: Path, data: bytes) -> None:
    from brainbrr_debug.contents import contents_of

    path = tmp_path / "c.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + data if data[:1] > b"\x80" else data)
    with pytest.raises((DebugError, ValueError), match=r"c\.h5"):
        contents_of(path)


@WITHIN
@given(st.one_of(BYTES, ITEMS.map(lambda item: json.dumps({"step": 1, "readings": item}).encode())))
def test_any_lines_as_the_readings_of_a_run(tmp_path: Path, data: bytes) -> None:
    for name in ("readings.jsonl", "findings.jsonl", "outcome.json", "config.yaml"):
        (tmp_path / name).write_bytes(data if name != "config.yaml" else b"a: 1\n")
    judged(Given(run=tmp_path), "run.*")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff\xfe")])
def test_the_command_says_what_it_cannot_use(make: Callable[[Path], object], tmp_path: Path, capsys) -> None:
    from brainbrr_debug.cli import cli

    path = tmp_path / "thing"
    make(path)
    for option in ("--config", "--cache", "--checkpoint", "--run", "--checklist", "--baseline"):
        code = exit_code(cli, ["triage", option, str(path), "--select", "triage.*"])
        assert code in (0, 1, 2) and "Traceback" not in capsys.readouterr().err
