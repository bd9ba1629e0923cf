"""`python -m brainbrr`."""

from brainbrr.cli import main

main()
