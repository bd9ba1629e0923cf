"""The house rules that a reader relies on, held by the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for package in ("brainbrr", "brainbrr_debug") for path in (ROOT / package).rglob("*.py"))
NAMES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}
LIGHT = [
    "records", "rundir", "search", "report.text", "report.html", "report.machine", "cli", "main", "checks.registry",
    "triage.run", "triage.page",
]  # fmt: skip
BROAD_EXCEPT_SEAMS = {
    "brainbrr_debug/main.py",  # CLI main: an internal error becomes exit code 3
    "brainbrr_debug/watch.py",  # hook callback: an observer that crashes is a finding
    "brainbrr_debug/jobs.py",  # a trial: whatever somebody else's program raises is its outcome
    "brainbrr_debug/workers.py",  # an executor: what it says of a worker that it lost is an outcome
    "brainbrr_debug/origin.py",  # somebody else's step: raised again unless a non-finite value caused it
    "brainbrr_debug/tracing/reenactment.py",  # the same step, replayed
    "brainbrr_debug/triage/run.py",  # check runner: a check that crashes is a result
}
TERMINALS = {"brainbrr_debug/cli.py", "brainbrr_debug/main.py", "brainbrr/__main__.py"}


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Every module that the file names in an import, relative ones resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(ROOT).parent.parts
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*prefix, *(node.module or "").split("."))).strip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_only_the_command_line_of_the_detector_knows_the_debugger() -> None:
    offenders = {
        relative(path)
        for path in FILES
        if relative(path).startswith("brainbrr/") and any(n.split(".")[0] == "brainbrr_debug" for n in imports(path))
    }
    assert all(name.startswith("brainbrr/cli/") for name in offenders)


def test_only_the_subjects_folder_of_the_debugger_knows_the_detector() -> None:
    offenders = {
        relative(path)
        for path in FILES
        if relative(path).startswith("brainbrr_debug/") and any(n.split(".")[0] == "brainbrr" for n in imports(path))
    }
    assert all(name.startswith("brainbrr_debug/subjects/") for name in offenders)


def test_no_cycles() -> None:
    graph = {
        name: {found for found in imports(path, top_level_only=True) if found in NAMES and found != name}
        for name, path in NAMES.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("module", LIGHT)
def test_what_needs_no_tensors_imports_no_torch(module: str) -> None:
    code = f"import sys, brainbrr_debug.{module}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.split()[0] == "False"


@pytest.mark.parametrize("command", ["brainbrr", "brainbrr_debug"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys; from {command}.cli import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "for name in cli.commands: cli.main([name, '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'scipy', 'mne', 'pydantic', 'rich', 'h5py', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr


def test_only_command_lines_print_or_exit() -> None:
    offenders = []
    for path in FILES:
        if relative(path) in TERMINALS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("print", "exit", "sys.exit", "os._exit", "click.echo"):
                    offenders.append(f"{relative(path)}:{node.lineno} {called}")
    assert offenders == []


def test_broad_excepts_stand_at_the_seams_only() -> None:
    offenders = [
        f"{relative(path)}:{node.lineno}"
        for path in FILES
        if relative(path) not in BROAD_EXCEPT_SEAMS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    ]
    assert offenders == []


def test_nothing_is_unpickled() -> None:
    offenders = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
                if called in ("pickle.load", "pickle.loads") or (called == "torch.load" and not safe):
                    offenders.append(f"{relative(path)}:{node.lineno}")
                if called in ("np.load", "numpy.load") and any(
                    k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords
                ):
                    offenders.append(f"{relative(path)}:{node.lineno}")
    assert offenders == []


def test_files_are_named_for_what_they_hold() -> None:
    assert not [relative(p) for p in FILES if p.stem in {"utils", "helpers", "misc", "common", "util"}]


def test_files_stay_small() -> None:
    long = {relative(p): n for p in FILES if (n := p.read_text(encoding="utf-8").count("\n")) > 400}
    assert long == {}
