"""Checks over documents and requirements, against the source of small repositories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brainbrr_debug.checks.given import Given
from tests.triage.cases.source import pair, repository

_SCRIPTS = '[project]\nname = "kit"\n[project.scripts]\nkit = "kit.cli:{entry}"\n'
_TYPER = """
from pathlib import Path
from typing import Annotated
import typer
app = typer.Typer()

@app.command()
def evaluate(
    checkpoint_path: Annotated[Path, typer.Argument(help="what")],
    device: str = typer.Option("cpu", "--device", "-d"),
):
    ...

@app.command("train")
def fit(config: Path = None, dry_run: bool = False, folds: list[int] = typer.Option([])):
    ...
"""
_CLICK = """
import click
SEED = click.option("--seed", type=int)

def shared(function):
    return click.option("--format", "form")(function)

@click.group()
def cli(): ...

@cli.command()
@click.argument("capture")
@click.option("--times", default=3)
@click.option("--loud/--quiet")
@SEED
@shared
def replay(capture, times, loud, seed, form): ...

@click.command("show-all")
@click.argument("runs", nargs=-1)
def show(runs): ...

cli.add_command(show)
"""
_ARGPARSE = """
import argparse

def add(parser):
    parser.add_argument("--learning-rate", "-l", type=float)

def build():
    parser = argparse.ArgumentParser()
    add(parser)
    sub = parser.add_subparsers()
    run = sub.add_parser("run")
    run.add_argument("config")
    run.add_argument("--set", nargs="*")
    run.add_argument("--fast", action="store_true")
    return parser

def main():
    args = build().parse_args()

if __name__ == "__main__":
    main()
