"""The runner and its command: what runs, what is accepted and where, and what comes out."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from brainbrr_debug.checks import registry
from brainbrr_debug.checks.registry import CHECKS, Check, Given, NotApplicable, check
from brainbrr_debug.cli import cli
from brainbrr_debug.errors import UsageError
from brainbrr_debug.main import exit_code
from brainbrr_debug.records import Finding, Severity
from brainbrr_debug.triage.baseline import Baseline, baseline_text, read_baseline
from brainbrr_debug.triage.checklist import Checklist, ChecklistError, default_checklist, read_checklist
from brainbrr_debug.triage.document import document
from brainbrr_debug.triage.ignores import ignores_in
from brainbrr_debug.triage.page import listing, page
from brainbrr_debug.triage.run import Triage, chosen, triage

ROOT = Path(__file__).parents[2]
EMPTY = Baseline(entries={})


def finding(name: str, **changes: Any) -> Finding:
    values: dict[str, Any] = {"severity": Severity.P1, "message": "seen", "why": "harm", "remedy": "mend"}
    return Finding(check=name, **values | changes)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Check]]:
    """A registry of the test's own: what it registers, and nothing else."""
    saved = dict(CHECKS)
    CHECKS.clear()
    monkeypatch.setattr(registry, "load", lambda: CHECKS)
    monkeypatch.setattr("brainbrr_debug.triage.run.load", lambda: CHECKS)
    yield CHECKS
    CHECKS.clear()
    CHECKS.update(saved)


def run(given: Given, *, baseline: Baseline = EMPTY, **severities: Severity) -> Triage:
    listed = {name: severities.get(name.replace(".", "_")) for name in CHECKS}
    return triage(given, Checklist(checks=listed, settings={name: {} for name in CHECKS}), list(CHECKS), baseline)


def test_a_check_runs_where_it_has_what_it_needs(checks: dict[str, Check], tmp_path: Path) -> None:
    @check("a.one", Severity.P2, needs="source", summary="x")
    def one(given: Given) -> Iterable[Finding]:
        return [finding("a.one", severity=Severity.P2)]

    @check("b.two", Severity.P2, needs=("cache", "config"), summary="x")
    @check("c.three", Severity.P2, needs="source", summary="x")
    def two(given: Given) -> Iterable[Finding]:
        raise NotApplicable("nothing to judge")

    found = run(Given(source=tmp_path))
    assert found.ran == ("a.one",) and [f.check for f in found.findings] == ["a.one"]
    assert found.not_applicable == {"b.two": "no --cache was given", "c.three": "nothing to judge"}


def test_a_crash_is_a_result_and_the_others_still_run(checks: dict[str, Check], tmp_path: Path) -> None:
    @check("a.bad", Severity.P0, needs="source", summary="x")
    def bad(given: Given) -> Iterable[Finding]:
        yield finding("a.bad")
        raise KeyError("lost")

    @check("b.stray", Severity.P0, needs="source", summary="x")
    def stray(given: Given) -> Iterable[Finding]:
        return [finding("a.bad")]

    @check("c.good", Severity.P3, needs="source", summary="x")
    def good(given: Given) -> Iterable[Finding]:
        return []

    found = run(Given(source=tmp_path))
    assert [crash.check for crash in found.crashed] == ["a.bad", "b.stray"] and found.ran == ("c.good",)
    assert found.crashed[0].line == "KeyError: 'lost'" and "Traceback" in found.crashed[0].traceback
    assert document(found)["crashed"] == ["a.bad", "b.stray"]
    text = page(found, Severity.P1)
    assert " ☠ a " in text and " ☠ b " in text and " ✓ c " in text and "crashed a.bad: KeyError: 'lost'" in text


def test_one_check_looks_at_several_things(checks: dict[str, Check], tmp_path: Path) -> None:
    for need in ("source", "config"):
        check("a.one", Severity.P2, needs=need, summary="x")(lambda given: [])
    assert [look.needs for look in CHECKS["a.one"].looks] == [("source",), ("config",)]
    assert run(Given(source=tmp_path)).ran == ("a.one",)
    with pytest.raises(ValueError, match=r"a\.one is registered twice, with another severity"):
        check("a.one", Severity.P0, needs="run", summary="x")(lambda given: [])


