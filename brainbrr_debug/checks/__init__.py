"""Pure functions that return findings, over readings, a capture, an environment, a config or a cache."""
