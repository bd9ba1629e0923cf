from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brainbrr_debug.capture import CaptureContent, read_capture, restore, write_capture
from brainbrr_debug.errors import EXIT_CANNOT_TELL, EXIT_USAGE
from brainbrr_debug.records import Finding, Reading, Severity
from brainbrr_debug.rng import RngState
from brainbrr_debug.sealed import SCHEMA, SEAL, SEALED, CaptureError, NewerCaptureError, seal
from brainbrr_debug.subject import Run
from brainbrr_debug.tensors import leaves, to_bytes
from brainbrr_debug.training_state import StateError, collect_state


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 40), nn.BatchNorm1d(40), nn.Dropout(0.3), nn.Linear(40, 2))


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.8, 0.95))
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(6, 5)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def content(**changes: Any) -> CaptureContent:
    model, optimizer = trained()
    state = collect_state(model, optimizer, {}, dict(model.named_buffers()))
    values: dict[str, Any] = {
        "step": 6,
        "subject": "package.module:attribute",
        "seed": 42,
        "config": {"model": {"norm": False}, "lr": 1e-4, "nothing": None},
        "environment": {"torch": torch.__version__},
        "finding": Finding(check="run.nonfinite", severity=Severity.P0, message="NaN", commands=("next",)),
        "micro_batches": (((torch.randn(6, 5), {"mask": torch.ones(6, dtype=torch.bool)}), torch.zeros(6)),),
        "healthy_micro_batches": None,
        "identities": (({"recording": "aß", "start_s": 1.5},),),
        "healthy_identities": (),
        "model_state": state.model,
        "optimizer_state": state.optimizer,
        "extra_state": state.extra,
        "rng": RngState.take(),
        "readings": (Reading(step=6, phase="forward", site="", quantity="q", value=float("nan"), sample=1),),
        "expected": {"loss": 0.1},
    }
    return CaptureContent(**{**values, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "000006.h5", content())


def test_everything_comes_back(tmp_path: Path) -> None:
    given = content()
    found = read_capture(write_capture(tmp_path / "c.h5", given))
    for name in ("step", "subject", "seed", "config", "environment", "finding", "identities", "expected"):
        assert getattr(found, name) == getattr(given, name), name
    for name in ("micro_batches", "model_state", "optimizer_state"):
        before, after = list(leaves(getattr(given, name))), list(leaves(getattr(found, name)))
        assert len(before) == len(after) > 0
        for a, b in zip(before, after, strict=True):
            assert a.dtype == b.dtype and to_bytes(a).tobytes() == to_bytes(b).tobytes()
    assert found.optimizer_state["param_groups"] == given.optimizer_state["param_groups"]
    assert found.healthy_micro_batches is None
    assert np.isnan(found.readings[0].value) and found.readings[0].sample == 1
    found.rng.restore()
    first = torch.randn(4)
    given.rng.restore()
    assert torch.equal(first, torch.randn(4))


def test_a_person_can_look_into_it_with_other_tools(path: Path) -> None:
    with h5py.File(path) as file:
        names = list(file["tensors"])
        assert any(name.endswith("model_state.0.weight") for name in names)
        weight = next(file["tensors"][n] for n in names if n.endswith("model_state.0.weight"))
        assert weight.dtype == np.float32


def test_restoring_twice_gives_the_same_step_and_leaves_the_capture_alone(path: Path) -> None:
    captured = read_capture(path)

    def step() -> list[torch.Tensor]:
        model = network()
        run = Run(model, torch.optim.AdamW(model.parameters()), lambda a, b: a, ())
        assert restore(captured, run).exact
        (x, _), _ = captured.micro_batches[0]
        run.optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        run.optimizer.step()
        return [loss.detach(), *(p.detach() for p in model.parameters())]

    for a, b in zip(step(), step(), strict=True):
        assert torch.equal(a, b)


def test_modes_frozen_parameters_and_other_buffers_are_restored(tmp_path: Path) -> None:
    model, optimizer = trained()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model.register_buffer("steps", torch.tensor([7.0]), persistent=False)
    state = collect_state(model, optimizer, {}, {**dict(model.named_buffers()), "1.running_mean": torch.ones(40)})
    given = content(model_state=state.model, optimizer_state=state.optimizer, extra_state=state.extra)
    other = network()
    other.register_buffer("steps", torch.zeros(1), persistent=False)
    captured = read_capture(write_capture(tmp_path / "c.h5", given))
    restore(captured, Run(other, torch.optim.AdamW(other.parameters()), lambda a, b: a, ()))
    assert [m.training for m in other] == [True, False, True, True]
    assert not other[0].bias.requires_grad and other[0].weight.requires_grad
    assert float(other.steps) == 7.0 and torch.equal(other[1].running_mean, torch.ones(40))


def test_state_in_another_dtype_than_its_parameter_is_not_rounded(tmp_path: Path) -> None:
    model = nn.Linear(20, 2).to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    moment = torch.randn(2, 20)
    optimizer.state[model.weight]["momentum_buffer"] = moment
    state = collect_state(model, optimizer, {}, {})
    given = content(model_state=state.model, optimizer_state=state.optimizer, extra_state=state.extra)
    other = nn.Linear(20, 2).to(torch.bfloat16)
    run = Run(other, torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9), lambda a, b: a, ())
    restore(read_capture(write_capture(tmp_path / "c.h5", given)), run)
    assert torch.equal(run.optimizer.state[other.weight]["momentum_buffer"], moment)


