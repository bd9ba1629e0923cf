"""Where to look: one probe a file; each turns tensors into readings."""
