"""Whether generated defects make a detector better: networks, scores, intervals and a report."""

from .experiment import ProveConfig, ProveError, prove
from .statistics import Comparison, Interval, Scores, compare

__all__ = ["Comparison", "Interval", "ProveConfig", "ProveError", "Scores", "compare", "prove"]