def test_a_model_that_does_not_fit_is_refused_or_fitted_where_it_can_be(path: Path) -> None:
    other = nn.Sequential(nn.Linear(5, 40), nn.Linear(40, 3))
    run = Run(other, torch.optim.AdamW(other.parameters()), lambda a, b: a, ())
    with pytest.raises(
        StateError, match=r"does not fit: 2 tensors of the model are not in the capture \(first 1.weight"
    ):
        restore(read_capture(path), run)
    found = restore(read_capture(path), run, strict=False)
    assert found.missing == ("1.weight",) or "1.bias" in found.missing
    assert not found.exact and not found.optimizer
    assert torch.equal(other[0].weight, read_capture(path).model_state["0.weight"])


# Files that must be refused -----------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(CaptureError) as caught:
        read_capture(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text


def test_a_missing_a_foreign_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    assert "no such file; expected a capture" in refusal(tmp_path / "none.h5")
    (tmp_path / "x.h5").write_text("hello")
    assert "not an HDF5 file" in refusal(tmp_path / "x.h5")
    (tmp_path / "y.h5").touch()
    assert "not an HDF5 file" in refusal(tmp_path / "y.h5")
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file["data"] = [1, 2]
    assert "an HDF5 file of another kind" in refusal(tmp_path / "z.h5")


@functools.cache
def written() -> bytes:
    """A capture as bytes: small, and with every part in it."""
    with tempfile.TemporaryDirectory() as folder:
        return write_capture(
            Path(folder) / "c.h5", content(healthy_micro_batches=((("x",), torch.randn(40)),))
        ).read_bytes()


def same(a: CaptureContent, b: CaptureContent) -> bool:
    """Equal in everything that can be compared, tensors bit for bit."""
    for field in dataclasses.fields(CaptureContent):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if [to_bytes(t).tobytes() for t in leaves(x)] != [to_bytes(t).tobytes() for t in leaves(y)]:
            return False
    plain = ("step", "subject", "seed", "config", "environment", "finding", "identities", "expected")
    return all(getattr(a, name) == getattr(b, name) for name in plain)


@settings(max_examples=150)
@given(st.data())
def test_a_file_that_was_cut_anywhere_is_refused(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(written()) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.h5"
        path.write_bytes(written()[:length])
        text = refusal(path)
    assert "truncated or damaged" in text or "not an HDF5 file" in text or "another kind" in text


@settings(max_examples=120)
@given(st.data())
def test_a_file_in_which_any_byte_was_changed_is_refused_or_says_the_same(data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(written()) - 1))
    changed = bytearray(written())
    changed[offset] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path, clean = Path(folder) / "changed.h5", Path(folder) / "clean.h5"
        path.write_bytes(changed)
        if len(SEALED) + 8 <= offset < SEAL:
            clean.write_bytes(written())
            assert same(read_capture(path), read_capture(clean))  # nothing stands there
        else:
            refusal(path)


def test_values_tensors_and_names_that_someone_edited_are_noticed(path: Path, tmp_path: Path) -> None:
    def edited(name: str, edit: Any) -> str:
        shutil.copy(path, tmp_path / name)
        with h5py.File(tmp_path / name, "r+") as file:
            edit(file)
        seal(tmp_path / name)  # whoever edits on purpose can do that, too
        return refusal(tmp_path / name)

    def document(file: Any) -> None:
        text = file["document"][()].tobytes().replace(b'"seed": 42', b'"seed": 43')
        file["document"][...] = np.frombuffer(text, np.uint8)

    def value(file: Any) -> None:
        dataset = next(iter(file["tensors"].values()))
        dataset[(0,) * dataset.ndim] = 5

    def drop(file: Any) -> None:
        del file["tensors"][next(iter(file["tensors"]))]

    def add(file: Any) -> None:
        file["tensors"]["more"] = [1]

    assert "the document does not match its digest" in edited("a.h5", document)
    assert "fails its checksum" in edited("b.h5", value)
    assert "is missing" in edited("c.h5", drop)
    assert "'more' was added" in edited("d.h5", add)


def test_a_file_of_a_later_schema_says_so_and_has_its_own_exit_code(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = SCHEMA + 1
    seal(path)
    with pytest.raises(NewerCaptureError, match=f"has schema {SCHEMA + 1}, this version .* reads up to {SCHEMA}"):
        read_capture(path)
    assert (CaptureError.exit_code, NewerCaptureError.exit_code) == (EXIT_USAGE, EXIT_CANNOT_TELL)


def test_a_document_of_another_form_is_refused(path: Path) -> None:
    import hashlib

    text = json.dumps({"tensors": []}).encode()
    with h5py.File(path, "r+") as file:
        del file["document"], file["tensors"]
        file.create_group("tensors")
        file["document"] = np.frombuffer(text, np.uint8)
        file.attrs["digest"] = hashlib.blake2b(text, digest_size=16).hexdigest()
    seal(path)
    assert "its document does not have the form of schema 1" in refusal(path)


def test_what_is_not_plain_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"c\.h5: cannot be captured: micro_batches/0/0/0 is a builtins\.object"):
        write_capture(tmp_path / "c.h5", content(micro_batches=(((object(),), None),)))
    with pytest.raises(CaptureError, match=r"cannot be captured: object has no JSON form"):
        write_capture(tmp_path / "c.h5", content(config={"x": object()}))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CaptureError, match=r"cannot be written: .*"):
        write_capture(tmp_path / "file" / "c.h5", content())


def test_a_process_killed_while_writing_leaves_nothing_under_the_name(path: Path) -> None:
    code = (
        "import os, signal, sys, zlib\n"
        "from brainbrr_debug.capture import read_capture, write_capture\n"
        "content = read_capture(sys.argv[1])\n"
        "for module, name in ((zlib, 'crc32'), (os, 'fsync'), (os, 'replace')):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        setattr(module, name, lambda *args: os.kill(os.getpid(), signal.SIGKILL))\n"
        "        write_capture(sys.argv[2], content)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    target = path.parent / "new" / "000007.h5"
    command = [sys.executable, "-c", code, str(path), str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["-9"] * 3
    assert not target.exists() and not list(target.parent.glob("[0-9]*.h5"))


def test_a_frozen_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        content().step = 7  # type: ignore[misc]
