"""The HTTP service: ``routes`` and ``service`` are plain FastAPI; ``deployments`` and ``app`` run them on Ray Serve."""
