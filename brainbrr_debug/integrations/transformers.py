"""The watch as a callback of the Transformers Trainer.

    Trainer(…, callbacks=[WatchCallback("runs/first", subject="package.module:Subject")])

The callback's own events do not do: `on_pre_optimizer_step` comes after clipping, which spreads one NaN to every
gradient, and no event has the inputs or the loss. So while it trains three methods of this one Trainer are wrapped:
`compute_loss` (inputs and the loss as yet undivided), `training_step` (behind it, when it was the step's last
micro-batch, all gradients are there and nothing is clipped), and `_run_epoch` (any exception takes the hooks away).

A micro-batch is captured as inputs ({name: tensor},) and, as the target, the number of items in the whole step where
the Trainer passes one to the model, else None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from brainbrr_debug.integrations.session import Identify, Session, options_for_watch, require_skippable
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.subject import Batch, Gate, Step
from brainbrr_debug.watch import Watch

try:
    import transformers
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError("transformers is not installed; pip install 'brainbrr[transformers]'") from error


class WatchCallback(TrainerCallback):
    """Watches every update of `Trainer.train`; options as those of `Watch`, which holds for the policies, too.

    `identify` says of a micro-batch (the Trainer's dict of inputs) where each of its samples comes from. Optimizer,
    scaler and scheduler are the Trainer's.
    """

    def __init__(
        self, run_dir: RunDir | str | Path | None = None, *, identify: Identify | None = None, **options: Any
    ) -> None:
        self._run_dir, self._identify, self._options = run_dir, identify, options
        self._session: Session | None = None

    @property
    def watch(self) -> Watch | None:
        """The watch of the last `train`, if there was one."""
        return None if self._session is None else self._session.watch

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch. Raises TypeError for an optimizer or a Trainer that one gate cannot stand in."""
        trainer = self._trainer()
        if not hasattr(trainer, "_run_epoch"):
            raise TypeError(
                f"the Trainer of transformers {transformers.__version__} has no _run_epoch, around which exceptions "
                "are seen; install a newer one (5.23 is tested), or put a Watch into training_step"
            )
        optimizer = _bare(kwargs["optimizer"])
        require_skippable(optimizer)
        options = options_for_watch(
            self._options,
            framework=f"transformers {transformers.__version__}, precision {trainer.accelerator.mixed_precision}",
            schedulers={"scheduler": kwargs["lr_scheduler"]},
            scaler=trainer.accelerator.scaler,
        )
        session = self._session = Session(Watch(kwargs["model"], optimizer, self._run_dir, **options), self._identify)
        session.wrap(trainer, "_run_epoch", lambda original: _ended_by_error(original, session))
        session.wrap(trainer, "compute_loss", lambda original: _seen(original, session, trainer))
        session.wrap(trainer, "training_step", lambda original: _gated(original, session, trainer))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Right before the update, clipped and unscaled."""
        if self._session is not None:
            self._session.settle(_bare(kwargs["optimizer"]))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After the update, let go of the step; where a checkpoint is due, look whether it would be a good one."""
        if self._session is not None:
            self._session.end()
            if control.should_save:
                self._session.checkpoint()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """As `on_step_end`, for checkpoints of epochs."""
        if self._session is not None and control.should_save:
            self._session.checkpoint()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The training is over."""
        if self._session is not None:
            self._session.leave()

    def _trainer(self) -> Trainer:
        """The Trainer that calls this event: callbacks are not told, but it stands on the stack."""
        frame = inspect.currentframe()
        while frame is not None:
            found = frame.f_locals.get("self")
            if isinstance(found, Trainer) and self in found.callback_handler.callbacks:
                return found
            frame = frame.f_back
        raise RuntimeError("on_train_begin was not called by a transformers.Trainer that has this callback")


def _ended_by_error(run_epoch: Callable[..., Any], session: Session) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with session.ended_by_error():
            return run_epoch(*args, **kwargs)

    return run


def _seen(compute_loss: Callable[..., Any], session: Session, trainer: Trainer) -> Callable[..., Any]:
    def compute(model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():  # an evaluation
            return compute_loss(model, inputs, *args, **kwargs)
        # A copy of the dict, because label smoothing takes the labels out of it.
        items = kwargs.get("num_items_in_batch")
        session.micro_batch(((dict(inputs),), items), inputs, step=trainer.state.global_step)
        found = compute_loss(model, inputs, *args, **kwargs)
        session.loss((found[0] if isinstance(found, tuple) else found).mean())  # several GPUs: one loss each
        return found

    return compute


def _gated(training_step: Callable[..., Any], session: Session, trainer: Trainer) -> Callable[..., Any]:
    def train(*args: Any, **kwargs: Any) -> Any:
        loss = training_step(*args, **kwargs)
        if not session.open:
            raise TypeError(
                f"{type(trainer).__name__}.training_step does not call compute_loss, so this callback sees neither "
                "inputs nor loss; put a Watch into training_step instead"
            )
        if trainer.accelerator.sync_gradients:
            session.gate()
        return loss

    return train


def _bare(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside accelerate's wrapper."""
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found


def trainer_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """The Trainer's step for a Subject: `Run(model, optimizer, loss_fn, batches, step=trainer_step(model, optimizer))`.

    The model computes its own loss, of which each micro-batch counts equally, or by its items where their number was
    captured. Without clipping and autocast. The optimizer needs the captured one's groups: the Trainer's own has two,
    with weight decay (`Trainer.get_decay_parameter_names`) and without.
    """

    def step(micro_batches: Sequence[Batch], gate: Gate) -> None:
        optimizer.zero_grad(set_to_none=True)
        for (inputs,), items in micro_batches:
            output = model(**inputs, **({} if items is None else {"num_items_in_batch": items}))
            loss = output["loss"] if isinstance(output, dict) else output[0]
            gate.forward(output, loss)
            (loss if items is not None else loss / len(micro_batches)).backward()
        if gate.gradients():
            optimizer.step()

    return step
