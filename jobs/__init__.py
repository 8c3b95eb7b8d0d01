"""One verb a file: parse, call ``detector_core`` on Ray, print one JSON line. Start with ``python -m jobs.demo``."""
