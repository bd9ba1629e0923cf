"""Finds out why a PyTorch training run goes numerically wrong, proves it, and proves the repair."""

__version__ = "0.1.0"