"""


def typer(document: str) -> Callable[[Path], Given]:
    return repository(pyproject_toml=_SCRIPTS.format(entry="app"), src__kit__cli_py=_TYPER, README_md=document)


def click(document: str) -> Callable[[Path], Given]:
    return repository(pyproject_toml=_SCRIPTS.format(entry="cli"), kit__cli_py=_CLICK, README_md=document)


def argparse(document: str) -> Callable[[Path], Given]:
    return repository(tools__run_py=_ARGPARSE, README_md=document)


def block(*lines: str, language: str = "bash") -> str:
    return "\n".join((f"```{language}", *lines, "```", ""))


CLI = (
    pair(
        typer(block("kit evaluate --checkpoint best.pt", "uv run kit export best.pt")),
        typer(
            block(
                "kit evaluate best.pt -d cuda", "$ uv run kit evaluate best.pt --device cpu  # quick", "ls --checkpoint"
            )
        ),
        finds=2,
    ),
    pair(
        typer(block("kit train --dry-run \\", "    --max-epochs 3", language="sh")),
        typer(block("kit train --no-dry-run --folds 1 --folds 2 \\", "    --config c.yaml", language="sh")),
    ),
    pair(
        typer(block("CUDA_VISIBLE_DEVICES=0 kit evaluate")),
        typer(block("kit evaluate --help", "kit evaluate <checkpoint>", "kit evaluate $CHECKPOINT | tee log")),
    ),
    pair(
        click(block("kit replay run.h5 --time 3", language="console")),
        click(
            block(
                "kit replay run.h5 --times=3 --quiet --seed 1 --format json && kit show-all a b c", language="console"
            )
        ),
    ),
    pair(
        click(block("kit repeat run.h5")),
        click(block("$ kit repeat run.h5", "Error: No such command 'repeat'.") + "`kit repeat` was never written.\n"),
    ),
    pair(
        click(block("kit replay one.h5 two.h5")),
        click(block("kit repeat run.h5", language="python") + "```text\nkit\n```\n"),
    ),
    pair(
        argparse(block("python tools/run.py --lerning-rate 1 run c.yaml")),
        argparse(block("python tools/run.py --learning 1 run c.yaml --set a=1 b=2 --fast > log.txt")),
    ),
    pair(
        argparse(block("cd tools", "python3 run.py runs c.yaml")),
        argparse(block("python -u tools/run.py -l 0.1 run {config} [--fast]", "python other/run.py --unknown")),
    ),
    pair(
        repository(tools__run_py=_ARGPARSE, Makefile="train:\n\t$(PYTHON) tools/run.py run c.yaml --slow\n"),
        repository(tools__run_py=_ARGPARSE, Makefile="train:\n\t@$(BIN)/python tools/run.py run $(CONFIG) --fast\n"),
    ),
    pair(
        repository(tools__run_py=_ARGPARSE, run_sh="for c in *.yaml; do\n  python tools/run.py run $c --slow\ndone\n"),
        repository(
            tools__run_py=_ARGPARSE.replace("parse_args()", "parse_known_args()[0]"),
            run_sh='python tools/run.py "$@" --slow --set $(ls *.yaml)\n',
        ),
    ),
    pair(
        repository(
            tools__run_py=_ARGPARSE, docs__a_rst="Run::\n\n    python tools/run.py run c.yaml --slow\n\nDone.\n"
        ),
        repository(
            tools__run_py=_ARGPARSE,
            CHANGELOG_md=block("python tools/run.py run c.yaml --slow"),
            docs__a_rst="Run::\n\n    python tools/run.py run c.yaml --fast\n\npython tools/run.py --slow is gone.\n",
        ),
    ),
    pair(  # an abbreviation is taken, also behind one dash; a line goes on, shown without a backslash; placeholders
        argparse(block("python tools/run.py -learn 1 run --slow c.yaml", "python tools/run.py run")),
        repository(
            tools__run_py=_ARGPARSE.replace('"--learning-rate", "-l"', '"-learning_rate"'),
            README_md=block(
                "python tools/run.py run <(cut -d' ' -f1 c)",
                "python tools/run.py -learn 1 run",
                "    c.yaml --fast",
                "python tools/run.py [--options] run c",
            )
            + block(),
        ),
    ),
    pair(  # what another module does to the subcommands is not known
        argparse(block("python tools/run.py run c.yaml -v")),
        repository(
            tools__run_py=_ARGPARSE.replace(
                "    return parser", "    for part in PARTS:\n        part.join(sub)\n    return parser"
            ),
            README_md=block("python tools/run.py show c.yaml -v"),
        ),
    ),
    pair(  # the nearest program of that path is meant; one of which no option is known is another's
        repository(
            tools__run_py=_ARGPARSE, part__docs__a_md=block("python tools/run.py --fine --learning-rate 1 run c")
        ),
        repository(
            tools__run_py=_ARGPARSE,
            part__tools__run_py=_ARGPARSE.replace('"--learning-rate"', '"--fine"'),
            part__docs__a_md=block("python tools/run.py --fine 1 run c.yaml"),
            README_md=block("git clone them && cd them", "python tools/run.py --rate 1 --epochs 3"),
        ),
    ),
    pair(
        click(block("kit replay run.h5 --times 3 4")),
        repository(
            pyproject_toml=_SCRIPTS.format(entry="cli"),
            kit__cli_py=_CLICK.replace('"--times", default=3', '"--times", type=(int, str)'),
            README_md=block("kit replay run.h5 --times 3 x"),
        ),
    ),
    pair(  # the rest belongs to another program
        argparse(block("python tools/run.py run c.yaml --slow")),
        repository(
            tools__run_py=_ARGPARSE.replace('"--set", nargs="*"', '"rest", nargs=argparse.REMAINDER'),
            README_md=block("python tools/run.py run c.yaml other.py --slow"),
        ),
    ),
    pair(
        repository(
            tools__run_py=_ARGPARSE.replace("args = build().parse_args()", "p = None or build()\n    p.parse_args()"),
            README_md=block("python tools/run.py -v"),
        ),
        repository(
            tools__run_py=_ARGPARSE.replace(
                "args = build().parse_args()", "p = None or build()\n    p.parse_known_args()"
            ),
            README_md=block("python tools/run.py -v"),
        ),
    ),
)

_LOADER = (
    "from pathlib import Path\ndef load(out):\n    cache_dir = Path(out) / 'nifti_cache'\n"
    "    return fetch(cache_dir=cache_dir)\n"
)
PATHS = (
    pair(
        repository(data_py=_LOADER, README_md="Downloads lie in `~/.cache/huggingface/datasets`.\n"),
        repository(
            data_py=_LOADER,
            README_md="Volumes lie in `data/arc/nifti_cache/`; with load_dataset itself in "
            "`~/.cache/huggingface/datasets`.\n",
        ),
        finds=2,
    ),
    pair(
        repository(data_py="def load(cache_dir='data/cache'): ...\n", README_md="Nothing is said.\n"),
        repository(data_py="def load(cache_dir=None, use_cache=True): ...\n", README_md="Nothing is said.\n"),
    ),
    pair(
        repository(docs__a_md="x\n", README_md="See [the guide](docs/guide.md).\n"),
        repository(docs__a_md="[up](../README.md)\n", README_md="See [a](docs/a.md#part) and [b](https://a.b/c.md).\n"),
    ),
)

NUMBERS = (
    pair(
        repository(
            a_py='def f(x, rate=0.1):\n    """F.\n\n    Args:\n        x: any.\n'
            '        rate (float): of learning (default: 0.01).\n    """\n'
        ),
        repository(
            a_py='def f(x, rate=0.1):\n    """F.\n\n    Args:\n        x: any, default 3.\n'
            '        rate: defaults to 1e-1, 3 by default elsewhere.\n    """\n'
        ),
    ),
    pair(
        repository(
            a_py="import argparse\np = argparse.ArgumentParser()\n"
            "p.add_argument('--n', default=8, help='workers (default: 4)')\n"
        ),
        repository(
            a_py="import argparse\np = argparse.ArgumentParser()\n"
            "p.add_argument('--n', default=8, help='of %(default)s, default 2**3')\n"
        ),
    ),
    pair(
        repository(
            a_py='class A:\n    """A.\n\n    causal: bool, by default True\n    """\n\n'
            "    def __init__(self, causal=False): ...\n"
        ),
        repository(
            a_py='class A:\n    """A.\n\n    causal: bool, by default False.\n    """\n\n'
            "    def __init__(self, causal=False): ...\n"
        ),
    ),
)


