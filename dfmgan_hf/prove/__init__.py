"""Whether generated defects make a detector better: networks, scores, intervals and a report."""
