"""The watch inside of Lightning's own Trainer."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, Run, read_capture
from brainbrr_debug.cli import cli
from brainbrr_debug.main import exit_code
from brainbrr_debug.replay import replay_capture

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries that Lightning imports
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.plugins.precision import MixedPrecision

    from brainbrr_debug.integrations.lightning import WatchCallback, as_batch, module_step

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated"),
]

SILENT = 5  # the batch that holds a zero vector
SUBJECT = f"{__name__}:NetSubject"


class Norms(nn.Module):
    """The length of each vector: its gradient at zero is 0/0."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(6, 4, bias=False)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 6) -> (B,)
        hidden = self.lift(x)
        return self.head(self.drop(hidden))[:, 0] + hidden.square().sum(-1).sqrt()


class Net(lightning.LightningModule):
    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = Norms()
        self.kind = optimizer
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = nn.functional.mse_loss(self(x), y)
        self.seen.append(batch_idx)
        return {"loss": loss, "note": 1}

    def configure_optimizers(self) -> Any:
        optimizer = self.kind(self.parameters(), lr=1e-2)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3), "interval": "step"}]


class NetSubject:
    def build(self, seed: int, switches: Any) -> Run:
        module = Net()
        optimizer = module.configure_optimizers()[0][0]
        return Run(module, optimizer, nn.functional.mse_loss, (), step=module_step(module, optimizer))

    def switches(self) -> dict[str, Any]:
        return {}

    def identify(self, batch_index: int, sample_index: int) -> dict[str, Any]:
        return {}


def batches(silent: int | None = SILENT) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    found = [(torch.randn(4, 6, generator=generator), torch.randn(4, generator=generator)) for _ in range(9)]
    if silent is not None:
        found[silent][0][2] = 0
    return found


def fit(tmp_path: Path, callbacks: list[Any], module: Any = None, data: Any = None, **options: Any) -> Any:
    module = Net() if module is None else module
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=callbacks,
        **{"gradient_clip_val": 0.5, "enable_checkpointing": False, **options},
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches() if data is None else data, batch_size=None))
    return module


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def finite(module: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in module.parameters())


def only_capture(run: Path) -> Path:
    (path,) = (run / "captures").iterdir()
    return path


def test_a_step_that_breaks_stops_the_training_before_the_update_and_can_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = Net()
    callback = WatchCallback(
        tmp_path / "run",
        subject=SUBJECT,
        config={"lr": 0.01},
        identify=lambda batch: [{"recording": f"r{i}"} for i in range(len(batch[0]))],
    )
    with pytest.raises(NonFiniteStep, match=r"step 5: .*; gradients of 1 of 3 parameters") as caught:
        fit(tmp_path, [callback], module)
    assert finite(module) and hooks(module) == 0 and "training_step" not in vars(module)
    content = read_capture(only_capture(tmp_path / "run"))
    assert caught.value.capture_path == only_capture(tmp_path / "run") and content.step == SILENT
    ((x,), y), expected = content.micro_batches[0], batches()[SILENT]
    assert torch.equal(x, expected[0]) and torch.equal(y, expected[1])
    assert content.identities[0][2] == {"recording": "r2"}
    assert content.environment["framework"].startswith("lightning ") and "scheduler.0" in content.extra_state
    assert content.finding.evidence["gradient_nonfinite"] == ["net.lift.weight"]  # before clipping spread it
    assert replay_capture(only_capture(tmp_path / "run")).reality.reproduced == 3
    capsys.readouterr()
    assert exit_code(cli, ["diagnose", str(only_capture(tmp_path / "run")), "--format", "json"]) == 0
    origin = json.loads(capsys.readouterr().out)
    assert (origin["op"], origin["module"], origin["phase"]) == ("aten::sqrt", "net", "backward")


