"""A build of the fused kernels whose gradient is wrong. Found only where it is put on PYTHONPATH."""
