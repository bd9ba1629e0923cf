"""Where to look: one probe a file. A probe defers its numbers to the step's ledger and turns them into Readings.

loss.py the loss of each micro-batch · outputs.py the model's output before any sanitiser · gradients.py the norm
before clipping · decompositions.py eigenvalue gaps, and
divisions.py condition numbers, of what replacement.py shows them · state.py parameters and optimizer state in turns ·
modules.py every leaf module's output (sentinel)
"""