def test_one_look_of_a_check_may_advise_where_another_fails(checks: dict[str, Check], tmp_path: Path) -> None:
    for need, advises in (("checkpoint", False), ("source", True)):
        check("a.one", Severity.P2, needs=need, summary="x", advises=advises)(lambda given: [finding("a.one")])
    over_source = run(Given(source=tmp_path))
    assert len(over_source.findings) == 1 and not over_source.failing(Severity.P3)
    both = run(Given(source=tmp_path, checkpoint=tmp_path / "c.pt"), a_one=Severity.P1)
    assert len(both.findings) == 2 and [f.severity for f in both.failing(Severity.P3)] == [Severity.P1]
    assert "(advises over source)" in listing(CHECKS)


def test_the_checklist_decides_over_severity_and_advice_never_fails(checks: dict[str, Check], tmp_path: Path) -> None:
    for name, advises in (("a.firm", False), ("b.hint", True)):

        def look(given: Given, name: str = name) -> Iterable[Finding]:
            return [finding(name)]

        check(name, Severity.P1, needs="source", summary="x", advises=advises)(look)
    found = run(Given(source=tmp_path))
    assert [f.check for f in found.failing(Severity.P1)] == ["a.firm"]
    milder = run(Given(source=tmp_path), a_firm=Severity.P3)
    assert [f.severity for f in milder.findings] == [Severity.P1, Severity.P3] and not milder.failing(Severity.P1)


# Accepting findings


@pytest.mark.parametrize(
    ("text", "suffix", "line", "covers", "reason"),
    [
        ("x = 1  # triage: ignore[a.b] because", ".py", 1, (1,), "because"),
        ("# triage: ignore[a.b, c.d] both are meant\nx = 1", ".py", 1, (1, 2), "both are meant"),
        ("a: 1  # triage: ignore[a.b]", ".yaml", 1, (1,), ""),
        ("text\n<!-- triage: ignore[a.b] quoted --> more", ".md", 2, (2, 3), "quoted"),
    ],
)
def test_where_an_ignore_stands(text: str, suffix: str, line: int, covers: tuple[int, ...], reason: str) -> None:
    (ignore,) = ignores_in(text, suffix)
    assert (ignore.line, ignore.covers, ignore.reason, ignore.checks[0]) == (line, covers, reason, "a.b")


@pytest.mark.parametrize(
    ("text", "suffix"), [("x = '# triage: ignore[a.b] no comment'", ".py"), ("# triage: ignore[a.b] why", ".md")]
)
def test_what_only_quotes_an_ignore_is_none(text: str, suffix: str) -> None:
    assert list(ignores_in(text, suffix)) == []


def test_an_ignore_with_a_reason_takes_exactly_its_finding_away(checks: dict[str, Check], tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1  # triage: ignore[a.one] meant\ny = 2  # triage: ignore[a.one]\nz = 3\n")

    @check("a.one", Severity.P1, needs="source", summary="x")
    def one(given: Given) -> Iterable[Finding]:
        return [finding("a.one", file="a.py", line=line) for line in (1, 2, 3)]

    found = run(Given(source=tmp_path))
    assert [f.line for f in found.findings] == [2, 3]
    assert [(f.line, reason) for f, reason in found.ignored] == [(1, "meant")]


def test_a_baseline_holds_what_was_there_and_says_what_is_gone(checks: dict[str, Check], tmp_path: Path) -> None:
    seen = [finding("a.one", file="a.py", line=3, message="3 of 7 are bad"), finding("a.one", file="b.py")]

    @check("a.one", Severity.P1, needs="source", summary="x")
    def one(given: Given) -> Iterable[Finding]:
        return seen

    path = tmp_path / "baseline.json"
    path.write_text(baseline_text(seen), encoding="utf-8")
    seen[0] = dataclasses.replace(seen[0], line=90, message="4 of 8 are bad")  # moved, and measured anew
    del seen[1]
    seen.append(finding("a.one", file="c.py"))
    found = run(Given(source=tmp_path), baseline=read_baseline(path))
    assert [f.file for f in found.findings] == ["c.py"] and [f.file for f in found.known] == ["a.py"]
    assert found.gone == ("a.one: b.py: seen",)
    assert run(Given(), baseline=read_baseline(path)).gone == ()  # the check did not run


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"findings": [{}]}', "[" * 100_000, '{"findings": 3}'])
def test_what_is_no_baseline_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(UsageError, match="write one with --write-baseline"):
        read_baseline(tmp_path / "b.json")


# Checklists


def listed(tmp_path: Path, text: str) -> Checklist:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return read_checklist(tmp_path / "mine.yaml")


