"""The watch inside of the Transformers library's own Trainer."""

from __future__ import annotations

import json
import runpy
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
    warnings.simplefilter("ignore")  # of the libraries that Transformers imports
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    from brainbrr_debug.integrations.transformers import WatchCallback, trainer_step

SILENT, STEPS, SAMPLES = 5, 9, 4
SUBJECT = f"{__name__}:NetSubject"


class Config(transformers.PretrainedConfig):
    model_type = "norms"


class Net(transformers.PreTrainedModel):
    """The length of each vector: its gradient at zero is 0/0."""

    config_class = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.lift = nn.Linear(6, 4, bias=False)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        pass

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:  # (B, 6), (B,)
        hidden = self.lift(x)
        logits = self.head(self.drop(hidden))[:, 0] + hidden.square().sum(-1).sqrt()
        loss = None if labels is None else nn.functional.mse_loss(logits, labels)
        return transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)


class PerItem(Net):
    """Divides by the items of the whole step, as language models do."""

    def forward(self, x: torch.Tensor, labels: Any = None, num_items_in_batch: Any = None, **kwargs: Any) -> Any:
        out = super().forward(x)
        total = (out.logits - labels).square().sum()
        out.loss = total / (num_items_in_batch if num_items_in_batch is not None else len(labels))
        return out


def net(kind: type[Net] = Net) -> Net:
    torch.manual_seed(1)
    return kind(Config())


class NetSubject:
    kind: type[Net] = Net

    def build(self, seed: int, switches: Any) -> Run:
        model = net(self.kind)
        # the two groups of the Trainer's optimizer
        groups = [[p for n, p in model.named_parameters() if n.endswith("bias") == bias] for bias in (False, True)]
        optimizer = torch.optim.AdamW([{"params": group} for group in groups])
        return Run(model, optimizer, lambda output, target: output.loss, (), step=trainer_step(model, optimizer))

    def switches(self) -> dict[str, Any]:
        return {}

    def identify(self, batch_index: int, sample_index: int) -> dict[str, Any]:
        return {}


class PerItemSubject(NetSubject):
    kind = PerItem


def samples(silent: bool = True) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    rows = [
        {"x": torch.randn(6, generator=generator), "labels": torch.randn((), generator=generator)}
        for _ in range(STEPS * SAMPLES)
    ]
    if silent:
        rows[SILENT * SAMPLES + 2]["x"].zero_()
    return rows


class Ordered(transformers.Trainer):
    def _get_train_sampler(self, *args: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def train(
    tmp_path: Path, callbacks: list[Any], model: Any = None, data: Any = None, trainer: Any = Ordered, **options: Any
) -> Any:
    keys = ("compute_loss_func", "optimizers", "eval_dataset")
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=SAMPLES,
        num_train_epochs=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        max_grad_norm=0.5,
        **{"save_strategy": "no", **{key: value for key, value in options.items() if key not in keys}},
    )
    made = trainer(
        model=net() if model is None else model,
        args=arguments,
        train_dataset=samples() if data is None else data,
        callbacks=callbacks,
        **{key: value for key, value in options.items() if key in keys},
    )
    made.train()
    return made


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
    model = net()
    callback = WatchCallback(
        tmp_path / "run",
        subject=SUBJECT,
        identify=lambda inputs: [{"recording": f"r{i}"} for i in range(len(inputs["x"]))],
    )
    with pytest.raises(NonFiniteStep, match=r"step 5: .*; gradients of 1 of 3 parameters"):
        train(tmp_path, [callback], model)
    assert finite(model) and hooks(model) == 0
    path = only_capture(tmp_path / "run")
    content = read_capture(path)
    (inputs,), items = content.micro_batches[0]
    expected = samples()[SILENT * SAMPLES : (SILENT + 1) * SAMPLES]
    assert content.step == SILENT and items is None
    assert torch.equal(inputs["x"], torch.stack([row["x"] for row in expected]))
    assert torch.equal(inputs["labels"], torch.stack([row["labels"] for row in expected]))
    assert content.identities[0][2] == {"recording": "r2"}
    assert content.environment["framework"].startswith("transformers ") and "scheduler" in content.extra_state
    assert content.finding.evidence["gradient_nonfinite"] == ["lift.weight"]  # before clipping spread it
    assert content.finding.evidence["nonfinite"] == ["gradient"]
    assert replay_capture(path).reality.reproduced == 3
    capsys.readouterr()
    assert exit_code(cli, ["diagnose", str(path), "--format", "json"]) == 0
    origin = json.loads(capsys.readouterr().out)
    assert (origin["op"], origin["module"], origin["phase"]) == ("aten::sqrt", "", "backward")


