"""The promoted model over HTTP: ``http`` is plain FastAPI, ``app`` puts it on Ray Serve."""
