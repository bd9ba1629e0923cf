"""A command of the user's own, run under observation: what it leaves behind, writes, keeps and never reads."""
