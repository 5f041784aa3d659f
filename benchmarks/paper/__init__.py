"""The paper's comparisons, resumable and in parts: methods of the registry, measured by the metrics."""