def test_a_healthy_training_finds_nothing_and_changes_nothing(tmp_path: Path) -> None:
    watched, bare = net(), net()
    callback = WatchCallback(tmp_path / "run")
    data = samples(False)
    trainer = train(tmp_path, [callback], watched, data, eval_dataset=data[:4], eval_strategy="epoch")
    train(tmp_path, [], bare, samples(False))
    for a, b in zip(watched.parameters(), bare.parameters(), strict=True):
        assert torch.equal(a, b)
    assert callback.watch.counters["steps"] == STEPS
    assert callback.watch.counters["incidents"] == callback.watch.counters["unchecked"] == 0
    assert not (tmp_path / "run" / "findings.jsonl").exists() and not list((tmp_path / "run" / "captures").iterdir())
    assert hooks(watched) == 0 and not {"training_step", "compute_loss", "_run_epoch"} & set(vars(trainer))


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_batches_are_one_step(tmp_path: Path, accumulate: int) -> None:
    callback = WatchCallback(tmp_path / "run", subject=SUBJECT)
    with pytest.raises(NonFiniteStep):
        train(tmp_path, [callback], gradient_accumulation_steps=accumulate)
    path = only_capture(tmp_path / "run")
    content = read_capture(path)
    assert content.step == SILENT // accumulate and len(content.micro_batches) == accumulate
    assert replay_capture(path).reality.reproduced == 3


def test_the_batches_left_over_at_the_end_are_a_step_too(tmp_path: Path) -> None:
    callback = WatchCallback()
    train(tmp_path, [callback], None, samples(False), gradient_accumulation_steps=4)
    assert callback.watch.counters["steps"] == 3 and callback.watch.counters["unchecked"] == 0


def test_a_loss_by_the_items_of_the_step_is_repeated_as_it_was(tmp_path: Path) -> None:
    callback = WatchCallback(tmp_path / "run", subject=f"{__name__}:PerItemSubject")
    with pytest.raises(NonFiniteStep):
        train(tmp_path, [callback], net(PerItem), gradient_accumulation_steps=3)
    path = only_capture(tmp_path / "run")
    assert int(read_capture(path).micro_batches[0][1]) == 3 * SAMPLES
    assert replay_capture(path).reality.reproduced == 3


def test_a_loss_from_outside_of_the_model_is_seen(tmp_path: Path) -> None:
    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        return nn.functional.mse_loss(outputs.logits, labels) * (torch.nan if labels[0] == first else 1)

    first = samples()[3 * SAMPLES]["labels"]
    with pytest.raises(NonFiniteStep, match=r"step 3: .*loss") as caught:
        train(tmp_path, [WatchCallback(tmp_path / "run")], compute_loss_func=loss)
    assert "logits" not in caught.value.finding.evidence["nonfinite"]
    (inputs,), _ = read_capture(only_capture(tmp_path / "run")).micro_batches[0]
    assert "labels" in inputs


def test_a_loss_that_the_model_returns_is_no_output(tmp_path: Path) -> None:
    data = samples(False)
    data[7]["labels"].fill_(torch.nan)
    with pytest.raises(NonFiniteStep, match="step 1: ") as caught:
        train(tmp_path, [WatchCallback(tmp_path / "run")], None, data)
    assert caught.value.finding.evidence["nonfinite"] == ["loss", "gradient"]


