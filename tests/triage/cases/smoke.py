"""Short commands with and without a trap, each run for real under observation."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from brainbrr_debug.checks.given import Given
from brainbrr_debug.smoke.run import observe
from tests.triage.cases import Case

EVALUATION = """
import torch
model = torch.nn.Linear(64, 64).eval()
kept = []
with torch.no_grad():
    for _ in range(8):
        output = model(torch.randn(32, 64))
        kept.append({what})
"""


def command(program: str, **files: str) -> Callable[[Path], Given]:
    """A Python program in a folder of its own, with these files (by their stems, YAML or Markdown) beside it."""

    def make(folder: Path) -> Given:
        (folder / "program.py").write_text(program)
        for stem, text in files.items():
            (folder / (f"{stem}.md" if stem == "README" else f"{stem}.yaml")).write_text(text)
        before = Path.cwd()
        os.chdir(folder)
        try:
            facts = observe(f"{shlex.quote(sys.executable)} program.py", limit_s=120)
        finally:
            os.chdir(before)
        return Given(smoke="python program.py", known={"smoke_facts": facts})

    return make


def temporary(keeps: bool) -> str:
    opened = "tempfile.mkdtemp()" if keeps else "tempfile.TemporaryDirectory()"
    return f"import pathlib, tempfile\nfolder = {opened}\nname = getattr(folder, 'name', folder)\n" + (
        "pathlib.Path(name, 'a').write_text('a')\n" + ("" if keeps else "folder.cleanup()\n")
    )


WRITER = "import pathlib\npathlib.Path('scratch').mkdir()\npathlib.Path('scratch/x').write_bytes(bytes(2 << 20))\n"
LOADED = "import yaml\nwith open('config.yaml') as file:\n    config = yaml.safe_load(file)\n"
READER = LOADED + "print(config['a'], config['b']['c'])\n"
HANDED_ON = LOADED + "print(dict(**config['b']), config['a'])\n"

CASES = {
    "memory.eval_growth": Case(
        planted=command(EVALUATION.format(what="output")),
        healthy=command(EVALUATION.format(what="output.sum().item()")),
    ),
    "run.tempfiles": Case(planted=command(temporary(keeps=True)), healthy=command(temporary(keeps=False))),
    "run.writes": Case(
        planted=command(WRITER, README="Results go to runs/."), healthy=command(WRITER, README="It fills `scratch/`.")
    ),
    "config.unread": (
        Case(
            look="smoke",
            planted=command(READER, config="a: 1\nb: {c: 2, d: 3}\n"),
            healthy=command(READER, config="a: 1\nb: {c: 2}\n"),
        ),
        Case(
            look="smoke",
            planted=command(HANDED_ON, config="a: 1\nb: {c: 2}\nz: 4\n"),
            healthy=command(HANDED_ON, config="a: 1\nb: {c: 2, d: 3}\n"),
        ),
    ),
}
