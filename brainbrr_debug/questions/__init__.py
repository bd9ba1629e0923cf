"""The questions of a bisection, one a file, in the order in which `bisect` asks them."""