def test_a_checklist_names_checks_severities_and_thresholds(tmp_path: Path) -> None:
    mine = listed(tmp_path, "checks:\n  config.warmup: {severity: P3, max_epochs: 2.5}\n  env.known_bad:\n")
    assert dict(mine.checks) == {"config.warmup": Severity.P3, "env.known_bad": None}
    assert mine.settings["config.warmup"] == {"max_epochs": 2.5}
    assert mine.settings["config.ssm_dims"] == default_checklist().settings["config.ssm_dims"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checks: {config.warmpu: }", "unknown check config.warmpu; did you mean config.warmup?"),
        ("checks: {config.warmup: {max_epoch: 2}}", "config.warmup knows no max_epoch; did you mean max_epochs?"),
        (
            "checks: {config.warmup: {max_epochs: two}}",
            "max_epochs is 'two'; expected a value of the kind",
        ),
        (
            "checks: {config.warmup: {severity: P9}}",
            "config.warmup is 'P9'; expected one of P0, P1",
        ),
        ("checks: {config.warmup: 3}", "config.warmup is 3; expected a mapping"),
        ("check: {}", "expected one key, checks"),
        ("a: [1", "not YAML"),
    ],
)
def test_a_checklist_that_cannot_be_used_says_why(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ChecklistError) as error:
        listed(tmp_path, text)
    assert message in str(error.value)


def test_globs_choose_checks() -> None:
    checklist = default_checklist()
    chosen_ones = chosen(checklist, ("env.*", "config.unread"), ("env.t*",))
    assert {"env.workers", "config.unread"} <= set(chosen_ones) and "env.tf32" not in chosen_ones
    assert all(name.startswith(("env.", "config.unread")) for name in chosen_ones)
    with pytest.raises(UsageError, match=r"no check matches enw\.workers; did you mean env\.workers\?"):
        chosen(checklist, ("enw.workers",), ())


# The command


