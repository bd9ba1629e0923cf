"""The incident's repair, proved over 500 steps; everything that only hides it is refused (minutes: `make slow`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/local/batch7.yaml")
UNASKED = (
    "cause",
    "samples",
    "operation",
    "matrix",
    "alone",
    "sequence",
    "stable",
    "electrodes",
    "seconds",
    "precision",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batch7")


def command(place: Path, verb: str, *arguments: str, sets: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a command over the incident's configuration."""
    values = (f"data.data_dir={place}/corpus", f"data.cache_dir={place}/cache", *sets)
    words = [word for value in values for word in ("--set", value)]
    done = subprocess.run(
        [sys.executable, "-m", "brainbrr_debug", verb, CONFIG, *words, *arguments, "--quiet", "--format", "json"],
        cwd=place, capture_output=True, text=True, check=False, env=None,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
def test_the_best_repair_is_a_safe_gradient_and_it_is_proved(place: Path) -> None:
    from brainbrr_debug.bisect import SKIPPABLE

    skipped = [word for name in UNASKED if name in SKIPPABLE for word in ("--skip", name)]
    code, verdict = command(place, "bisect", *skipped)
    best, *others = verdict["repairs"]
    assert (code, best["changes"]) == (0, {"model.graph.pe_gradient": "safe"})
    assert best["heals"] and best["proved"] and not best["hides"], best["refused"]
    certificate = best["certificate"]
    assert (certificate["steps"], certificate["hides"]) == (500, False)
    passed = {criterion["name"]: criterion["passed"] for criterion in certificate["criteria"]}
    assert passed == {
        "switched off": None, "finite": True, "untouched": True, "schedule": True, "input": True, "learns": True,
    }  # fmt: skip
    assert "Repair: model.graph.pe_gradient=safe, proved over 500 steps." in verdict["sentence"]
    rows = {json.dumps(row["changes"]): row for row in others}
    detached = rows['{"model.graph.pe_gradient": "detached"}']
    assert (detached["heals"], detached["refused"]) == (True, "not tried: one that changes less is proved")
    for name in ("model.graph.enabled", "model.graph.use_dynamic_pe"):
        assert rows[f'{{"{name}": false}}']["refused"].startswith("avoids the failure: it takes graph")
    hiding = [row for row in others if row["hides"]]
    assert '{"training.on_nonfinite": "sanitize"}' in {json.dumps(row["changes"]) for row in hiding}
    assert all(not row["proved"] and row["refused"].startswith("hides the failure") for row in hiding)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["on_nonfinite=sanitize", "on_nonfinite=skip", "on_nonfinite=record"])
def test_what_only_hides_the_failure_gets_no_certificate(change: str, place: Path) -> None:
    code, certificate = command(place, "prove", sets=(f"training.{change}",))
    assert (code, certificate["granted"], certificate["hides"], certificate["steps"]) == (1, False, True, 6)
    assert certificate["reason"].startswith("finite: step 6: the gradient is not finite")
    assert certificate["reason"].endswith(f"training.{change} hides the failure and does not repair it")


@pytest.mark.slow
def test_the_graph_that_was_switched_off_comes_back_once_the_gradient_is_safe(place: Path) -> None:
    off = "model.graph.enabled=false"
    code, certificate = command(place, "prove", "--steps", "60", sets=(off,))
    assert code == 1
    assert "model.graph.enabled=False takes graph away, and with it back the run fails: step 6" in certificate["reason"]
    _, certificate = command(place, "prove", "--steps", "60", sets=(off, "model.graph.pe_gradient=safe"))
    assert certificate["criteria"][0]["measured"] == "model.graph.enabled came back one at a time in 50 steps"
    assert sorted(path.name for path in (place / "corpus").iterdir()) == [
        "artefacts.json",
        "edf",
    ]  # the --set is heeded