def test_a_healthy_training_finds_nothing_and_changes_nothing(tmp_path: Path) -> None:
    watched, bare = Net(), Net()
    callback = WatchCallback(tmp_path / "run")
    torch.manual_seed(5)
    fit(tmp_path, [callback], watched, batches(None))
    torch.manual_seed(5)
    fit(tmp_path, [], bare, batches(None))
    for a, b in zip(watched.parameters(), bare.parameters(), strict=True):
        assert torch.equal(a, b)
    assert callback.watch.counters["steps"] == 9 and callback.watch.counters["incidents"] == 0
    assert not (tmp_path / "run" / "findings.jsonl").exists() and not list((tmp_path / "run" / "captures").iterdir())
    assert hooks(watched) == 0


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_batches_are_one_step(tmp_path: Path, accumulate: int) -> None:
    callback = WatchCallback(tmp_path / "run", subject=SUBJECT)
    with pytest.raises(NonFiniteStep):
        fit(tmp_path, [callback], accumulate_grad_batches=accumulate)
    path = only_capture(tmp_path / "run")
    content = read_capture(path)
    first = SILENT // accumulate * accumulate
    assert content.step == SILENT // accumulate and len(content.micro_batches) == accumulate
    for given, ((x,), _) in zip(batches()[first:], content.micro_batches, strict=False):
        assert torch.equal(given[0], x)
    assert replay_capture(path).reality.reproduced == 3
    assert callback.watch.counters["unchecked"] == 0


