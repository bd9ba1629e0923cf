"""Where to look: one probe a file. A probe defers its numbers to the step's ledger and turns them into Readings.

loss.py the loss of each micro-batch · outputs.py the model's output before any sanitiser · gradients.py the norm
before clipping · decompositions.py eigenvalue gaps, and
divisions.py condition numbers, of what replacement.py shows them · state.py parameters and optimizer state in turns ·
modules.py every leaf module's output (sentinel) · ranges.py its last minima and maxima, read on a trigger

On sampled steps: survey.py statistics of every module forward and backward, with operations.py (what is dispatched),
sanitisers.py (what clamps and nan_to_num alter) and census.py (what stays allocated) · dependence.py whether the output
depends on the input · updates.py whether the update changed anything. reach.py says which modules are in the open.
"""
