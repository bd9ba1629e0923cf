"""Recordings, labels, preprocessing, the cache and the windows drawn from it."""
