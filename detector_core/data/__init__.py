"""From folders and CSVs to a checked data set, and from a data set to batches."""
