"""What every job shares: command line, Ray, chunks of work."""
