"""The spectrum of a captured step: what it finds, says, draws, and exits with."""

from __future__ import annotations

import dataclasses
import html.parser
import importlib
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug.capture import CaptureContent, write_capture
from brainbrr_debug.cli import cli
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.main import exit_code
from brainbrr_debug.matrices import Call, Limits, Matrix
from brainbrr_debug.report.chart import HEIGHT
from brainbrr_debug.report.spectrum_page import DRAWN, spectrum_page
from brainbrr_debug.report.spectrum_plot import Bar, levels, scatter
from brainbrr_debug.report.spectrum_text import ROWS, spectrum_text
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.spectrum import Spectrum, spectrum_of
from brainbrr_debug.subject import Run
from brainbrr_debug.training_state import collect_state

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")


@pytest.fixture(scope="module")
def tie() -> CaptureContent:
    content = run_until_harm(toy.TieSubject(), "toy_subjects:TieSubject", max_steps=6).content
    assert content is not None
    return content


def kept(tmp_path: Path, content: CaptureContent, **changes: Any) -> Path:
    path = tmp_path / "captures" / "000003.h5"
    write_capture(path, dataclasses.replace(content, **changes))
    return path


class Many(nn.Module):
    """Solves with its input, and takes its weights apart."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3) + 0.1 * torch.arange(9.0).reshape(3, 3))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        x = torch.linalg.solve(a + 0 * self.weight, self.weight)
        return (x + torch.linalg.qr(self.weight)[0]).flatten(1).sum(1)


class ManySubject(toy.TieSubject):
    """With an optimizer that inverts."""

    def build(self, seed: int, switches: Any) -> Any:
        torch.manual_seed(seed)
        model = Many()
        return Run(model=model, optimizer=Newton(model.parameters(), {}), loss_fn=nn.functional.mse_loss, batches=[])


class Newton(torch.optim.Optimizer):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= 1e-3 * torch.linalg.inv(p.grad @ p.grad.T + torch.eye(3)) @ p.grad


def many(tmp_path: Path, tie: CaptureContent, a: torch.Tensor) -> Path:
    run = ManySubject().build(0, {})
    state = collect_state(run.model, run.optimizer, {}, {})
    return kept(
        tmp_path,
        tie,
        subject=f"{Path(__file__).stem}:ManySubject",
        model_state=state.model,
        optimizer_state=state.optimizer,
        micro_batches=(((a,), torch.zeros(len(a))),),
    )


# What it finds ------------------------------------------------------------------------------------------------------


def test_the_tied_sample_and_where_it_comes_from(tmp_path: Path, tie: CaptureContent) -> None:
    found = spectrum_of(kept(tmp_path, tie))
    (call,) = found.calls
    assert (call.name, call.site, call.gradient, call.function) == ("eigh", "graph.pe", ("eigenvectors",), None)
    assert [m.degenerate for m in call.matrices] == [(), (), ("gap",), ()]
    assert call.worst.gap == 0 and call.worst.multiplicities == (1, 3) and call.worst.amplification == math.inf
    assert found.identity(call, call.worst)["recording"] == "night.edf"
    assert found.degenerate and found.error is None


def test_the_generators_are_left_as_they_were(tmp_path: Path, tie: CaptureContent) -> None:
    path = kept(tmp_path, tie)
    before = torch.get_rng_state()
    spectrum_of(path)
    assert torch.equal(before, torch.get_rng_state())


def test_a_healthy_batch_is_wide(tmp_path: Path, tie: CaptureContent) -> None:
    found = spectrum_of(kept(tmp_path, tie, micro_batches=tie.healthy_micro_batches))
    assert not found.degenerate and not any(m.harmless for m in found.calls[0].matrices)


def test_a_detached_tie_is_harmless(tmp_path: Path, tie: CaptureContent) -> None:
    path = kept(tmp_path, tie, subject="toy_subjects:ConfiguredSubject", config={"graph.gradient": "detached"})
    found = spectrum_of(path)
    assert found.calls[0].worst.harmless == ("gap",) and not found.degenerate


def test_solutions_in_the_model_and_inverses_in_the_optimizer(tmp_path: Path, tie: CaptureContent) -> None:
    a = torch.eye(3).repeat(4, 1, 1) + 0.1 * torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))
    found = spectrum_of(many(tmp_path, tie, a))
    assert [(c.name, c.site) for c in found.calls] == [("solve", ""), ("qr", ""), ("inv", "<optimizer>")]
    assert not found.degenerate
    assert f"{found.inner} calls in the backward formulas of others, not listed" in spectrum_text(found)
    a[1, 2] = a[1, 1] * (1 + 1e-7)
    worse = spectrum_of(many(tmp_path / "worse", tie, a))
    assert [m.sample for m in worse.calls[0].matrices if m.degenerate] == [1]
    assert "sample 1" in spectrum_text(worse) and "singular in float32" in spectrum_text(worse)


def test_a_step_that_ends_with_a_singular_matrix_still_has_a_spectrum(tmp_path: Path, tie: CaptureContent) -> None:
    found = spectrum_of(many(tmp_path, tie, torch.stack([torch.eye(3), torch.ones(3, 3)])))
    assert found.error is not None and "singular" in found.error and found.degenerate
    assert "error" in spectrum_text(found) and "ended with an error" in spectrum_page(found)


def test_a_batch_that_is_not_finite_is_said(tmp_path: Path, tie: CaptureContent) -> None:
    a = torch.eye(3).repeat(2, 1, 1)
    a[1, 0, 0] = math.nan
    found = spectrum_of(many(tmp_path, tie, a))
    assert found.degenerate and "the matrix is not finite" in spectrum_text(found)
    document = json.dumps(found.to_dict(), allow_nan=False)
    assert '"condition": "nan"' in document
    assert "is not finite and has no spectrum" in spectrum_page(found)


def test_a_step_that_breaks_down_cannot_run_here(tmp_path: Path, tie: CaptureContent) -> None:
    path = many(tmp_path, tie, torch.eye(4).repeat(2, 1, 1))
    with pytest.raises(CannotRunHere, match="the captured step does not run here: RuntimeError"):
        spectrum_of(path)


# What it says -------------------------------------------------------------------------------------------------------


def command(*arguments: Any, capsys: Any) -> tuple[int, str, str]:
    code = exit_code(cli, [str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_exit_codes_and_the_worst_first(tmp_path: Path, tie: CaptureContent, capsys: Any) -> None:
    code, out, _ = command("spectrum", kept(tmp_path, tie), capsys=capsys)
    lines = out.splitlines()
    assert code == 1 and lines[1].split()[:4] == ["eigh", "graph.pe", "2", "1"] and "DEGENERATE: gap" in lines[1]
    assert all(line.endswith("ok") for line in lines[2:5])
    assert lines[-1] == "summary    step 3: 4 matrices in 1 call, 1 degenerate"
    assert "night.edf, 140–150 s" in out and "toy_subjects.py:" in out
    healthy = kept(tmp_path / "healthy", tie, micro_batches=tie.healthy_micro_batches)
    assert command("spectrum", healthy, capsys=capsys)[0] == 0
    gone = kept(tmp_path / "gone", tie, subject="nowhere.to:BeFound")
    assert command("spectrum", gone, capsys=capsys)[0] == 125


def test_one_document_without_literals_that_json_lacks(tmp_path: Path, tie: CaptureContent, capsys: Any) -> None:
    def refuse(literal: str) -> None:
        raise AssertionError(literal)

    _, out, _ = command("spectrum", kept(tmp_path, tie), "--format", "json", capsys=capsys)
    document = json.loads(out, parse_constant=refuse)
    assert (document["schema"], document["step"], document["matrices"]) == (1, 3, 4)
    (bad,) = document["degenerate"]
    assert (bad["matrix"], bad["sample"], bad["why"], bad["identity"]["recording"]) == (2, 2, ["gap"], "night.edf")
    matrix = document["decompositions"][0]["matrices"][2]
    assert (matrix["gap"], matrix["amplification"], matrix["multiplicities"]) == (0.0, "inf", [1, 3])


def test_a_step_without_matrices(tmp_path: Path, tie: CaptureContent, capsys: Any) -> None:
    path = kept(tmp_path, tie, subject="toy_subjects:ConfiguredSubject", config={"graph.enabled": False})
    code, out, _ = command("spectrum", path, capsys=capsys)
    assert (code, out) == (0, "summary    step 3 computes no decomposition, inverse or solution of a system\n")
    assert "computes no decomposition" in spectrum_page(spectrum_of(path))


LIMITS = Limits(gap=1e-6, condition=1e6, error=1e-4)


def call(*matrices: Matrix, **changes: Any) -> Call:
    plain = Call(
        op="aten::_linalg_eigh",
        name="eigh",
        site="a<b>&",
        location="/x/program.py:3",
        micro_batch=0,
        shape=(len(matrices), 2, 2),
        dtype="float32",
        limits=LIMITS,
        gradient=("eigenvectors",),
        divided_by_gaps=True,
        function=None,
        recomputed=False,
        matrices=matrices,
        spectra={},
    )
    return dataclasses.replace(plain, **changes)


def matrix(index: int, sample: int | None = None, **facts: Any) -> Matrix:
    return Matrix(index=index, sample=sample, finite=True, **{"gap": 0.5, "condition": 2.0, **facts})


def spectrum(*calls: Call, **changes: Any) -> Spectrum:
    return Spectrum(capture="x.h5", step=0, calls=calls, **changes)


def test_rows_beyond_the_limit_are_counted() -> None:
    long = spectrum(call(*(matrix(i, i, gap=0.0, degenerate=("gap",)) for i in range(ROWS + 5))))
    text = spectrum_text(long)
    assert "… and 5 rows that are no worse; all are in --format json" in text
    assert "… and more; all are in --format json" in text
    assert text.count("DEGENERATE") == ROWS


def test_many_matrices_of_one_sample_are_one_row_with_the_worst() -> None:
    row = spectrum_text(spectrum(call(matrix(0, 0), matrix(1, 0, gap=1e-9, degenerate=("gap",)), matrix(2, 1))))
    assert row.splitlines()[1].split()[2:5] == ["0", "1", "of"] and "1e-09" in row.splitlines()[1]
    assert len([line for line in row.splitlines() if line.startswith("eigh")]) == 2


def test_matrices_without_a_sample_stand_alone_or_together() -> None:
    assert [line.split()[2] for line in spectrum_text(spectrum(call(matrix(0), matrix(1)))).splitlines()[1:3]] == [
        "#0",
        "#1",
    ]
    together = spectrum_text(spectrum(call(*(matrix(i) for i in range(20)))))
    assert "0 of 20" in together.splitlines()[1]


def test_later_micro_batches_functions_and_second_passes_are_marked() -> None:
    later = call(matrix(0, 2), micro_batch=1, function="Careful", recomputed=True)
    text = spectrum_text(spectrum(later, unseen={"strided Tensor on meta": 2}))
    assert "1:2" in text and "inside of Careful" in text and "eigh again" in text
    assert "2 calls on a tensor that holds no plain numbers: strided Tensor on meta" in text


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"gap": 1e-9, "degenerate": ("gap",)}, "relative gap 1e-09 ≤ 1e-06, and a gradient came back"),
        ({"condition": 1e9, "scaled": 1e8, "degenerate": ("condition",)}, "1e+09, 1e+08 after scaling, ≥ 1e+06"),
        ({"condition": 1e9, "degenerate": ("condition",)}, "condition number 1e+09 ≥ 1e+06: singular in float32"),
        ({"residual": 0.5, "degenerate": ("residual",)}, "residual 0.5 > 0.0001"),
        ({"degenerate": ("failed",)}, "there is no such decomposition"),
    ],
)
def test_every_fault_has_its_words(facts: dict[str, Any], words: str) -> None:
    assert words in spectrum_text(spectrum(call(matrix(0, 0, **facts))))


# What it draws ------------------------------------------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    """Every tag opened and closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> list[str]:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags.seen