def project(requires: str, text: str, **more: str) -> Callable[[Path], Given]:
    return repository(pyproject_toml=f'[project]\nname = "kit"\ndependencies = [{requires}]\n', kit__a_py=text, **more)


UNUSED = (
    pair(project('"monai>=1", "torch"', "import torch\n"), project('"torch>=2"', "import torch\n")),
    pair(
        repository(requirements_txt="pandas==2.0\nnumpy\n", a_py="import numpy\n"),
        repository(
            requirements_txt="PyYAML\nscikit-learn # for folds\npytest\n-r dev.txt\n",
            a_py="import yaml\nfrom sklearn import svm\n",
        ),
    ),
    pair(
        repository(setup_py="from setuptools import setup\nNEEDS = ['einops']\nsetup(install_requires=NEEDS)\n"),
        repository(
            setup_py="from setuptools import setup\n"
            "setup(install_requires=['einops'], extras_require={'dev': ['pdoc']})\n",
            tests__test_a_py="def f():\n    import einops\n",
        ),
    ),
)
UNDECLARED = (
    pair(
        project('"torch"', "import torch, einops\n"),
        project('"torch"', "import os, torch\nfrom kit import b\nfrom . import c\n"),
    ),
    pair(
        project('"opencv-python"', "from PIL import Image\nimport cv2\n"),
        project(
            '"opencv-python", "ai2-tango"',
            "import cv2, tango\ntry:\n    import numba\nexcept ImportError:\n    numba = None\ndef f():\n"
            "    import wandb\n",
            tests__test_a_py="import pytest\n",
        ),
    ),
)

CASES = {
    "deps.undeclared": UNDECLARED,
    "deps.unused": UNUSED,
    "docs.cli": CLI,
    "docs.numbers": NUMBERS,
    "docs.paths": PATHS,
}
