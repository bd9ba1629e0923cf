"""One optimizer step: forward and backward of each micro-batch, the gate, clipping, the update.

The same object runs in the training loop and in every replay of a captured step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import nn

from brainbrr.config import Training
from brainbrr.training.losses import Loss
from brainbrr.training.observer import Batch, Gate

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingStep:
    """Calls `gate.forward` after each micro-batch and `gate.gradients` before clipping; no gate of its own.

    Under `on_nonfinite: sanitize` non-finite logits are replaced by zero before the loss and non-finite gradients by
    zero where they enter the network, as the historical trainer did; `altered` counts them. Gradients of parameters
    are left alone. `updated` becomes True before the first parameter changes; the caller resets it.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Loss, training: Training) -> None:
        self.model, self.optimizer, self.loss_fn, self.training = model, optimizer, loss_fn, training
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=training.mixed_precision == "fp16")
        self.altered = {"inputs": 0, "logits": 0, "gradients": 0}
        self.updated = False
        self.loss = self.norm = torch.zeros(())

    def __call__(self, micro_batches: Sequence[Batch], gate: Gate) -> None:
        """Do the step on micro-batches of ((signal (B, 19, L),), target (B, L)).

        Leaves the mean loss in `loss` and the norm of the gradients before clipping in `norm`.
        """
        self.optimizer.zero_grad(set_to_none=True)
        anomaly = torch.autograd.detect_anomaly() if self.training.detect_anomaly else contextlib.nullcontext()
        with anomaly:
            losses = [
                self._forward_backward(inputs, target, len(micro_batches), gate) for inputs, target in micro_batches
            ]
        self.loss = torch.stack(losses).mean()
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norm = torch.nn.utils.get_total_norm(gradients)
        if gate.gradients(self.norm):
            if self.training.gradient_clip > 0:
                torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.training.gradient_clip, self.norm)
            self.updated = True
            self.scaler.step(self.optimizer)
        self.scaler.update()

    def _forward_backward(
        self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor, share: int, gate: Gate
    ) -> torch.Tensor:
        inputs = tuple(x.to(self.device, non_blocking=True) for x in inputs)
        target = target.to(self.device, non_blocking=True)
        if self.training.sanitize_inputs:
            inputs = tuple(self._sanitized(x, "inputs") for x in inputs)
        dtype = AUTOCAST.get(self.training.mixed_precision or "")
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            logits = self.model(*inputs)
        used = logits.float()
        if self.training.on_nonfinite == "sanitize":
            used = self._sanitized(used, "logits")
            if used.requires_grad:
                used.register_hook(lambda gradient: self._sanitized(gradient, "gradients"))  # type: ignore[no-untyped-call]
        loss = self.loss_fn(used, target)
        gate.forward(logits, loss)
        self.scaler.scale(loss / share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _sanitized(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        self.altered[kind] += int((~torch.isfinite(x)).sum())
        return torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
