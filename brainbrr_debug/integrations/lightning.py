"""The watch as a callback of Lightning.

    Trainer(callbacks=[WatchCallback("runs/first", subject="package.module:Subject")])

Lightning calls `on_before_optimizer_step` once for every update, after backward and (with fp16) after unscaling, before
clipping: there the watch decides. Batch and loss are taken where they are exact: around `training_step`, because the
hooks get the loss divided by the number of accumulated batches and multiplied by the scale.

A batch (x, y) is captured as inputs (x,) and target y, any other as inputs (batch,) and target None.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from brainbrr_debug.integrations.session import Identify, Session, options_for_watch, require_skippable
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.subject import Batch, Gate, Step
from brainbrr_debug.watch import NonFiniteStep, Watch

try:
    import lightning
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("lightning is not installed; pip install 'brainbrr[lightning]'") from error


class WatchCallback(Callback):
    """Watches every update of `Trainer.fit`; options as those of `Watch`, which holds for the policies, too.

    `module` names the part of the LightningModule that is watched and captured ("": all of it); its outputs are seen
    when it is called, so with "" `training_step` has to call `self(…)`. `identify` says of a batch where each of its
    samples comes from. Optimizer, scaler and schedulers are the Trainer's. An exception that something non-finite
    caused ends `fit` as NonFiniteStep when the forward pass raised it, else as itself with a note.
    """

    def __init__(
        self,
        run_dir: RunDir | str | Path | None = None,
        *,
        module: str = "",
        identify: Identify | None = None,
        **options: Any,
    ) -> None:
        self._run_dir, self._module, self._identify, self._options = run_dir, module, identify, options
        self._session: Session | None = None
        self._output_seen = False

    @property
    def watch(self) -> Watch | None:
        """The watch of the last `fit`, if there was one."""
        return None if self._session is None else self._session.watch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch. Raises TypeError for a training that one gate cannot stand in."""
        if not pl_module.automatic_optimization or len(trainer.optimizers) != 1:
            raise TypeError(
                f"{type(pl_module).__name__} has {len(trainer.optimizers)} optimizers and automatic_optimization="
                f"{pl_module.automatic_optimization}; expected one and True, or a Watch inside of training_step"
            )
        optimizer = trainer.optimizers[0]
        require_skippable(optimizer)
        options = options_for_watch(
            self._options,
            framework=f"lightning {lightning.__version__}, precision {trainer.precision}",
            schedulers={f"scheduler.{i}": config.scheduler for i, config in enumerate(trainer.lr_scheduler_configs)},
            scaler=getattr(trainer.precision_plugin, "scaler", None),
        )
        watched = pl_module.get_submodule(self._module)
        session = self._session = Session(Watch(watched, optimizer, self._run_dir, **options), self._identify)
        self._output_seen = False
        handle = watched.register_forward_hook(self._see_output)
        session.on_leaving(handle.remove)
        session.wrap(pl_module, "training_step", lambda original: self._watched(original, trainer))

    def _watched(self, training_step: Callable[..., Any], trainer: Trainer) -> Callable[..., Any]:
        session = self._running()

        def watched(batch: Any, *args: Any) -> Any:
            with session.ended_by_error():
                session.micro_batch(as_batch(batch), batch, step=trainer.global_step)
                output = training_step(batch, *args)
                loss = output["loss"] if isinstance(output, Mapping) else output
                if loss is not None:
                    session.loss(loss)
                return output

        return watched

    def _see_output(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        self._output_seen = True

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """The gate. Raises NonFiniteStep, which ends `fit` before the update."""
        session = self._running()
        if not self._output_seen:
            self._output_seen = True
            place = f"module {self._module!r}" if self._module else f"{type(pl_module).__name__} itself"
            warnings.warn(
                f"training_step does not call {place}, so no output before the loss is watched; call self(…) there, "
                'or name the part that computes it: WatchCallback(module="…")',
                stacklevel=2,
            )
        session.gate()
        session.settle(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an update, let go of the step; between accumulated batches it stays open."""
        self._running().end()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Before a checkpoint takes the place of a good one. Raises NonFiniteStep where the state is damaged."""
        if self._session is not None:
            self._session.checkpoint()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The training is over."""
        self._running().leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Something ended the training. Lightning tidies up after this hook, so it must not raise."""
        if self._session is None:
            return
        try:
            self._session.leave(type(exception), exception, exception.__traceback__)
        except NonFiniteStep as stopped:
            exception.add_note(str(stopped))

    def _running(self) -> Session:
        assert self._session is not None
        return self._session


def as_batch(batch: Any) -> Batch:
    """A batch of Lightning as captures hold it: see the module's docstring."""
    if isinstance(batch, Sequence) and len(batch) == 2 and batch[1] is not None:
        return (batch[0],), batch[1]
    return (batch,), None


def module_step(module: LightningModule, optimizer: torch.optim.Optimizer) -> Step:
    """Lightning's step for a Subject: `Run(module, optimizer, loss_fn, batches, step=module_step(module, optimizer))`.

    Calls `module.training_step` and lets the loss of each micro-batch count equally. Without clipping and autocast.
    """

    def step(micro_batches: Sequence[Batch], gate: Gate) -> None:
        optimizer.zero_grad(set_to_none=True)
        for index, (inputs, target) in enumerate(micro_batches):
            output: Any = module.training_step(inputs[0] if target is None else (inputs[0], target), index)
            loss = output["loss"] if isinstance(output, Mapping) else output
            gate.forward(None, loss)
            (loss / len(micro_batches)).backward()
        if gate.gradients():
            optimizer.step()

    return step
