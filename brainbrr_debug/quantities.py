"""Names of the quantities and sites that readings carry, shared by probes, checks and reports. Imports no torch."""

from __future__ import annotations

LOSS = "loss"  # value of one micro-batch's loss
OUTPUT_SUM = "output.sum"  # screening sum of the model's output: non-finite whenever an element is
MODULE_SUM = "module.sum"  # the same of one leaf module's output (sentinel)
STATE_NORM = "state.norm"  # 2-norm of the share of parameters, buffers and optimizer state that a step looked at
GRADIENT_NORM = "gradient.norm"  # total 2-norm before clipping
GRADIENT_NORM_DISCARDED = "gradient.norm.discarded"  # of a step that the loss scaler threw away, as it should
LEARNING_RATE = "learning_rate"  # of one parameter group
EXPECTED_RATE = "learning_rate.expected"  # of the group at its site, only where another rate was met
EIGENGAP = "eigengap"  # smallest relative gap in a decomposition whose vectors carried a gradient
EIGENGAP_DETACHED = "eigengap.detached"  # the same where no gradient flowed into the vectors: harmless
CONDITION = "condition"  # times eps, of a matrix inverted or solved with: at 1 no digit is left

# On sampled steps. In phase "forward" of a module's output, in phase "backward" of the gradient that arrives there.
ABSMAX = "absmax"
RMS = "rms"
MEAN = "mean"
ZEROS = "zeros"  # share of elements
HEADROOM = "headroom"  # doublings of absmax that the dtype still holds
CLAMPED = "clamped"  # share of elements that one clamp altered, where it altered any
SANITISED = "sanitised"  # non-finite elements that one clamp or nan_to_num made finite, where there were any
SANITISED_DATA = "sanitised.data"  # the same in values that carry no gradient
HELD = "held.bytes"  # of what a module's own operations allocated, what its root's forward pass left alive
HELD_IN_ALL = "held.bytes.total"
SPREAD = "output.spread"  # largest difference between samples over the largest magnitude of the output
INPUTS_DIFFER = "input.differs"  # share of samples that are not the first one again
BASELINE_LOSS = "baseline.loss"  # of the output
BASELINE_ZEROS = "baseline.zeros"  # of zeros in the output's place
BASELINE_CONSTANT = "baseline.constant"  # of the output's own mean over the samples
UNCHANGED = "update.unchanged"  # share of parameters with a gradient that the update before left as they were

LOSS_SITE = "<loss>"
OPTIMIZER_SITE = "<optimizer>"
ROOT_SITE = ""
OUTSIDE_SITE = "<outside>"  # called from no module of the watched model
