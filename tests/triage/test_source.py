"""The checks over source together: a repository before and after an audit, what is said, what is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from brainbrr_debug.checks.given import Given
from brainbrr_debug.checks.registry import CHECKS, load
from brainbrr_debug.checks.source.index import read_source
from brainbrr_debug.records import Finding
from brainbrr_debug.triage.checklist import default_checklist
from brainbrr_debug.triage.run import examine

ROOT = Path(__file__).parents[2]
load()

BEFORE = {
    "pyproject.toml": """
        [project]
        name = "lesions"
        dependencies = ["torch", "optuna", "typer"]
        [project.scripts]
        lesions = "lesions.cli:app"
        """,
    "README.md": """
        Trials are pruned by ASHA. Downloads are kept in `~/.cache/huggingface/datasets`.

        ```bash
        uv run lesions evaluate --checkpoint best.pt
        lesions export best.pt
        ```
        """,
    "src/lesions/config.py": """
        from dataclasses import dataclass

        @dataclass
        class TrainConfig:
            epochs: int = 50
            use_gradient_checkpointing: bool = False
        """,
    "src/lesions/data.py": """
        import tempfile
        from pathlib import Path

        class Volumes:
            def __init__(self, paths, cache_dir=None):
                self.paths, self.cache_dir = paths, cache_dir

        def fetch(raw, out):
            cache_dir = Path(out) / "nifti_cache"
            file = tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False)
            file.write(raw)
            return file.name, cache_dir

        def intact(path):
            try:
                read(path)
            except Exception:
                return True
            return True
        """,
    "src/lesions/run.py": """
        import torch
        from lesions.data import Volumes

        def train(config, paths, cache):
            return Volumes(paths, cache_dir=cache), config.epochs

        @torch.no_grad()
        def validate(model, loader):
            predictions = []
            for images, masks in loader:
                predictions.append(model(images).argmax(1).cpu())
            return torch.cat(predictions)
        """,
    "src/lesions/search.py": """
        import optuna
        from lesions.data import Volumes

        def search(paths):
            Volumes(paths)
            return optuna.create_study(pruner=optuna.pruners.MedianPruner())
        """,
    "src/lesions/cli.py": """
        import typer
        app = typer.Typer()

        @app.command()
        def evaluate(checkpoint: str = typer.Argument(...)): ...

        @app.command()
        def train(config: str = "c.yaml"): ...
        """,
}
AFTER = BEFORE | {
    "README.md": """
        Trials are pruned by ASHA. Volumes are kept in `data/nifti_cache`; with `load_dataset` itself, in
        `~/.cache/huggingface/datasets`.

        ```bash
        uv run lesions evaluate best.pt
        lesions train --config c.yaml
        ```
        """,
    "src/lesions/config.py": """
        from dataclasses import dataclass

        @dataclass
        class TrainConfig:
            epochs: int = 50
        """,
    "src/lesions/data.py": """
        import logging
        import tempfile
        from pathlib import Path

        class Volumes:
            def __init__(self, paths, cache_dir=None):
                self.paths, self.cache_dir = paths, cache_dir

        def fetch(raw, out):
            cache_dir = Path(out) / "nifti_cache"
            with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
                file.write(raw)
            Path(file.name).replace(cache_dir / "a.nii.gz")
            return cache_dir

        def intact(path):
            try:
                read(path)
            except Exception as error:
                logging.warning("%s cannot be read: %s", path, error)
                return False
            return True
        """,
    "src/lesions/run.py": """
        import torch
        from lesions.data import Volumes

        def train(config, paths, cache):
            return Volumes(paths, cache_dir=cache), config.epochs

        @torch.no_grad()
        def validate(model, loader):
            scores = []
            for images, masks in loader:
                predicted = model(images).argmax(1)
                scores.extend(dice(p, m) for p, m in zip(predicted, masks))
            return torch.tensor(scores).mean().item()
        """,
    "src/lesions/search.py": """
        import optuna
        from lesions.data import Volumes

        def search(paths, cache):
            Volumes(paths, cache_dir=cache)
            return optuna.create_study(pruner=optuna.pruners.SuccessiveHalvingPruner())
        """,
}


def write(files: dict[str, str], root: Path) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip(), encoding="utf-8")
    return root


def everything(root: Path) -> list[Finding]:
    given = Given(source=root, settings=default_checklist().settings)
    looks = [(check, look) for check in CHECKS.values() for look in check.looks if look.needs == ("source",)]
    return [finding for check, look in looks for finding in examine(check, look, given)]


def test_the_eight_audited_faults_are_found_before_and_none_after(tmp_path: Path) -> None:
    before = everything(write(BEFORE, tmp_path / "before"))
    assert {(f.check, f.file) for f in before} == {
        ("config.unread", "src/lesions/config.py"),
        ("docs.cli", "README.md"),
        ("docs.paths", "README.md"),
        ("docs.paths", "src/lesions/data.py"),
        ("source.call_drift", "src/lesions/search.py"),
        ("source.claims", "src/lesions/search.py"),
        ("source.eval_growth", "src/lesions/run.py"),
        ("source.swallow", "src/lesions/data.py"),
        ("source.tempfiles", "src/lesions/data.py"),
    }
    assert everything(write(AFTER, tmp_path / "after")) == []


def test_a_finding_names_its_line_and_what_to_write(tmp_path: Path) -> None:
    found = {f.message: f for f in everything(write(BEFORE, tmp_path)) if f.check == "docs.cli"}
    option = found["`lesions evaluate` has no option --checkpoint: checkpoint is an argument"]
    assert (option.file, option.line, option.remedy) == ("README.md", 4, "write it without --checkpoint")
    assert found["`lesions` has no command export"].remedy == "write one of evaluate, train"


def test_what_does_not_parse_is_said_and_the_rest_is_judged(tmp_path: Path) -> None:
    write({"a.py": "try:\n    f()\nexcept:\n    pass\n", "b.py": "def f(:\n", "c.py": "x = '\0'\n"}, tmp_path)
    given = Given(source=tmp_path)
    assert len(examine(CHECKS["source.swallow"], CHECKS["source.swallow"].looks[0], given)) == 1
    assert [note.split(" (")[0] for note in given.notes] == [
        "not judged, it does not parse: b.py",
        "not judged, it does not parse: c.py",
    ]


def test_environments_builds_and_other_peoples_code_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "mine" / "pyvenv.cfg").parent.mkdir()
    (tmp_path / "mine" / "pyvenv.cfg").touch()
    for folder in ("mine/lib", ".hidden", "build", "third_party/x", "a.egg-info", "tests", "src/kit", "old"):
        write({f"{folder}/a.py": "x = 1\n"}, tmp_path)
    assert [f.path for f in read_source(tmp_path, ["old"]).python] == ["src/kit/a.py", "tests/a.py"]


def test_a_triage_of_source_imports_no_torch(tmp_path: Path) -> None:
    write(BEFORE, tmp_path)
    code = (
        "import sys\nfrom brainbrr_debug.cli import cli\n"
        f"cli.main(['triage', '--source', {str(tmp_path)!r}, '--format', 'json'], standalone_mode=False)\n"
        "sys.stderr.write(repr({'torch', 'numpy', 'lesions'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.endswith("set()")
    assert len(json.loads(done.stdout)["findings"]) >= 10
