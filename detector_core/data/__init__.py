"""Folders and CSVs to a checked data set, and a data set to batches."""