def test_the_page_stands_alone_in_light_and_dark(tmp_path: Path, tie: CaptureContent, capsys: Any) -> None:
    out = tmp_path / "page.html"
    code, _, err = command("spectrum", kept(tmp_path, tie), "--format", "html", "--output", out, capsys=capsys)
    page = out.read_text(encoding="utf-8")
    tags = parsed(page)
    assert (code, err) == (1, f"Wrote {out}\n") and tags.count("svg") == 2
    assert "http" not in page and not {"script", "link", "img"} & set(tags)
    assert "prefers-color-scheme: dark" in page


def test_names_are_escaped_and_every_kind_of_place_is_drawn() -> None:
    spectra = {"worst": (0.0, 1.0, 1.0), "best": (0.0, 0.5, 1.0)}
    gap = call(matrix(0, 0, gap=0.0, degenerate=("gap",)), matrix(1, 1), spectra=spectra)
    solve = call(matrix(0, 0, gap=None, condition=math.inf), name="solve", divided_by_gaps=False, spectra=spectra)
    places = [dataclasses.replace(solve, location=f"/x/y.py:{line}") for line in range(DRAWN)]
    page = spectrum_page(spectrum(gap, *places))
    parsed(page)
    assert "a&lt;b&gt;&amp;" in page and "a<b>" not in page
    assert "1 place no worse than these: not drawn." in page
    assert page.count("Smallest relative gap") and page.count("Condition number of each sample")