def test_the_batches_left_over_at_the_end_of_an_epoch_are_a_step_too(tmp_path: Path) -> None:
    callback = WatchCallback()
    fit(tmp_path, [callback], None, batches(None), accumulate_grad_batches=4)
    assert callback.watch.counters["steps"] == 3 and callback.watch.counters["unchecked"] == 0


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_skipped_step_changes_neither_parameters_nor_the_optimizer(tmp_path: Path, kind: Any) -> None:
    class Before(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.was = [p.detach().clone() for p in pl_module.parameters()]
            self.state = repr(trainer.optimizers[0].state_dict()["state"])

        def on_train_batch_end(self, trainer: Any, pl_module: Any, out: Any, batch: Any, batch_idx: int) -> None:
            same = all(torch.equal(a, b) for a, b in zip(self.was, pl_module.parameters(), strict=True))
            assert same == (batch_idx == SILENT)
            if same and kind is torch.optim.AdamW:
                assert repr(trainer.optimizers[0].state_dict()["state"]) == self.state

    callback = WatchCallback(tmp_path / "run", policy="skip")
    module = Net(kind)
    fit(tmp_path, [callback, Before()], module)
    assert callback.watch.counters["skipped"] == 1 and finite(module) and module.seen == list(range(9))


def test_a_failing_program_leaves_no_hooks_and_its_own_error(tmp_path: Path) -> None:
    class Failing(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 2:
                raise LookupError("no such electrode")
            return super().training_step(batch, batch_idx)

    module = Failing()
    with pytest.raises(LookupError, match="no such electrode"):
        fit(tmp_path, [WatchCallback(tmp_path / "run")], module)
    assert hooks(module) == 0 and "training_step" not in vars(module)
    assert not list((tmp_path / "run" / "captures").iterdir())


def test_an_exception_that_something_non_finite_caused_is_an_incident(tmp_path: Path) -> None:
    class Solving(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.linalg.cholesky(x.T @ x + torch.eye(6) * (torch.nan if x.abs().sum(-1).min() == 0 else 1))
            return super().forward(x)

    module = Solving()
    with pytest.raises(NonFiniteStep, match=r"step 5: _?LinAlgError") as caught:
        fit(tmp_path, [WatchCallback(tmp_path / "run")], module)
    assert caught.value.capture_path == only_capture(tmp_path / "run") and hooks(module) == 0


def test_an_exception_of_the_backward_pass_keeps_its_type_and_names_the_capture(tmp_path: Path) -> None:
    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            raise ValueError("the gradient contains NaN")

    class Strict(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Backward.apply(super().forward(x))

    module = Strict()
    with pytest.raises(ValueError, match="the gradient contains NaN") as caught:
        fit(tmp_path, [WatchCallback(tmp_path / "run")], module)
    assert "brainbrr-debug bisect" in caught.value.__notes__[0] and hooks(module) == 0
    assert only_capture(tmp_path / "run").exists()


def test_half_precision_with_a_scaler_may_skip_its_first_steps(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    callback = WatchCallback(tmp_path / "run", scaler_patience=30)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    fit(tmp_path, [callback], None, batches(None), plugins=[precision])
    assert callback.watch.counters["skipped_by_scaler"] == 9 and callback.watch.counters["incidents"] == 0
    callback = WatchCallback(tmp_path / "broken", subject=SUBJECT, scaler_patience=0)
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**4))
    module = Net()
    with pytest.raises(NonFiniteStep):
        fit(tmp_path, [callback], module, plugins=[precision])
    assert finite(module)
    assert read_capture(only_capture(tmp_path / "broken")).extra_state["scaler"]["scale"] == 2.0**4


def test_brain_float_is_watched_as_it_is(tmp_path: Path) -> None:
    callback = WatchCallback(tmp_path / "run")
    with pytest.raises(NonFiniteStep):
        fit(tmp_path, [callback], precision="bf16-mixed")
    assert read_capture(only_capture(tmp_path / "run")).step == SILENT


def test_a_part_can_be_watched_and_an_output_that_nobody_sees_is_said(tmp_path: Path) -> None:
    class Inner(Net):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            x, y = batch
            return nn.functional.mse_loss(self.net(x).nan_to_num(), y)

    with pytest.warns(UserWarning, match=r"training_step does not call Inner itself, .*WatchCallback\(module="):
        fit(tmp_path, [WatchCallback()], Inner(), batches(None))
    data = batches(None)
    data[3][0][0] = torch.nan
    callback = WatchCallback(tmp_path / "run", module="net")
    with pytest.raises(NonFiniteStep, match=r"step 3: .*logits"):
        fit(tmp_path, [callback], Inner(), data)
    assert list(read_capture(only_capture(tmp_path / "run")).model_state) == ["lift.weight", "head.weight", "head.bias"]


def test_a_damaged_state_is_not_saved(tmp_path: Path) -> None:
    class Damaged(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, out: Any, batch: Any, batch_idx: int) -> None:
            with torch.no_grad():
                pl_module.net.head.bias.fill_(torch.nan)

    saving = lightning.callbacks.ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1)
    callbacks = [WatchCallback(tmp_path / "run"), Damaged(), saving]
    module = Net()
    with pytest.raises(NonFiniteStep, match="after step 0, before a checkpoint: 1 tensors"):
        fit(tmp_path, callbacks, module, batches(None), enable_checkpointing=True)
    assert not list(tmp_path.glob("saved/*")) and hooks(module) == 0
    fit(tmp_path, [WatchCallback(tmp_path / "healthy"), saving], None, batches(None), enable_checkpointing=True)
    assert len(list(tmp_path.glob("saved/*.ckpt"))) == 1


RANKS = """
import sys, torch
import lightning.pytorch as lightning
from brainbrr_debug.integrations.lightning import WatchCallback


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.lift = torch.nn.Linear(6, 4, bias=False)

    def forward(self, x):
        return self.lift(x).square().sum(-1).sqrt()

    def training_step(self, x, index):
        return self(x * (self.global_rank != 1 or index != 3)).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


if __name__ == "__main__":
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    callbacks = [WatchCallback(sys.argv[1])]
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_fork", callbacks=callbacks, **quiet
    )
    trainer.fit(Net(), torch.utils.data.DataLoader(torch.randn(40, 6), batch_size=2))
"""


@pytest.mark.slow
def test_all_ranks_stop_together_and_name_the_one_it_was_born_in(tmp_path: Path) -> None:
    program = tmp_path / "ranks.py"
    program.write_text(RANKS)
    command = [sys.executable, str(program), str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode and "NonFiniteStep: step 3: " in result.stderr
    for folder in (tmp_path / "run", tmp_path / "run" / "rank-0001"):
        finding = json.loads((folder / "findings.jsonl").read_text())
        assert finding["step"] == 3 and finding["evidence"]["born_on"] == [1]
    (capture,) = (tmp_path / "run").rglob("*.h5")
    evidence = read_capture(capture).finding.evidence
    assert evidence["nonfinite"] == ["gradient"] and evidence["logits"]["elements"] == 2


def test_what_one_gate_cannot_watch_is_refused(tmp_path: Path) -> None:
    class Manual(Net):
        automatic_optimization = False

    with pytest.raises(TypeError, match=r"Manual has 1 optimizers and automatic_optimization=False; expected one"):
        fit(tmp_path, [WatchCallback()], Manual(), gradient_clip_val=None)
    with pytest.raises(TypeError, match="LBFGS, which evaluates a step several times"):
        fit(tmp_path, [WatchCallback()], Net(torch.optim.LBFGS))


def test_a_batch_of_two_is_inputs_and_target() -> None:
    assert as_batch([1, 2]) == ((1,), 2)
    assert as_batch((1, None)) == (((1, None),), None)
    assert as_batch({"x": 1, "y": 2}) == (({"x": 1, "y": 2},), None)


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ImportError, match=r"lightning is not installed; pip install 'brainbrr\[lightning\]'"):
        runpy.run_path(sys.modules[WatchCallback.__module__].__file__)
