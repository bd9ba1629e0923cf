"""`python -m brainbrr_debug`."""

from brainbrr_debug.main import main

main()
