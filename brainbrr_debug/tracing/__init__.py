"""Re-executes a training step and records where non-finite values are born, in which order, and what they reach."""