def test_a_skipped_step_changes_neither_parameters_nor_the_optimizer(tmp_path: Path) -> None:
    class Before(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.was = [p.detach().clone() for p in kwargs["model"].parameters()]
            self.state = repr(kwargs["optimizer"].state_dict()["state"])

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            same = all(torch.equal(a, b) for a, b in zip(self.was, kwargs["model"].parameters(), strict=True))
            assert same == (state.global_step == SILENT)
            assert (repr(kwargs["optimizer"].state_dict()["state"]) == self.state) == same

    callback = WatchCallback(tmp_path / "run", policy="skip")
    model = net()
    trainer = train(tmp_path, [callback, Before()], model)
    assert callback.watch.counters["skipped"] == 1 and finite(model) and trainer.state.global_step == STEPS


def test_a_failing_program_leaves_no_hooks_and_its_own_error(tmp_path: Path) -> None:
    class Failing(transformers.TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                raise LookupError("no such electrode")

    model = net()
    with pytest.raises(LookupError, match="no such electrode"):
        train(tmp_path, [WatchCallback(tmp_path / "run"), Failing()], model)
    assert hooks(model) == 0 and not list((tmp_path / "run" / "captures").iterdir())


def test_an_exception_that_something_non_finite_caused_is_an_incident(tmp_path: Path) -> None:
    class Solving(Net):
        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            torch.linalg.cholesky(x.T @ x + torch.eye(6) * (torch.nan if x.abs().sum(-1).min() == 0 else 1))
            return super().forward(x, labels)

    model = net(Solving)
    with pytest.raises(NonFiniteStep, match=r"step 5: _?LinAlgError") as caught:
        train(tmp_path, [WatchCallback(tmp_path / "run")], model)
    assert caught.value.capture_path == only_capture(tmp_path / "run") and hooks(model) == 0


def test_half_precision_with_a_scaler_may_skip_its_first_steps(tmp_path: Path) -> None:
    class Scaled(Ordered):
        """Accelerate gives fp16 to accelerators only."""

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    scale = 2.0**127
    callback = WatchCallback(tmp_path / "run", scaler_patience=30)
    train(tmp_path, [callback], None, samples(False), trainer=Scaled)
    assert callback.watch.counters["skipped_by_scaler"] > 0 and callback.watch.counters["incidents"] == 0
    scale = 2.0**4
    model = net()
    with pytest.raises(NonFiniteStep):
        train(tmp_path, [WatchCallback(tmp_path / "broken", scaler_patience=0)], model, trainer=Scaled)
    assert finite(model)
    assert read_capture(only_capture(tmp_path / "broken")).extra_state["scaler"]["scale"] == scale


def test_brain_float_is_watched_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStep):
        train(tmp_path, [WatchCallback(tmp_path / "run")], bf16=True)
    content = read_capture(only_capture(tmp_path / "run"))
    assert content.step == SILENT and content.environment["framework"].endswith("precision bf16")


def test_a_damaged_state_is_not_saved(tmp_path: Path) -> None:
    class Damaged(transformers.TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with torch.no_grad():
                kwargs["model"].head.bias.fill_(torch.nan)

    saving = {"save_strategy": "steps", "save_steps": 3}
    model = net()
    with pytest.raises(NonFiniteStep, match=r"step [01]"):
        train(
            tmp_path, [WatchCallback(tmp_path / "run"), Damaged()], model, samples(False), **{**saving, "save_steps": 1}
        )
    assert not list(tmp_path.glob("out/checkpoint-*")) and hooks(model) == 0
    train(tmp_path, [WatchCallback(tmp_path / "healthy")], None, samples(False), **saving)
    assert len(list(tmp_path.glob("out/checkpoint-*"))) == 3


def test_what_one_gate_cannot_watch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Ordered):
        def training_step(self, model: nn.Module, inputs: Any, *args: Any) -> torch.Tensor:
            loss = model(**inputs).loss
            loss.backward()
            return loss.detach()

    with pytest.raises(TypeError, match=r"Own\.training_step does not call compute_loss"):
        train(tmp_path, [WatchCallback()], trainer=Own)
    model = net()
    with pytest.raises(TypeError, match="LBFGS, which evaluates a step several times"):
        train(tmp_path, [WatchCallback()], model, optimizers=(torch.optim.LBFGS(model.parameters()), None))
    monkeypatch.delattr(transformers.Trainer, "_run_epoch")
    with pytest.raises(TypeError, match=r"has no _run_epoch, around which exceptions are seen; install a newer one"):
        train(tmp_path, [WatchCallback()])
    with pytest.raises(RuntimeError, match=r"not called by a transformers\.Trainer that has this callback"):
        WatchCallback().on_train_begin(None, None, None)


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"transformers is not installed; pip install 'brainbrr\[transformers\]'"):
        runpy.run_path(sys.modules[WatchCallback.__module__].__file__)
