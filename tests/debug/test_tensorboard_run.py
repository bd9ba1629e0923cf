"""A run directory in TensorBoard: what was read, found and concluded can be read back."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brainbrr_debug.errors import UsageError
from brainbrr_debug.integrations import tensorboard
from brainbrr_debug.integrations.tensorboard import FOLDER, log_run
from brainbrr_debug.records import Finding, Origin, Reading, Severity, Verdict
from brainbrr_debug.rundir import RunDir, RunDirError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own imports

ORIGIN = Origin(
    healthy=False, step=1, phase="backward", module="pe", op="aten::_linalg_eigh", kind="nan", location="m.py:3",
    mechanism="repeated-eigenvalue",
)  # fmt: skip
VERDICT = Verdict(
    question="why?", step=1, component="pe", origin=ORIGIN, samples=(), cause="batch", necessary=True, sufficient=True,
    stable={"k": 8, "n": 8}, replay={"reproduced": 3, "of": 3}, mechanism="repeated-eigenvalue", repairs=(), trials=3,
    seconds=1.0, sentence="It is the eigenvectors.",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir.at(tmp_path / "run")
    for step, (loss, gap) in enumerate([(0.5, 1e-3), (math.nan, 1e-9)]):
        run.append_readings(
            step,
            [
                Reading(step=step, phase="forward", site="<loss>", quantity="loss", value=loss),
                Reading(step=step, phase="backward", site="pe", quantity="eigengap", value=gap, sample=2),
                Reading(step=step, phase="backward", site="", quantity="gradient.norm", value=1.0),
            ],
        )
    run.append_finding(Finding(check="run.nonfinite", severity=Severity.P0, message="step 1: <b>", step=1, why="so"))
    run.write_verdict(VERDICT.to_dict())
    return run


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_readings_findings_and_verdicts_can_be_read_back(run: RunDir) -> None:
    pytest.importorskip("tensorboard")
    path = log_run(run)
    found = events(run.path / FOLDER)
    assert set(found.Tags()["scalars"]) == {
        "loss/forward/<loss>", "eigengap/backward/pe", "gradient.norm/backward/model",
    }  # fmt: skip
    assert [(e.step, e.value) for e in found.Scalars("eigengap/backward/pe")] == [
        (0, pytest.approx(1e-3)), (1, pytest.approx(1e-9)),
    ]  # fmt: skip
    first, second = found.Scalars("loss/forward/<loss>")
    assert first.value == 0.5 and math.isnan(second.value) and first.wall_time > 1e9
    (finding,) = found.Tensors("finding/run.nonfinite")
    assert finding.step == 1 and finding.tensor_proto.string_val[0] == b"    P0 step 1: <b>\n    \n    so"
    (verdict,) = found.Tensors("verdict/0")
    told = verdict.tensor_proto.string_val[0].decode()
    assert told.startswith("    Step 1 failed in pe") and told.endswith("    It is the eigenvectors.")
    assert path.parent == run.path / "tensorboard" / "watch"


def test_the_file_is_the_same_bytes_again_and_alone(run: RunDir) -> None:
    pytest.importorskip("tensorboard")
    before = log_run(run).read_bytes()
    assert log_run(run).read_bytes() == before
    assert len(list((run.path / FOLDER).iterdir())) == 1


def test_an_empty_run_and_a_broken_verdict(tmp_path: Path, run: RunDir) -> None:
    pytest.importorskip("tensorboard")
    assert log_run(RunDir.at(tmp_path / "empty")).exists()
    (run.verdicts / "000000.json").write_text("{")
    with pytest.raises(RunDirError, match=r"000000\.json: cannot be read"):
        log_run(run)
    assert not (run.path / FOLDER).exists() or not list((run.path / FOLDER).iterdir())


def test_a_missing_package_names_the_extra(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "installed", lambda: False)
    with pytest.raises(UsageError, match=r"TensorBoard is not installed; pip install 'brainbrr\[tensorboard\]'"):
        log_run(run)


def test_no_torch_is_needed(run: RunDir) -> None:
    pytest.importorskip("tensorboard")
    code = (
        "import sys\nfrom pathlib import Path\nfrom brainbrr_debug.rundir import RunDir\n"
        "from brainbrr_debug.integrations.tensorboard import log_run\n"
        f"log_run(RunDir.open(Path({str(run.path)!r})))\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
