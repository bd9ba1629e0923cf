"""`brainbrr-debug capture`: what a capture holds, and a copy of it without the data of people."""

from __future__ import annotations

import dataclasses
import functools
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brainbrr_debug.capture import CaptureContent, is_stripped, read_capture, write_capture
from brainbrr_debug.cli import cli
from brainbrr_debug.environment import describe_environment
from brainbrr_debug.lead import LeadStep
from brainbrr_debug.main import exit_code
from brainbrr_debug.records import Finding, Reading, Severity
from brainbrr_debug.rng import RngState
from brainbrr_debug.strip import KEPT, REMOVED, without_signal
from brainbrr_debug.tensors import leaves, to_bytes
from brainbrr_debug.training_state import collect_state

SECRETS = ("aaaaaaac_s001", "Mustermann", "/home/mmustermann", "hospital-07", "night.edf", "19580312", "ward 3")


def batch(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(3, 4, 50, generator=generator)
    extras = {"mask": torch.ones(3, dtype=torch.bool), "recording": ["aaaaaaac_s001"], "aaaaaaac_s001": 19580312}
    return (signal, extras), torch.randn(3, 50, generator=generator)


def identity(index: int) -> dict[str, Any]:
    return {"recording": "aaaaaaac_s001", "patient": "Mustermann", "start_s": 10.0 * index}


def content() -> CaptureContent:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 8), nn.BatchNorm1d(4), nn.Linear(8, 1))
    model.register_buffer("recent", batch(1)[0][0], persistent=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(batch(1)[0][0]).mean().backward()
    optimizer.step()
    state = collect_state(model, optimizer, {}, dict(model.named_buffers()))
    return CaptureContent(
        step=7,
        subject="package.module:Subject",
        seed=42,
        config={
            "data": {"root": "/home/mmustermann/eeg", "recordings": ["aaaaaaac_s001"], "patients": [19580312]},
            "model": {"norm": True, "width": 8, "dropout": 0.1},
            "folds": {"aaaaaaac_s001": 3},
        },
        environment={
            **describe_environment(),
            "command": ["train", "/home/mmustermann/x.yaml"],
            "variables": {"PATH": "/home/mmustermann"},
            "host": "hospital-07",
        },
        finding=Finding(
            check="run.nonfinite",
            severity=Severity.P0,
            message="step 7: loss not finite in night.edf of Mustermann",
            where="0.weight",
            step=7,
            evidence={
                "nonfinite": ["loss"],
                "losses": [float("nan")],
                "gradient_nonfinite": ["0.weight"],
                "exception": "ValueError: night.edf has no channel",
                "degenerate": [
                    {"site": "0", "gap": 0.0, "location": "/home/mmustermann/net.py:3", "identity": identity(0)}
                ],
                "patient": "Mustermann",
            },
            why="ward 3",
            remedy="call ward 3",
            commands=("brainbrr-debug bisect /home/mmustermann/000007.h5",),
        ),
        micro_batches=(batch(2),),
        healthy_micro_batches=(batch(3),),
        identities=(tuple(identity(i) for i in range(3)),),
        healthy_identities=(tuple(identity(i) for i in range(3)),),
        model_state=state.model,
        optimizer_state=state.optimizer,
        extra_state={**state.extra, "sampler": {"order": torch.arange(20), "file": "night.edf", "seen": 3}},
        rng=RngState.take(),
        readings=(Reading(step=7, phase="forward", site="0", quantity="q", value=1.5),),
        expected={"loss": 0.5, "losses": [0.5], "gradient_digest": "ab" * 32, "gradients": {"0.weight": None}},
        lead_in=(
            LeadStep(
                step=6,
                micro_batches=(batch(4),),
                identities=((identity(0),),),
                rng=RngState.take(),
                groups=[{"lr": 1e-3}],
                updated=True,
            ),
        ),
    )


base = functools.cache(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "000007.h5", content())


def command(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = exit_code(cli, [str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_says_what_a_capture_holds(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "capture", path)
    assert (code, err) == (0, "")
    for line in (
        "every checksum holds, whole",
        "step       7  seed 42  package.module:Subject",
        "finding    P0 run.nonfinite  step 7: loss not finite",
        "holds      model_state                9 tensors",
        "batch      captured  0  [0][0]          float32  [3, 4, 50]",
        "batch      captured  0  [0][1]['mask']  bool     [3]",
        "sample     0  recording aaaaaaac_s001, patient Mustermann, start_s 0.0",
        f"made with  torch {torch.__version__}, threads 1",
    ):
        assert line in out
    code, out, _ = command(capsys, "capture", path, "--format", "json")
    document = json.loads(out)
    assert document["verified"] and not document["stripped"] and document["lead_in"] == [6]
    assert document["identities"][0][2]["start_s"] == 20.0 and document["bytes"] == path.stat().st_size
    sizes = {part["name"]: part["bytes"] for part in document["parts"]}
    assert sizes["micro_batches"] == 3 * 4 * 50 * 4 + 3 + 3 * 50 * 4


def test_a_damaged_capture_is_said_to_be_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    code, out, err = command(capsys, "capture", path)
    assert (code, out) == (2, "") and "changed since it was written" in err


def test_a_copy_without_signal_holds_nothing_of_the_people(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.h5"
    code, out, err = command(capsys, "capture", path, "--strip-signal", copy)
    assert code == 0 and err == f"Wrote {copy}\n"
    for line in (*KEPT, *REMOVED, "copy without signal"):
        assert line in out
    data = copy.read_bytes()
    for secret in SECRETS:
        assert secret.encode() not in data and secret not in out
    for here in (str(Path.home()), str(tmp_path), socket.gethostname()):
        assert here.encode() not in data
    whole = read_capture(path)
    tensors = [
        *leaves(whole.micro_batches),
        *leaves(whole.healthy_micro_batches),
        *leaves(whole.lead_in[0].micro_batches),
    ]
    moments = [x for x in leaves(whole.optimizer_state) if x.dim()]
    for x in (*tensors, *moments, whole.extra_state["<model>"]["buffers"]["recent"]):
        if x.numel() > 8 and x.count_nonzero():
            assert to_bytes(x).tobytes()[:32] not in data


def test_a_copy_without_signal_keeps_what_is_listed(path: Path) -> None:
    whole, copy = read_capture(path), without_signal(read_capture(path))
    assert (copy.step, copy.seed, copy.subject) == (7, 42, "package.module:Subject")
    assert copy.model_state.keys() == whole.model_state.keys()
    for name, x in whole.model_state.items():
        assert torch.equal(x, copy.model_state[name])
    for before, after in zip(leaves(whole.micro_batches), leaves(copy.micro_batches), strict=True):
        assert (before.shape, before.dtype, before.stride()) == (after.shape, after.dtype, after.stride())
    assert copy.config["model"] == {"norm": True, "width": 8, "dropout": 0.1}
    assert copy.config["data"] == {
        "root": "<removed>",
        "recordings": "<removed>",
        "patients": "<removed>",
    }
    assert copy.config["folds"] == {"<key 0>": 3}
    assert copy.environment["torch"] == torch.__version__ and "host" not in copy.environment
    evidence = copy.finding.evidence
    assert evidence["gradient_nonfinite"] == ["0.weight"] and evidence["exception"] == "ValueError"
    assert evidence["degenerate"] == [{"site": "0", "gap": 0.0, "location": "net.py:3"}]
    assert copy.finding.where == "0.weight" and copy.finding.message.startswith("step 7: loss not finite (")
    assert copy.expected["loss"] == 0.5 and copy.expected["gradient_digest"] == "<removed>"
    assert copy.optimizer_state["param_groups"][0]["lr"] == 1e-3 and copy.extra_state["sampler"]["seen"] == 3
    assert copy.readings == whole.readings and copy.identities == ()


MARK = "s001_t07"  # no name that a programmer gives has this form
PLAIN = st.recursive(
    st.sampled_from([MARK, f"/data/{MARK}.edf", 1.5, 3, True, None, [MARK, 17], (MARK,)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["root", "lr", MARK, f"{MARK}.edf", "two words", 17]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(["root", MARK]), PLAIN), st.dictionaries(st.just(MARK), PLAIN))
def test_no_name_of_a_recording_survives_wherever_it_stood(tree: dict[str, Any], other: dict[str, Any]) -> None:
    whole = base()
    names = ("config", "optimizer_state", "extra_state", "expected")
    stripped = without_signal(
        dataclasses.replace(
            whole,
            **dict.fromkeys(names, tree),
            environment={**whole.environment, **other},
            micro_batches=(((tree,), tree),),
            finding=dataclasses.replace(whole.finding, evidence={**other, "extra": tree}, where=MARK),
            identities=((tree,),),
        )
    )
    fields = (*names, "environment", "micro_batches", "finding", "identities")
    assert MARK not in "".join(repr(getattr(stripped, name)) for name in fields)
    assert "17" not in repr((stripped.config, stripped.micro_batches))


def test_a_stripped_copy_comes_back_from_its_file_and_can_be_stripped_again(path: Path, tmp_path: Path) -> None:
    once = without_signal(read_capture(path))
    back = read_capture(write_capture(tmp_path / "once.h5", once))
    assert is_stripped(back) and not is_stripped(read_capture(path))
    twice = read_capture(write_capture(tmp_path / "twice.h5", without_signal(back)))
    assert twice.config == back.config and twice.finding == back.finding and twice.expected == back.expected
    assert [x.shape for x in leaves(twice.micro_batches)] == [x.shape for x in leaves(once.micro_batches)]


# The detector is built from a configuration, whose text is gone as well: that must not be what is said.
@pytest.mark.parametrize("subject", ["toy_subjects:TieSubject", "brainbrr_debug.subjects.brainbrr:DetectorSubject"])
@pytest.mark.parametrize("name", ["replay", "bisect", "diagnose", "spectrum"])
def test_a_stripped_copy_cannot_be_run_and_says_why(
    name: str, subject: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    stripped = without_signal(dataclasses.replace(content(), subject=subject))
    path = write_capture(tmp_path / "copy.h5", dataclasses.replace(stripped, config={"model": {"tcn": "<removed>"}}))
    code, out, err = command(capsys, name, path)
    assert (code, out) == (125, "") and "this copy was made with --strip-signal" in err and err.count("\n") == 1


def test_every_field_of_a_capture_has_its_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Grown(CaptureContent):
        notes: str = "Mustermann"

    grown = Grown(**{f.name: getattr(content(), f.name) for f in dataclasses.fields(CaptureContent)})
    with pytest.raises(KeyError, match="notes"):
        without_signal(grown)


def test_nothing_is_overwritten_unasked(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_text("mine")
    code, _, err = command(capsys, "capture", path, "--strip-signal", copy)
    assert code == 2 and f"{copy} exists" in err and copy.read_text() == "mine"
    assert command(capsys, "capture", path, "--strip-signal", copy, "--force")[0] == 0
    before = path.read_bytes()
    code, _, err = command(capsys, "capture", path, "--strip-signal", path, "--force")
    assert code == 2 and "is the capture itself" in err and path.read_bytes() == before
