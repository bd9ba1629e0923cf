"""Checks over the text of a repository: its source is parsed, never imported or run. Imports no torch."""
