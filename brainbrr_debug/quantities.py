"""Names of the quantities and sites that readings carry, shared by probes, checks and reports. Imports no torch."""

from __future__ import annotations

LOSS = "loss"  # value of one micro-batch's loss
OUTPUT_SUM = "output.sum"  # screening sum of the model's output: non-finite whenever an element is
MODULE_SUM = "module.sum"  # the same of one leaf module's output (sentinel)
STATE_NORM = "state.norm"  # 2-norm of the share of parameters, buffers and optimizer state that a step looked at
GRADIENT_NORM = "gradient.norm"  # total 2-norm before clipping
GRADIENT_NORM_DISCARDED = "gradient.norm.discarded"  # of a step that the loss scaler threw away, as it should
LEARNING_RATE = "learning_rate"  # of one parameter group
EIGENGAP = "eigengap"  # smallest relative gap in a decomposition whose vectors carried a gradient
EIGENGAP_DETACHED = "eigengap.detached"  # the same where no gradient flowed into the vectors: harmless

LOSS_SITE = "<loss>"
OPTIMIZER_SITE = "<optimizer>"
ROOT_SITE = ""
OUTSIDE_SITE = "<outside>"  # called from no module of the watched model
