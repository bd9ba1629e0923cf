"""Losses, optimizer, the training step and the loop around it."""
