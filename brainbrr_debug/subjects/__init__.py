"""Subjects of packages we know; the only folder that imports them."""
