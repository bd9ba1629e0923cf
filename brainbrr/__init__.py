"""EEG seizure detection: recordings in, seizure events out, trained under watch."""

__version__ = "0.1.0"
