"""From scores to metrics: thresholds, robustness, reports, comparisons, explanations."""
