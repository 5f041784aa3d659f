"""Comparisons of the paper, and speed: what is measured with the package but is no part of it."""