class Result:
    """What a command left."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = exit_code(cli, ["triage", *map(str, arguments)])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text("training:\n  loss: bce\n  focal_gamma: 2.0\n  scheduler: {warmup_ratio: 0.2}\n  epochs: 100\n")
    return path


CONFIG = ("--select", "config.unread", "--select", "config.warmup")


def test_the_page_has_marks_lines_and_a_summary(command: Any, bad: Path) -> None:
    result = command("--config", bad, *CONFIG)
    lines = result.out.splitlines()
    assert result.code == 1 and lines[0] == " ✗ config      2 checks, 2 findings"
    assert f"{bad}:4: config.warmup P1 the rate rises for 20 epochs; expected 5 epochs at most" in lines
    assert any(line.startswith(f"{bad}:3: config.unread P2 training.focal_gamma is set") for line in lines)
    assert [line.split()[0] for line in lines if line.startswith("      ")] == ["why", "fix", "why", "fix"]
    assert lines[-1].startswith("2 findings (1 P1, 1 P2) · 2 checks in ")
    assert lines[-1].endswith("fails at P1 · more: brainbrr-debug triage --explain config.warmup")


def test_an_ignore_that_ignores_nothing_any_more_is_noted(command: Any, tmp_path: Path) -> None:
    used = "import tempfile\nprint(tempfile.mkdtemp())  # triage: ignore[source.tempfiles] kept on purpose\n"
    (tmp_path / "a.py").write_text(used)
    assert "ignore of" not in command("--source", tmp_path).out
    (tmp_path / "a.py").write_text(used.replace("tempfile.mkdtemp()", "1"))
    stale = command("--source", tmp_path)
    assert "a.py:2: an ignore of source.tempfiles, which finds nothing there" in stale.out and stale.code == 0
    assert "ignore of" not in command("--source", tmp_path, "--ignore", "source.tempfiles").out


def test_what_differs_between_here_and_the_cloud_is_noted(command: Any, tmp_path: Path) -> None:
    for place, text in (("local", "data: {num_workers: 0}\n"), ("cloud", "training: {batch_size: 48}\n")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "train.yaml").write_text(text)
    noted = command("--config", tmp_path / "local" / "train.yaml", "--select", "config.drift")
    assert "config.drift: cloud/train.yaml trains otherwise: training.batch_size (48, now" in noted.out
    assert "num_workers" not in noted.out and noted.code == 0


def test_checks_over_source_fail_only_where_they_are_told_to(command: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import tempfile\nprint(tempfile.mkdtemp())\n")
    advised = command("--source", tmp_path, "--fail-on", "P3")
    strict = command("--source", tmp_path, "--fail-on", "P3", "--strict")
    assert (advised.code, strict.code) == (0, 1)
    assert "a.py:2" in advised.out and "fails at P3" in strict.out and "fails" not in advised.out


def test_fail_on_decides_over_the_exit_code(command: Any, bad: Path) -> None:
    only = ("--config", bad, "--select", "config.unread")
    assert (command(*only).code, command(*only, "--fail-on", "P2").code) == (0, 1)
    assert command(*only).out.startswith(" ! config")


def test_the_documents(command: Any, bad: Path) -> None:
    document = json.loads(command("--config", bad, *CONFIG, "--format", "json").out)
    assert set(document) >= {"schema", "findings", "not_applicable", "crashed"} and document["schema"] == 1
    first = document["findings"][0]
    assert set(first) >= {"check", "severity", "file", "line", "where", "message", "why", "remedy"}
    assert (first["check"], first["severity"], first["line"]) == ("config.warmup", "P1", 4)
    log = json.loads(command("--config", bad, *CONFIG, "--format", "sarif").out)
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == ["config.warmup", "config.unread"]
    suite = ElementTree.fromstring(command("--config", bad, *CONFIG, "--format", "junit").out)
    assert suite.get("failures") == "2"


def test_a_baseline_makes_a_red_configuration_green(command: Any, bad: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    assert command("--config", bad, *CONFIG, "--write-baseline", baseline).code == 0
    green = command("--config", bad, *CONFIG, "--baseline", baseline)
    assert green.code == 0 and "nothing found · 2 checks" in green.out and "2 in the baseline" in green.out
    bad.write_text("training: {epochs: 100}\n")
    gone = command("--config", bad, *CONFIG, "--baseline", baseline)
    assert gone.out.count("take it out of the baseline") == 2
    refused = command("--config", bad, *CONFIG, "--write-baseline", baseline)
    assert refused.code == 2 and "exists" in refused.err


def test_an_incident_expects_exactly_what_it_names(command: Any, bad: Path) -> None:
    marked = bad.read_text() + "experiment:\n  purpose: incident\n  expects: [config.warmup, config.unread]\n"
    bad.write_text(marked)
    met = command("--config", bad, *CONFIG)
    assert met.code == 0 and "2 expected" in met.out
    bad.write_text(marked.replace("warmup_ratio: 0.2", "warmup_ratio: 0.01"))
    unmet = command("--config", bad, *CONFIG)
    assert unmet.code == 1 and f"{bad}:8: config.warmup P1 expected to find something here" in unmet.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: found nothing; expected a file"),
        (["--cache", __file__], "found another kind of thing; expected a folder"),
        (["--run", "nowhere"], "nowhere: no such folder; expected a run directory"),
        (["--select", "nothing.*"], "no check matches nothing.*"),
        (["--explain", "config.unraed"], "no check config.unraed; did you mean config.unread?"),
        (["--checklist", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["--baseline", "nowhere.json"], "nowhere.json: No such file"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments: list[str], message: str, command: Any) -> None:
    result = command(*arguments)
    assert (result.code, result.out) == (2, "") and message in result.err and "Traceback" not in result.err


def test_checks_are_listed_and_explained(command: Any) -> None:
    listing = command("--list-checks")
    assert listing.code == 0 and len(listing.out.splitlines()) == len(default_checklist().checks)
    explained = command("--explain", "config.warmup").out
    assert explained.startswith("# config.warmup\n") and explained.rstrip().endswith("--ignore config.warmup")
    document = json.loads(command("--explain", "config.warmup", "--format", "json").out)
    assert [entry["id"] for entry in document["checks"]] == ["config.warmup"]


def test_a_repository_is_looked_at_without_torch(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    code = (
        "import sys; from brainbrr_debug.cli import cli\n"
        f"cli.main(['triage', '--source', {str(tmp_path)!r}], standalone_mode=False)\n"
        "sys.exit('torch' if 'torch' in sys.modules or 'numpy' in sys.modules else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr


def test_data_are_found_beside_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import brainbrr_debug.triage.shipped as shipped

    assert shipped.shipped("default.yaml") == ROOT / "triage/default.yaml"
    (tmp_path / "brainbrr_debug/triage_data").mkdir(parents=True)
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "brainbrr_debug")
    assert shipped.shipped("default.yaml") == tmp_path / "brainbrr_debug/triage_data/default.yaml"
