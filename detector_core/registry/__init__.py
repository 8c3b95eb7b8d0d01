"""Promoted versions of a model, and the predictor that serves one."""
