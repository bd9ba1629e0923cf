from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from brainbrr_debug.errors import UsageError
from brainbrr_debug.smoke.run import observe

PYTHON = shlex.quote(sys.executable)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_command_without_python_cannot_be_observed() -> None:
    with pytest.raises(UsageError, match="no Python process of 'echo hello' could be observed: hello"):
        observe("echo hello", limit_s=60)


def test_a_command_that_does_not_end_is_ended() -> None:
    with pytest.raises(UsageError, match="still running after 1 s; expected a short command"):
        observe(f"{PYTHON} -c 'import time; time.sleep(60)'", limit_s=1)


def test_a_command_that_fails_is_judged_by_what_it_did(elsewhere: Path) -> None:
    facts = observe(f'{PYTHON} -c \'open("x", "w").write("12"); raise SystemExit(3)\'', limit_s=60)
    assert facts.code == 3
    assert facts.written == {elsewhere / "x": 2}


def test_every_python_process_below_the_command_is_seen(elsewhere: Path) -> None:
    (elsewhere / "child.py").write_text("import tempfile; tempfile.mkdtemp(dir='.')")
    facts = observe(f"{PYTHON} -c 'import subprocess, sys; subprocess.run([sys.executable, \"child.py\"])'", limit_s=60)
    assert [path.parent for path in facts.left] == [elsewhere]


def test_a_sitecustomize_of_ones_own_still_runs(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "sitecustomize.py").write_text("open('ran', 'w').close()")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    observe(f"{PYTHON} -c pass", limit_s=60)
    assert (elsewhere / "ran").exists()