def heights(svg: str, kind: str) -> list[float]:
    return [float(y) for y in re.findall(rf'<circle class="{kind}" cx="[\d.]+" cy="([\d.]+)"', svg)]


def test_smaller_is_lower_and_zero_and_infinity_have_a_place() -> None:
    bars = [Bar(label=str(i), worst=v, best=v, bad=False) for i, v in enumerate([1.0, 1e-3, 1e-9, 0.0])]
    ys = heights(scatter("gap", bars, limit=1e-6, low=True), "point")
    assert ys == sorted(ys) and len(set(ys)) == 4
    up = [Bar(label=str(i), worst=v, best=v, bad=False) for i, v in enumerate([1.0, 1e9, math.inf])]
    ys = heights(scatter("condition", up, limit=1e6, low=False), "point")
    assert ys == sorted(ys, reverse=True) and len(set(ys)) == 3


def test_what_is_degenerate_is_crossed_and_what_is_not_finite_has_no_dot() -> None:
    bars = [Bar(label="0", worst=0.0, best=0.5, bad=True), Bar(label="1", worst=None, best=None, bad=True)]
    svg = scatter("gap", bars, limit=1e-6, low=True)
    assert svg.count('class="bad"') == 1 and ">?<" in svg and "2 of 2 degenerate" in svg


def test_levels_of_one_matrix_of_negative_values_and_of_zeros() -> None:
    for worst, best in (((-2.0, 1.0), ()), ((0.0, 0.0), (1.0, 2.0)), ((3.0,), (1.0,))):
        svg = levels("values", worst, best)
        assert (svg.count("<rect"), svg.count("<circle")) == (len(worst), len(best))
        marks = [float(y) for y in re.findall(r'<(?:rect|circle) [^>]*\bc?y="([-\d.]+)"', svg)]
        assert len(marks) == len(worst) + len(best) and all(0 <= y <= HEIGHT for y in marks)
