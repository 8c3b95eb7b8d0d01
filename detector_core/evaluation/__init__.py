"""Scores to figures: metrics, thresholds, robustness, reports, comparisons."""
