"""The tutorial, block by block, as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?P<before>(?:[^\n]+\n)*)\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def run(command: list[str], place: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_every_block_does_what_the_text_says(tmp_path: Path) -> None:
    said = ""
    for block in BLOCK.finditer(TUTORIAL.read_text()):
        code = block["code"]
        if name := re.search(r"Save this as `([\w.]+)`", block["before"]):
            (tmp_path / name[1]).write_text(code)
        elif block["language"] == "sh":
            said += run(["bash", "-euc", code], tmp_path)
        elif block["language"] == "python":
            said += run([sys.executable, "-W", "error", "-c", code], tmp_path)
    assert {"small.yaml", "toy.py", "events.tsv", "runs"} <= {path.name for path in tmp_path.iterdir()}
    assert re.search(r"\d seizures, 46080 probabilities\n", said)
    assert "sensitivity" in said and "OVLP" in said.upper()
    assert "aten::sqrt" in said and "toy.py:" in said  # the operation and its line
    assert "batch-3" in said and "necessary" in said
